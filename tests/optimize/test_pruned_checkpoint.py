"""A pruned network leaves as a checkpoint that loads, answers and learns on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from optimised import write_heart
from tiny_task import TinyTask, write_tiny_cohort

from medtool.config.prune_section import PruneSection
from medtool.core.checkpoint import LAST_NAME, read_header
from medtool.data.run_folder import RunFolder
from medtool.nets.state import load_network
from medtool.nets.widths import PRUNED, widths
from medtool.optimize.prune_loop import Learners, prune_in_rounds
from medtool.optimize.pruned_checkpoint import write_pruned
from medtool.predict.model import Model, load_model
from medtool.train.probe import check_probe
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

HALF = PruneSection(share=0.5, round_to=1, steps=1, last_epochs=0, distil_weight=0)
NOBODY = Learners((), (), {})


def test_a_pruned_checkpoint_loads_as_any_other_and_answers_the_same(tmp_path: Path) -> None:
    model = load_model(write_heart(tmp_path / "whole.safetensors"), device="cpu")
    pruned = prune_in_rounds(model.task, model.network, HALF, NOBODY)
    file = tmp_path / "pruned.safetensors"
    write_pruned(model, pruned, file, {"threshold": 0.25})
    loaded = load_model(file, device="cpu")
    assert loaded.threshold == 0.25
    assert widths(loaded.network)["decoder.seg_layers.1"] == {"in": 2, "out": 2}
    images = torch.randn(2, 1, 16, 24)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), pruned.network(images))
    assert check_probe(file, loaded.network, loaded.task.deployment()).passed
    elements = sum(entry.elements for entry in read_header(file).tensors.values())
    assert elements < 0.6 * sum(e.elements for e in read_header(model.path).tensors.values())
    document = loaded.document
    assert document["optimised_from"]["hash"] == model.document["hashes"]["model"]
    shapes = {row["name"]: row["shapes"] for row in document["layers"]}
    assert shapes["encoder.stages.0.0.convs.0.conv"]["weight"] == [2, 1, 3, 3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_tiny_cohort(tmp_path, patients=24)


def options(**changes: object) -> TrainOptions:
    return TrainOptions(
        task=TinyTask,
        assignments=("train.epochs=2", "metrics.bootstrap_draws=100"),
        run=RunOptions(run="whole", device="cpu", workers=0),
        **changes,  # type: ignore[arg-type]
    )


def test_a_pruned_network_learns_on_with_the_verb_train(folder: Path) -> None:
    whole = train(options())
    header = read_header(whole.checkpoint)
    task = TinyTask(TinyTask.settings_type.model_validate(header.document["preset"]))
    network = task.network()
    load_network(whole.checkpoint, network)
    model = Model(task, network.eval(), torch.device("cpu"), None, header, whole.checkpoint, "")
    pruned = prune_in_rounds(task, network, HALF, NOBODY)
    run = RunFolder(Path(shutil.copytree(whole.run, whole.run.parent / "pruned")))
    shutil.rmtree(run.checkpoints_folder)
    run.checkpoints_folder.mkdir()
    last = run.checkpoints_folder / LAST_NAME
    write_pruned(model, pruned, last)
    # From a fault: the scores of the whole network went on as its own.
    assert "scores" in header.document["metrics"]
    assert read_header(last).document["metrics"] == {
        "primary": header.document["metrics"]["primary"]
    }
    found = train(TrainOptions(task=TinyTask, resume=run.path, run=RunOptions(device="cpu")))
    document = read_header(found.checkpoint).document
    assert document[PRUNED] == {"trunk": {"in": 256, "out": 4}, "head": {"in": 4, "out": 1}}
    assert len(read_header(last).document["history"]) == 2
    again = task.network()
    load_network(found.checkpoint, again)
    moved = again.get_parameter("trunk.weight") - pruned.network.get_parameter("trunk.weight")
    assert moved.shape == (4, 256)
    assert float(moved.detach().abs().max()) > 0
    assert np.isfinite(found.scores["selection"]["metrics"]["auroc"]["value"])
