"""``optimize`` of a network that loses channels first, on a small model that really learned."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import Listening
from medtool_heart.demo import write_cohort
from named_in import files_naming
from trained_heart import train_heart

from medtool.config import resolve
from medtool.core.checkpoint import read_header
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import CheckpointError, GateError, InputError, UsageError
from medtool.core.progress import Silent
from medtool.core.records import Source
from medtool.core.registry import load_task, task_names
from medtool.data.cache import Cache
from medtool.data.run_folder import read_rows, write_rows
from medtool.nets.widths import widths
from medtool.optimize.prune_loop import Learners
from medtool.predict.model import load_model
from medtool.verbs import optimize_prune
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_data import OptimizeData
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.optimize_prune import WEIGHTS_NOTE, pruned_model
from medtool.verbs.optimize_settings import asked_task
from medtool.verbs.options import RunOptions

QUICK = ("optimize.measure_runs=0", "optimize.calibration_inputs=8", 'optimize.methods=["minmax"]')
ROUNDS = (
    "optimize.prune.steps=2",
    "optimize.prune.epochs=1",
    "optimize.prune.last_epochs=4",
    "optimize.prune.round_to=2",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 12 patients, and a run on it that a narrow network can follow in few epochs."""
    folder = tmp_path_factory.mktemp("prune")
    train_heart(folder, "train.epochs=12")
    return folder


def smaller(
    place: Path, output: Path, *assignments: str, said: Listening | None = None, **options: object
) -> OptimizeResult:
    given = {
        "checkpoint": place / "runs" / "heart" / "a",
        "prune": "pruned",
        "run": RunOptions(workers=0, device="cpu", cache=place / "cache"),
        **options,
    }
    return optimize(
        OptimizeOptions(
            output=output,
            assignments=(*QUICK, *ROUNDS, *assignments),
            **given,  # type: ignore[arg-type]
        ),
        said,
    )


@pytest.fixture(scope="module")
def pruned(place: Path) -> tuple[OptimizeResult, Listening]:
    """The folder of the pruned model; a wide tolerance, since it learned for seconds."""
    said = Listening()
    result = smaller(place, place / "small", "optimize.tolerance=0.99", said=said)
    return result, said


def test_the_exported_files_are_those_of_the_narrow_network(
    pruned: tuple[OptimizeResult, Listening], place: Path
) -> None:
    result, said = pruned
    found = result.document["pruning"]
    assert found["settings"]["share"] == 0.35
    assert [round(one["share"], 3) for one in found["rounds"]] == [0.175, 0.35]
    assert 0.3 < found["parameters"] / found["parameters_before"] < 0.55
    whole = load_model(place / "runs" / "heart" / "a", device="cpu")
    assert found["parameters_before"] == sum(p.numel() for p in whole.network.parameters())
    assert set(result.document["files"]) >= {"model.onnx", "model.int8.onnx"}
    assert any("0.99 of each metric" in line for line in said.lines)
    assert any(line.startswith("Pruned, selection part: dice: ") for line in said.lines)
    page = result.report.read_text()
    assert "How it was pruned" in page
    assert f"{found['parameters']:,} after" in page
    before, after = (result.document[key] for key in ("counts_before", "counts"))
    assert before["parameters"] == found["parameters_before"]
    # Nearly all is in convolutions between layers that both have fewer channels.
    assert 0.25 < after["multiply_adds"] / before["multiply_adds"] < 0.65
    assert f"{before['multiply_adds']:,} multiply-adds an input before" in page


def test_the_pruned_checkpoint_is_one_like_any_other(
    pruned: tuple[OptimizeResult, Listening], place: Path, tmp_path: Path
) -> None:
    folder = pruned[0].folder
    model = load_model(folder / "pruned.safetensors", device="cpu")
    assert model.engine is None
    # 8 features, 35 % less, rounded down to a multiple of 2.
    assert widths(model.network)["encoder.stages.0.0.convs.0.conv"] == {"in": 3, "out": 4}
    source = read_header(place / "runs/heart/a/checkpoints/best.safetensors").document
    assert model.document["patients"] == source["patients"]
    assert files_naming(folder, str(place)) == []
    image = sorted((place / "data" / "images").iterdir())[0]
    tables = []
    for number, checkpoint in enumerate((folder / "pruned.safetensors", folder / "model.onnx")):
        options = InferOptions(
            (image,),
            checkpoint,
            tmp_path / str(number),
            allow_demo=True,
            run=RunOptions(workers=0, device="cpu"),
        )
        tables.append(infer(options).rows)
    for first, second in zip(*tables, strict=True):
        assert first["status"] == second["status"] == "ok"
        numbers = [name for name, value in first.items() if isinstance(value, float)]
        assert numbers
        # A pixel on the edge may fall to either side.
        assert all(first[n] == pytest.approx(second[n], rel=0.05, abs=0.1) for n in numbers)


