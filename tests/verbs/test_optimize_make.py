"""The steps of ``optimize`` where something goes wrong on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from listening import Listening
from trained_heart import train_heart

from medtool.config.optimize_section import OptimizeSection
from medtool.core.errors import CheckpointError, GateError
from medtool.core.progress import Silent
from medtool.core.records import Case
from medtool.optimize.passes import PassesBeside
from medtool.predict.engines import open_engine
from medtool.score.falls import Fall
from medtool.verbs import optimize_make
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_make import Making
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.options import RunOptions

QUICK = ("optimize.measure_runs=0", "optimize.calibration_inputs=8", 'optimize.methods=["minmax"]')


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 12 patients, and a run on it."""
    folder = tmp_path_factory.mktemp("making")
    train_heart(folder)
    return folder


def made(
    place: Path, output: Path, *formats: str, reporter: Listening | None = None
) -> OptimizeResult:
    return optimize(
        OptimizeOptions(
            checkpoint=place / "runs" / "heart" / "a",
            output=output,
            formats=formats,
            assignments=QUICK,
            run=RunOptions(workers=0, device="cpu", cache=place / "cache"),
        ),
        reporter,
    )


def test_an_answer_that_is_lost_is_refused_with_why(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stumbling:
        """An engine that answers the first time only."""

        def __init__(self, file: Path) -> None:
            self._engine, self._answered = open_engine(file), False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

        def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Any:
            if self._answered:
                raise CheckpointError("The engine stumbled.")
            self._answered = True
            return self._engine.run(inputs, outputs)

    def opened(file: Path) -> Any:
        return (Stumbling if file.name == "model.int8.onnx" else open_engine)(file)

    monkeypatch.setattr(optimize_make, "open_engine", opened)
    with pytest.raises(GateError, match="have none any more") as refused:
        made(place, tmp_path / "out", "int8")
    assert refused.value.exit_status == 4
    assert refused.value.where == "model.int8.onnx, test part"
    assert "The engine stumbled." in refused.value.met
    assert not any(tmp_path.iterdir())


def test_what_openvino_cannot_compute_ends_only_what_asked_for_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(source: Path, target: Path) -> Path:
        raise CheckpointError("It lacks an operator.", met="operator Gate", how="leave it out.")

    monkeypatch.setattr(optimize_make, "write_openvino", lacking)
    said = Listening()
    result = made(place, tmp_path / "out", reporter=said)
    assert set(result.document["files"]) == {"model.onnx", "model.int8.onnx"}
    assert "No file for OpenVINO. It lacks an operator. (operator Gate)" in said.lines
    with pytest.raises(CheckpointError, match="lacks an operator"):
        made(place, tmp_path / "named", "int8", "openvino")
    assert not (tmp_path / "named").exists()


def test_of_a_sorted_cohort_both_classes_choose() -> None:
    cases = tuple(Case(f"{n:02}", f"{n:02}", "", {}, label=float(n >= 20)) for n in range(40))
    data, settings = SimpleNamespace(choosing=cases), SimpleNamespace(choice_cases=6)
    making = Making(
        *[None] * 2,
        data,
        settings,
        *[None] * 2,
        Silent(),  # type: ignore[arg-type]
    )
    chosen = making.choosing
    assert sorted(case.label for case in chosen) == [0, 0, 0, 1, 1, 1]
    assert chosen == making.choosing


def test_what_the_pruned_network_lost_is_told_beside_what_eight_bits_lost() -> None:
    def judged(after: float) -> Any:
        falls = (Fall("dice", 0.9, after, 0.0, 0.0, 9, 9, 0.02),)
        return SimpleNamespace(falls=falls, silent={}, passes=None)

    files = {"model.onnx": {"arithmetic": "float32"}, "model.int8.onnx": {"arithmetic": "int8"}}
    data = SimpleNamespace(judged="test part")
    models: Any = (object(), object())
    making = Making(*models, data, OptimizeSection(), *[None] * 2, Silent())  # type: ignore[arg-type]
    making.document = {"files": files}
    making._require_as_good("model.onnx", judged(0.885), 9)
    making._require_as_good("model.int8.onnx", judged(0.881), 9)
    with pytest.raises(GateError) as refused:
        making._require_as_good("model.int8.onnx", judged(0.875), 9)
    assert "(the pruned network in float) -0.0150 and fewer bits beyond it -0.0100" in (
        refused.value.met
    )
    assert "optimize.prune.share" in refused.value.how
    # A network that is whole has no such part.
    whole = Making(models[0], models[0], data, OptimizeSection(), *[None] * 2, Silent())  # type: ignore[arg-type]
    whole.document = {"files": files}
    whole._require_as_good("model.onnx", judged(0.885), 9)
    with pytest.raises(GateError) as refused:
        whole._require_as_good("model.int8.onnx", judged(0.875), 9)
    assert "pruned" not in refused.value.met


def test_a_file_whose_uncertainty_is_another_is_not_shipped() -> None:
    files = {"model.onnx": {"arithmetic": "float32"}, "model.int8.onnx": {"arithmetic": "int8"}}
    falls = (Fall("dice", 0.9, 0.9, 0.0, 0.0, 9, 9, 0.005),)
    model: Any = object()
    said = Listening()
    data = SimpleNamespace(judged="test part")
    making = Making(model, model, data, OptimizeSection(), *[None] * 2, said)  # type: ignore[arg-type]
    making.document = {"files": files}

    def judged(correlation: float) -> Any:
        passes = PassesBeside(0.001, 0.1, correlation, 8, 0.01, 0.95)
        return SimpleNamespace(falls=falls, silent={}, passes=passes)

    making._require_as_good("model.int8.onnx", judged(0.97), 9)
    assert any("maps of uncertainty 0.970 (has to be 0.95)" in line for line in said.lines)
    for name, how in (("model.int8.onnx", "optimize.float_layers"), ("model.onnx", "doctor")):
        with pytest.raises(GateError, match="uncertainty of the smaller model") as refused:
            making._require_as_good(name, judged(0.935), 9)
        assert refused.value.exit_status == 4
        assert refused.value.where == f"{name}, test part"
        assert "0.935" in refused.value.met
        assert how in refused.value.how
