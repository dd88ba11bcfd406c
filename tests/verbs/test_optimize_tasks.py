"""``optimize`` for every kind of task: exported, in eight bits, judged by its own metrics."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from documented import TINY_PROJECT
from medtool_brainmet.demo import DemoOptions, write_cohort
from segmentation_places import write_segmentation_place

from medtool.core.errors import GateError
from medtool.data.predictions import read_predictions
from medtool.nets.freezing import parameter_count
from medtool.predict.model import load_model
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

# What judges, and what is compared of the answers beside it.
JUDGED = {
    "brainmet": ({"auroc"}, {"probability", "decision"}),
    "segment": ({"dice"}, {"mask"}),
    "pancreas": ({"dice", "macro_f1"}, {"mask", "class"}),
    "petct": ({"dice", "harrell_c"}, {"mask", "risk", "uncertainty"}),
}
VOLUMES = {"segment", "pancreas"}
RUN = RunOptions(run="a", workers=0, device="cpu")
# Networks that learned for two epochs: small differences move their masks, and that is no matter.
LENIENT = ("optimize.tolerance=0.5", "optimize.calibration_inputs=4", "optimize.measure_runs=0")


def write_place(task: str, folder: Path) -> Path:
    """A tiny cohort and settings that make training short; gives the data."""
    if task != "brainmet":
        write_segmentation_place(task, folder)
        return folder / "dataset"
    write_cohort(folder, 0, DemoOptions(patients=24, size_px=64, workers=0))
    (folder / "medtool.toml").write_text(TINY_PROJECT, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("task", JUDGED)
def test_every_task_leaves_in_eight_bits(tmp_path: Path, task: str) -> None:
    with contextlib.chdir(tmp_path):
        data = write_place(task, tmp_path)
        trained = train(TrainOptions(task, data=data, run=RUN))
        result = optimize(
            OptimizeOptions(trained.run, tmp_path / "small", assignments=LENIENT, run=RUN)
        )
        answered = infer(InferOptions((data,), tmp_path / "small", tmp_path / "out", run=RUN))
        original = infer(InferOptions((data,), trained.run, tmp_path / "before", run=RUN))
    metrics, compared = JUDGED[task]
    found: dict[str, Any] = result.document["accuracy"]["files"]
    assert set(found) == {"model.onnx", "model.int8.onnx", "model.int8.xml"}
    for one in found.values():
        assert {fall["metric"] for fall in one["metrics"]} == metrics
        assert compared <= {thing["name"] for thing in one["agreement"]}
        assert one["without_answer"] == []
    # Where there are passes their maps are compared, and nowhere else.
    assert all(("passes" in one) == (task == "petct") for one in found.values())
    if task == "petct":
        passes = found["model.onnx"]["passes"]
        assert (passes["kept"], passes["mean"] < 1e-3) == (True, True)
        assert passes["correlation"] > 0.999
        assert 1 <= passes["cases"] <= 8
        assert "Whether uncertainty survives" in result.report.read_text()
    # In float nothing but the order of sums changes.
    assert all(abs(fall["fall"]) < 0.01 for fall in found["model.onnx"]["metrics"])
    # Of one channel of a volume eight bits are slower.
    floats = result.document["quantisation"]["layers_in_float"]
    assert ("encoder.stages.0.0.convs.0.conv" in floats) == (task in VOLUMES)
    assert answered.ok == original.ok > 0
    columns = [list(read_predictions(tmp_path / name)[0]) for name in ("out", "before")]
    assert columns[0] == columns[1]
    with contextlib.chdir(tmp_path):
        loses_channels(trained.run, tmp_path / "pruned", JUDGED[task][0])


def loses_channels(run: Path, output: Path, metrics: set[str]) -> None:
    """The same network with fewer channels, an epoch later: every step, not what it is worth."""
    short = ("optimize.prune.steps=1", "optimize.prune.last_epochs=1", "optimize.prune.round_to=2")
    free = [f"optimize.{key}=0.99" for key in ("tolerance", "passes_mean")]
    free += ["optimize.passes_correlation=-1", 'optimize.methods=["minmax"]']
    assignments = (*LENIENT, *short, *free)
    result = optimize(
        OptimizeOptions(
            run, output, formats=("int8",), prune="pruned", assignments=assignments, run=RUN
        )
    )
    pruning = result.document["pruning"]
    assert pruning["parameters"] < pruning["parameters_before"]
    assert [one["epochs"] for one in pruning["rounds"]] == [1]
    assert set(result.document["files"]) == {"model.onnx", "model.int8.onnx"}
    for one in result.document["accuracy"]["files"].values():
        assert {fall["metric"] for fall in one["metrics"]} == metrics
        assert one["without_answer"] == []
    if "harrell_c" in metrics:
        # From a fault: masks as wide as the whole network's, and no file came about.
        passes = result.document["accuracy"]["files"]["model.onnx"]["passes"]
        assert passes["mean"] < 1e-3
        assert passes["correlation"] > 0.999
    narrower = load_model(output / "pruned.safetensors", device="cpu")
    assert parameter_count(narrower.network) == pruning["parameters"]


@pytest.mark.slow
def test_a_model_whose_uncertainty_does_not_survive_is_not_written(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        trained = train(TrainOptions("petct", data=write_place("petct", tmp_path), run=RUN))
        strict = (
            "optimize.passes_correlation=0.999999",
            "optimize.most_float_share=0",
            'optimize.methods=["minmax"]',
        )
        options = OptimizeOptions(
            trained.run, tmp_path / "small", assignments=(*LENIENT, *strict), run=RUN
        )
        with pytest.raises(GateError, match="uncertainty of the smaller model") as refused:
            optimize(options)
    assert refused.value.exit_status == 4
    assert refused.value.where == "selection part"
    assert "means differ from PyTorch's by" in refused.value.met
    assert "has to be 0.999999" in refused.value.met
    assert "the layers that cost most by themselves" in refused.value.met
    assert "optimize.passes_correlation" in refused.value.how
    assert not (tmp_path / "small").exists()