@pytest.mark.parametrize("task", task_names())
def test_the_preset_of_every_task_says_what_pruning_may_cost(task: str) -> None:
    found = resolve(load_task(task), "pruned").settings.optimize
    assert found.tolerance == 0.02
    assert (found.prune.kind, found.prune.share, found.prune.round_to) == ("channels", 0.35, 8)


def test_what_fewer_channels_cost_is_judged_against_the_whole_network(place: Path) -> None:
    """Without learning again the masks are lost: nothing is written, and it is not the eight bits.

    From a fault: layers were left in float one after another, and more calibration advised.
    """
    forgetful = ("optimize.prune.epochs=0", "optimize.prune.last_epochs=0")
    said = Listening()
    with pytest.raises(GateError, match="worse by more than is allowed") as refused:
        smaller(place, place / "refused", *forgetful, "optimize.prune.steps=1", said=said)
    assert not (place / "refused").exists()
    # What the preset allows, for nobody said otherwise.
    assert "Pruning; what is allowed to be lost: 0.02 of each metric." in said.lines
    assert refused.value.where == "model.onnx, selection part"
    assert "may fall by 0.02" in refused.value.met
    for key in ("share", "steps", "epochs"):
        assert f"optimize.prune.{key}" in refused.value.how
    assert "calibration" not in refused.value.how
    assert not [line for line in said.lines if "in float" in line]


class Heard(Exception):
    """Ends an optimisation where learning again would begin."""


@pytest.fixture
def learners(monkeypatch: pytest.MonkeyPatch) -> list[Learners]:
    """With whom a pruned network would learn again; then it ends."""
    heard: list[Learners] = []

    def listening(task: Any, network: Any, settings: Any, given: Learners, reporter: Any) -> None:
        heard.append(given)
        raise Heard

    monkeypatch.setattr(optimize_prune, "prune_in_rounds", listening)
    return heard


def test_a_pruned_network_learns_from_the_training_part_whoever_calibrates(
    place: Path, tmp_path: Path, learners: list[Learners]
) -> None:
    """From a fault: --prune with --calibration trained on the calibration scans."""
    write_cohort(tmp_path / "others", 5, 3)
    file = tmp_path / "others" / "manifest.csv"
    rows = read_rows(file)
    others = [{**row, "case": f"X{row['case']}", "patient": f"X{row['patient']}"} for row in rows]
    write_rows(file, others)
    with pytest.raises(Heard):
        smaller(place, tmp_path / "out", calibration=tmp_path / "others")
    rows = read_rows(place / "runs" / "heart" / "a" / "cases.csv")
    (found,) = learners
    for part, cases in (("train", found.training), ("selection", found.selection)):
        wanted = {row["case"] for row in rows if row["part"] == part}
        assert {case.case_id for case in cases} == wanted
        assert wanted <= found.prepared.keys()


