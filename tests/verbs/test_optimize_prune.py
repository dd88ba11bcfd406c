"""``optimize`` of a network that loses channels first, on a small model that really learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from listening import Listening
from trained_heart import train_heart

from medtool.core.checkpoint import read_header
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import GateError, UsageError
from medtool.nets.widths import widths
from medtool.predict.model import load_model
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.optimize_prune import WEIGHTS_NOTE
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
    """A cohort of 12 patients, and a run on it."""
    folder = tmp_path_factory.mktemp("prune")
    train_heart(folder)
    return folder


def smaller(
    place: Path, output: Path, *assignments: str, said: Listening | None = None, **options: object
) -> OptimizeResult:
    given = {"checkpoint": place / "runs" / "heart" / "a", "prune": "pruned", **options}
    return optimize(
        OptimizeOptions(
            output=output,
            assignments=(*QUICK, *ROUNDS, *assignments),
            run=RunOptions(workers=0, device="cpu", cache=place / "cache"),
            **given,  # type: ignore[arg-type]
        ),
        said,
    )


@pytest.fixture(scope="module")
def pruned(place: Path) -> tuple[OptimizeResult, Listening]:
    """The folder of the pruned model; a wide tolerance, since it learned for seconds."""
    said = Listening()
    result = smaller(place, place / "small", "optimize.tolerance=0.9", said=said)
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
    assert any("0.9 of each metric" in line for line in said.lines)
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


def test_what_fewer_channels_cost_is_judged_against_the_whole_network(place: Path) -> None:
    """Without learning again the masks are lost: nothing is written."""
    forgetful = ("optimize.prune.epochs=0", "optimize.prune.last_epochs=0")
    with pytest.raises(GateError, match="worse by more than is allowed"):
        smaller(place, place / "refused", *forgetful, "optimize.prune.steps=1")
    assert not (place / "refused").exists()


def test_single_weights_are_said_to_make_nothing_faster(place: Path) -> None:
    said = Listening()
    result = smaller(
        place,
        place / "zeros",
        "optimize.prune.kind=weights",
        "optimize.prune.share=0.5",
        "optimize.prune.steps=1",
        "optimize.tolerance=0.95",
        'optimize.formats=["int8"]',
        said=said,
    )
    assert WEIGHTS_NOTE in said.lines
    assert result.document["pruning"]["note"] == WEIGHTS_NOTE
    assert WEIGHTS_NOTE in result.report.read_text()
    found = load_model(result.folder / "pruned.safetensors", device="cpu").network
    weight = found.get_parameter("encoder.stages.1.0.convs.1.conv.weight")
    assert int((weight == 0).sum()) == weight.numel() // 2
    assert isinstance(found, torch.nn.Module)


def test_several_models_in_one_file_are_pruned_one_by_one(place: Path, tmp_path: Path) -> None:
    best = place / "runs/heart/a/checkpoints/best.safetensors"
    both = tmp_path / "both.safetensors"
    write_ensemble(both, {"fold_0": best, "fold_1": best})
    with pytest.raises(UsageError, match="cannot be pruned at once"):
        smaller(place, tmp_path / "out", checkpoint=both, data=place / "data")
