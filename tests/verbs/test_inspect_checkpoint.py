"""``inspect-checkpoint`` on checkpoints made by hand: each thing that it names, and differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtool.core.checkpoint import RawTensor, read_header, write_checkpoint
from medtool.core.errors import CheckpointError, ExitStatus, OutputExistsError
from medtool.verbs.inspect_checkpoint import inspect_checkpoint, milestones, write_slim

LAYERS = [
    {
        "name": "trunk",
        "type": "Linear",
        "group": "trunk",
        "shapes": {"weight": [2, 3], "bias": [2]},
        "parameters": 8,
    },
    {
        "name": "norm",
        "type": "BatchNorm1d",
        "group": "trunk",
        "shapes": {"running_mean": [2], "num_batches_tracked": []},
        "parameters": 0,
    },
    {
        "name": "head",
        "type": "Linear",
        "group": "head",
        "shapes": {"weight": [1, 2], "bias": [1]},
        "parameters": 3,
    },
    {
        "name": "stem",
        "type": "Linear",
        "group": "stem",
        "shapes": {"weight": [1000, 3]},
        "parameters": 3000,
    },
]
AUROC = {"value": 0.8125, "low": 0.7, "high": 0.9, "n": 40}


def document(**changes: Any) -> dict[str, Any]:
    history = [
        {"epoch": e, "stage": e // 4, "seconds": 1.0, "loss": 0.5 / (e + 1), "selection_auroc": 0.5}
        for e in range(7)
    ]
    return {
        "task": "squares",
        "preset": {"train": {"epochs": 7, "learning_rate": 0.01}},
        "preset_name": "by-hand",
        "layers": LAYERS,
        "groups": {
            "stem": {"parameters": 3000},
            "trunk": {"parameters": 8},
            "head": {"parameters": 3},
        },
        "stages": [
            {"from_epoch": 0, "rates": {"head": 0.01}, "parameters": 3},
            {"from_epoch": 4, "rates": {"head": 0.01, "trunk": 5e-5}, "parameters": 11},
        ],
        "epoch": 6,
        "step": 70,
        "metrics": {
            "primary": "auroc",
            "selection": {"auroc": 0.5},
            "scores": {
                "selection": {"optimistic": "selection set, optimistic", "metrics": {}},
                "test": {
                    "optimistic": "",
                    "metrics": {"auroc": AUROC, "npv": {"value": None, "n": 0}},
                },
            },
        },
        "threshold": 0.3125,
        "threshold_rule": "f1 on the selection part",
        "history": history,
        "fingerprint": {
            "sha256": "fe" * 32,
            "parts": {"train": {"cases": 9, "patients": 8, "labels": {"0.0": 5, "1.0": 4}}},
        },
        "training_range": {
            "cases": 9,
            "quantiles": [0, 0.5, 1],
            "manufacturer": {"Acme": 6, "Zenith": 3},
            "thickness_mm": [1.0, 2.5, 5.0],
            "spacing_mm": [[0.5, 0.5, 0.75], [0.5, 0.5, 0.75], [1.0, 2.0, 3.0]],
        },
        "weights": {
            "source": "some/weights",
            "revision": "abc123",
            "licence": "CC-BY-4.0",
            "loaded": 318,
            "total": 318,
            "tensors_sha256": "12" * 32,
        },
        "versions": {"medtool": "0.1.0", "torch": "2.8.0"},
        "patients": {"algorithm": "scrypt", "hashes": ["aa", "bb", "cc"]},
        "created_by": "medtool 0.1.0",
        **changes,
    }


def tensors(**changes: np.ndarray) -> list[RawTensor]:
    arrays = {
        "model.trunk.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "model.trunk.bias": np.zeros(2, dtype=np.float32),
        "model.head.weight": np.ones((1, 2), dtype=np.float32),
        "optimizer.state.head.weight.exp_avg": np.zeros((1, 2), dtype=np.float32),
        "probe.input.x": np.zeros(3, dtype=np.float32),
    } | {f"model.{name.replace('_', '.')}": array for name, array in changes.items()}
    return [RawTensor(n, "F32", a.shape, a.astype(np.float32).tobytes()) for n, a in arrays.items()]


def write(path: Path, changed_tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    write_checkpoint(path, document(**changes), tensors(**(changed_tensors or {})))
    return path


def flip_a_byte(path: Path, tensor: str) -> None:
    data = bytearray(path.read_bytes())
    data[read_header(path).tensors[tensor].begin] ^= 1
    path.write_bytes(data)


def test_what_was_pruned_stands_in_no_epoch(tmp_path: Path, medtool: Callable) -> None:
    path = write(tmp_path / "c.safetensors", epoch=-1, step=0, pruning={"share": 0.35})
    found = medtool("inspect-checkpoint", path)
    assert "  position  in no epoch of a run\n" in found.out
    # A run that was stopped before its first epoch ended.
    path = write(tmp_path / "stopped.safetensors", epoch=-1, step=7)
    found = medtool("inspect-checkpoint", path)
    assert "  position  within the first epoch, step 7\n" in found.out


def test_a_person_reads_everything_that_matters(tmp_path: Path, medtool: Callable) -> None:
    path = write(tmp_path / "c.safetensors")
    found = medtool("inspect-checkpoint", path)
    assert found.status == ExitStatus.DONE
    for line in (
        f"Checkpoint  {path}, as named",
        "  task      squares, preset by-hand",
        "  position  after epoch 6 (from 0), step 70",
        "  written   medtool 0.1.0 (medtool 0.1.0, torch 2.8.0)",
        "Metrics (primary: auroc)",
        "  threshold 0.3125 (f1 on the selection part)",
        "  selection (selection set, optimistic)",
        "    auroc                          0.812 (0.700 to 0.900), n = 40",
        "    npv                            undefined",
        "  1: from epoch 0: head at 0.01 (3 parameters)",
        "  2: from epoch 4: head at 0.01; trunk at 5e-05 (11 parameters)",
        "  parameters 3,011: stem 3,000, trunk 8, head 3",
        "Layers (4 with tensors; --layers shows each)",
        "Data (fingerprint fefefefefefefefe)",
        "  train      9 cases of 8 patients (label 0: 5, label 1: 4)",
        "  3 patients are known by salted hashes",
        "  manufacturer     Acme (6), Zenith (3)",
        "  thickness_mm     1 to 5, median 2.5",
        "  spacing_mm       0.5 to 0.75, median 0.5; 0.5 to 0.75, median 0.5; 1 to 3, median 2",
        "Weights began with some/weights abc123",
        "  licence   CC-BY-4.0",
        "  tensors   318 of 318",
        f"  sha256    {'12' * 32}",
        "History (7 epochs; the last; selection set, optimistic)",
        "  epoch 6, stage 2: loss 0.071; selection auroc 0.500",
        f"SHA-256 of the model's tensors {read_header(path).document['hashes']['model']}",
    ):
        assert line in found.out.splitlines(), line
    assert "epoch 1, stage" not in found.out
    assert "WARNING" not in found.out


def test_each_layer_has_its_shapes_and_the_stages_that_train_it(
    tmp_path: Path, medtool: Callable
) -> None:
    found = medtool("inspect-checkpoint", write(tmp_path / "c.safetensors"), "--layers")
    lines = {line.split()[0]: " ".join(line.split()) for line in found.out.splitlines() if line}
    assert lines["trunk"] == "trunk Linear 8 trunk: learns in stage 2; weight 2x3, bias 2"
    assert lines["head"] == "head Linear 3 head: learns in stage 1, 2; weight 1x2, bias 1"
    assert lines["stem"] == "stem Linear 3,000 stem: frozen; weight 1000x3"
    # What has no parameters shows its statistics; the shape of one number is said in words.
    assert lines["norm"].endswith("running_mean 2, num_batches_tracked scalar")


def test_before_a_run_is_over_the_epochs_numbers_are_called_optimistic(
    tmp_path: Path, medtool: Callable
) -> None:
    metrics = {"primary": "auroc", "selection": {"auroc": 0.75, "f1": None}}
    path = write(tmp_path / "c.safetensors", metrics=metrics, weights={"source": ""})
    lines = medtool("inspect-checkpoint", path).out.splitlines()
    assert "  auroc                          0.7500 (selection set, optimistic)" in lines
    assert "  f1                             undefined (selection set, optimistic)" in lines
    assert "Weights began with random numbers" in lines


def test_a_threshold_says_where_it_comes_from(tmp_path: Path, medtool: Callable) -> None:
    path = tmp_path / "c.safetensors"

    def line(**changes: Any) -> str:
        whole = {key: value for key, value in document(**changes).items() if value is not None}
        write_checkpoint(path, whole, tensors())
        out = medtool("inspect-checkpoint", path).out
        return next(one for one in out.splitlines() if one.startswith("  threshold"))

    # The epoch's own, of a run that is not over; and of a task that chooses none.
    early = {"primary": "auroc", "selection": {"auroc": 0.5, "threshold": 0.3125}}
    assert line(threshold_rule=None, metrics=early).endswith("(of its epoch, not of a whole run)")
    assert line(threshold_rule=None).endswith("threshold 0.3125 (none was chosen)")
    # As pruned checkpoints are.
    alone = line(threshold_rule=None, metrics={"primary": "dice"})
    assert alone.endswith("threshold 0.3125 (none was chosen)")


def test_a_demo_model_carries_its_warning(tmp_path: Path, medtool: Callable) -> None:
    path = write(tmp_path / "c.safetensors", synthetic=True)
    found = medtool("inspect-checkpoint", path).out
    assert "WARNING   trained on synthetic data: not for patients" in found


def test_a_program_reads_the_whole_document(tmp_path: Path, medtool: Callable) -> None:
    path = write(tmp_path / "c.safetensors")
    read = json.loads(medtool("inspect-checkpoint", path, "--json").out)
    for key, value in document().items():
        assert read[key] == value, key
    assert read["path"] == str(path)
    assert read["size_bytes"] == path.stat().st_size
    assert read["slim"] is False
    assert read["tensors"]["model.trunk.weight"] == {"dtype": "F32", "shape": [2, 3]}
    assert set(read["hashes"]["tensors"]) == {tensor.name for tensor in tensors()}
    assert "verified" not in read


def test_verify_says_that_all_is_whole(tmp_path: Path, medtool: Callable) -> None:
    path = write(tmp_path / "c.safetensors")
    found = medtool("inspect-checkpoint", path, "--verify")
    assert found.status == ExitStatus.DONE
    assert "Verified: all 5 tensors are as they were written." in found.out
    read = json.loads(medtool("inspect-checkpoint", path, "--verify", "--json").out)
    assert read["verified"] == {"intact": True, "damaged": []}


@pytest.mark.parametrize("name", ["model.trunk.weight", "optimizer.state.head.weight.exp_avg"])
def test_a_flipped_byte_is_found_and_named(tmp_path: Path, medtool: Callable, name: str) -> None:
    path = write(tmp_path / "c.safetensors")
    flip_a_byte(path, name)
    # Without --verify no tensor is read.
    assert medtool("inspect-checkpoint", path).status == ExitStatus.DONE
    found = medtool("inspect-checkpoint", path, "--verify")
    assert found.status == ExitStatus.USAGE
    assert f"DAMAGED: 1 tensors are not those that were written:\n  {name}" in found.out
    assert "This checkpoint is damaged." in found.err
    read = medtool("inspect-checkpoint", path, "--verify", "--json")
    assert read.status == ExitStatus.USAGE
    assert json.loads(read.out)["verified"] == {"intact": False, "damaged": [name]}


def test_equal_checkpoints_do_not_differ(tmp_path: Path, medtool: Callable) -> None:
    first, second = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors")
    assert inspect_checkpoint(first, second).differences == ()
    assert medtool("inspect-checkpoint", first, second).status == ExitStatus.DONE


def test_a_second_path_shows_what_differs(tmp_path: Path, medtool: Callable) -> None:
    first = write(tmp_path / "a.safetensors")
    other_scores = {"test": {"optimistic": "", "metrics": {"auroc": {**AUROC, "value": 0.875}}}}
    second = write(
        tmp_path / "b.safetensors",
        {
            "trunk_weight": np.zeros((2, 3)),
            "head_weight": np.ones((1, 4)),
            "tail_weight": np.ones(1),
        },
        threshold=0.5,
        preset={"train": {"epochs": 9, "learning_rate": 0.01, "seed": 4}},
        metrics={"primary": "auroc", "selection": {"auroc": 0.5}, "scores": other_scores},
    )
    found = {d.what: (d.first, d.second) for d in inspect_checkpoint(first, second).differences}
    hashes = [read_header(p).document["hashes"]["tensors"] for p in (first, second)]
    assert found == {
        "threshold": ("0.3125", "0.5"),
        "preset.train.epochs": ("7", "9"),
        "preset.train.seed": ("not there", "4"),
        "metrics.test.auroc": ("0.8125", "0.875"),
        "model.trunk.weight": tuple(each["model.trunk.weight"][:12] for each in hashes),
        "model.head.weight": ("F32 [1, 2]", "F32 [1, 4]"),
        "model.tail.weight": ("not there", "F32 [1]"),
    }
    text = medtool("inspect-checkpoint", first, second).out
    assert all(name in text for name in found)
    assert "Layers" not in text, "who compares two asks for what differs only"
    read = json.loads(medtool("inspect-checkpoint", first, second, "--json").out)
    assert read["other"] == str(second)
    assert {d["what"] for d in read["differences"]} == set(found)


def a_run(folder: Path) -> Path:
    metrics = {"primary": "auroc", "selection": {"auroc": 0.625}}
    for name, epoch in (
        ("best", 2),
        ("last", 6),
        ("stage_0_epoch_0003", 3),
        ("epoch_0001", 1),
    ):
        write(folder / "checkpoints" / f"{name}.safetensors", epoch=epoch, metrics=metrics)
    (folder / "checkpoints" / "torn.safetensors").write_bytes(b"half")
    return folder


def test_a_folder_lists_its_milestones_and_takes_its_best(
    tmp_path: Path, medtool: Callable
) -> None:
    run = a_run(tmp_path)
    found = [(m.file.name, m.kind, m.epoch, m.metric, m.value) for m in milestones(run)]
    assert found == [
        ("epoch_0001.safetensors", "milestone", 1, "auroc", 0.625),
        ("best.safetensors", "best", 2, "auroc", 0.625),
        ("stage_0_epoch_0003.safetensors", "stage-end", 3, "auroc", 0.625),
        ("last.safetensors", "last", 6, "auroc", 0.625),
    ]
    text = medtool("inspect-checkpoint", run).out
    figure = "(epoch 2, counted from 0, auroc 0.625: selection set, optimistic)"
    assert f"the selected best of its run {figure}" in text
    assert "Checkpoints in this folder (values: selection set, optimistic)" in text
    rows = [" ".join(line.split()[:4]) for line in text.splitlines() if ".safetensors  " in line]
    assert rows == [
        "epoch_0001.safetensors milestone epoch 1",
        "best.safetensors best epoch 2",
        "stage_0_epoch_0003.safetensors stage-end epoch 3",
        "last.safetensors last epoch 6",
    ]
    read = json.loads(medtool("inspect-checkpoint", run, "--json").out)
    assert [row["kind"] for row in read["milestones"]] == ["milestone", "best", "stage-end", "last"]


def test_a_slim_copy_is_written_beside_and_never_over(tmp_path: Path) -> None:
    inspection = inspect_checkpoint(write(tmp_path / "c.safetensors"))
    target = tmp_path / "slim.safetensors"
    write_slim(inspection, target)
    header = read_header(target)
    assert header.is_slim
    assert "probe.input.x" in header.tensors
    with pytest.raises(OutputExistsError):
        write_slim(inspection, target)
    write_slim(inspection, target, force=True)


def test_a_file_that_is_no_checkpoint_ends_with_the_right_status(
    tmp_path: Path, medtool: Callable
) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(CheckpointError):
        inspect_checkpoint(tmp_path / "no.safetensors")
    found = medtool("inspect-checkpoint", tmp_path / "no.safetensors")
    assert (found.status, found.out) == (ExitStatus.USAGE, "")