def test_what_cannot_be_exported_is_refused_before_it_learns_again(
    place: Path, tmp_path: Path, learners: list[Learners], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fault: that was met after all epochs of the pruning, which may take hours."""

    def lacking(network: Any, *words: Any, **named: Any) -> None:
        # It is the narrow one that is tried: 8 features, 35 % less.
        assert widths(network.network)["encoder.stages.0.0.convs.0.conv"] == {"in": 3, "out": 4}
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", lacking)
    with pytest.raises(CheckpointError, match="cannot be exported") as refused:
        smaller(place, tmp_path / "out")
    assert "no such operator" in refused.value.met
    assert learners == []
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_channels_are_taken_out_is_not_lost(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: signal.Signals
) -> None:
    """From a fault: only steps of the training looked whether it was asked to stop."""
    monkeypatch.setattr(optimize_prune, "prune_in_rounds", lambda *_: signal.raise_signal(asked))
    with pytest.raises(KeyboardInterrupt):
        smaller(place, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_as_many_processes_load_as_are_asked_for(
    place: Path, tmp_path: Path, learners: list[Learners]
) -> None:
    for workers, wanted in ((0, 0), (2, 2)):
        run = RunOptions(workers=workers, device="cpu", cache=place / "cache")
        with pytest.raises(Heard):
            smaller(place, tmp_path / "out", run=run)
        assert learners[-1].workers == wanted


def test_nobody_to_learn_from_is_said(place: Path, tmp_path: Path) -> None:
    model = load_model(place / "runs" / "heart" / "a", device="cpu")
    cases = model.task.find(Source((place / "data",))).cases
    data = OptimizeData(
        calibration=cases[:2],
        choosing=cases[2:3],
        judging=cases[3:],
        judged="patients that the model never met",
        optimistic="",
        cache=Cache(place / "cache", model.task),
    )
    settings = resolve(type(model.task), "pruned").settings.optimize.prune
    with pytest.raises(InputError, match="nobody that a pruned network could learn from"):
        pruned_model(model, data, settings, tmp_path / "file", tmp_path, Silent())
    with pytest.raises(InputError, match="nobody to choose"):
        nobody = replace(data, choosing=())
        pruned_model(model, nobody, settings, tmp_path / "file", tmp_path, Silent())


def test_single_weights_are_said_to_make_nothing_faster(place: Path) -> None:
    said = Listening()
    result = smaller(
        place,
        place / "zeros",
        "optimize.prune.kind=weights",
        "optimize.prune.steps=1",
        "optimize.tolerance=0.95",
        'optimize.formats=["int8"]',
        said=said,
    )
    assert WEIGHTS_NOTE in said.lines
    assert result.document["pruning"]["note"] == WEIGHTS_NOTE
    page = result.report.read_text()
    assert WEIGHTS_NOTE in page
    assert "Weights that are 0" in page
    assert "Channels gone" not in page
    assert "learned again" not in page
    # Half of them, whatever share of channels the preset names.
    found = load_model(result.folder / "pruned.safetensors", device="cpu").network
    weight = found.get_parameter("encoder.stages.1.0.convs.1.conv.weight")
    assert int((weight == 0).sum()) == weight.numel() // 2
    assert isinstance(found, torch.nn.Module)


@pytest.mark.parametrize(
    ("assignments", "prune", "share"),
    [
        (("kind=weights",), None, 0.5),
        (("kind = 'weights'",), "pruned", 0.5),
        (("kind=weights", "share=0.2"), "pruned", 0.2),
        (("kind=channels",), "pruned", 0.35),
    ],
)
def test_of_single_weights_half_are_taken_unless_it_is_said(
    place: Path, tmp_path: Path, assignments: list[str], prune: str | None, share: float
) -> None:
    """From a fault: the share of channels was taken, and without a preset nothing, silently."""
    given = [f"optimize.prune.{one}" for one in assignments]
    options = OptimizeOptions(place, tmp_path, prune=prune, assignments=given)
    model = load_model(place / "runs" / "heart" / "a", device="cpu")
    found = asked_task(model.header, options, Silent()).settings.optimize.prune
    assert found.share == share


def test_pruning_that_would_take_nothing_out_is_refused(place: Path, tmp_path: Path) -> None:
    for preset in ("default", None):
        with pytest.raises(UsageError, match="Nothing would be pruned"):
            smaller(place, tmp_path / "out", prune=preset)
    assert not (tmp_path / "out").exists()


def test_several_models_in_one_file_are_pruned_one_by_one(place: Path, tmp_path: Path) -> None:
    best = place / "runs/heart/a/checkpoints/best.safetensors"
    both = tmp_path / "both.safetensors"
    write_ensemble(both, {"fold_0": best, "fold_1": best})
    with pytest.raises(UsageError, match="cannot be pruned at once"):
        smaller(place, tmp_path / "out", checkpoint=both, data=place / "data")
