"""What the end of a run asks of the training part, and the runs that it is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core.checkpoint import read_header
from medtool.core.errors import Interrupted
from medtool.core.records import Case, Prediction, Truth
from medtool.data.run_folder import RunFolder
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train


class Settling(TinyTask):
    """Settles the mean answer of the positive training cases, and decides by it."""

    def settles(self, case: Case) -> bool:
        return case.label == 1

    def settle(self, answers: Iterable[tuple[Case, Prediction]]) -> Mapping[str, Any]:
        values = {case.case_id: float(p.scalars["logit"]) for case, p in answers}
        return {"settled": {"cases": sorted(values), "sum": sum(values.values())}}

    def decide(
        self, predictions: Sequence[Prediction], truths: Sequence[Truth]
    ) -> Mapping[str, Any]:
        return {"chosen": {"cases": sorted(p.case_id for p in predictions)}}

    def predict(self, model: Any, prepared: Any, case: Case) -> Prediction:
        # Answers follow what was settled, as survival follows the baseline hazard.
        answer = super().predict(model, prepared, case)
        moved = float(answer.scalars["logit"]) + 5 * bool(model.document.get("settled"))
        return replace(answer, scalars={**answer.scalars, "logit": moved})


class CutOff(Settling):
    """Is interrupted in the pass with what was decided."""

    def predict(self, model: Any, prepared: Any, case: Case) -> Prediction:
        if model.document.get("chosen"):
            raise KeyboardInterrupt
        return super().predict(model, prepared, case)


class Compared(TinyTask):
    """Is compared with a run of another rate, and with one of more noise."""

    def baselines(self) -> Mapping[str, Sequence[str]]:
        if self.settings.train.learning_rate != 1e-2:
            return {}
        return {"slow": ("train.learning_rate=1e-5",), "later": ("train.learning_rate=1e-4",)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_tiny_cohort(tmp_path, patients=24)


def trained(task: type[TinyTask], **changes: Any) -> RunFolder:
    run = {key: changes.pop(key) for key in list(changes) if key in RunOptions.__annotations__}
    options = TrainOptions(
        task=task,
        assignments=("train.epochs=1", "metrics.bootstrap_draws=100"),
        run=RunOptions(run="one", device="cpu", workers=0, **run),
        **changes,
    )
    return RunFolder(train(options).run)


def test_the_training_part_settles_and_the_selection_part_decides(folder: Path) -> None:
    run = trained(Settling)
    document = read_header(run.checkpoints_folder / "best.safetensors").document
    rows = {row["case"]: row for row in run.read_cases()}
    parts = {
        part: sorted(name for name, row in rows.items() if row["part"] == part)
        for part in ("train", "selection")
    }
    positive = [name for name in parts["train"] if float(rows[name]["label"]) == 1]
    assert document["settled"]["cases"] == positive
    assert document["chosen"]["cases"] == parts["selection"]
    assert document["decided"] == ["chosen", "settled"]
    # Answers that settle things are of patients that the model knows: they are kept nowhere.
    assert not (run.predictions_folder / "train").exists()


def test_what_was_decided_is_decided_anew_from_plain_answers(folder: Path) -> None:
    run = trained(Settling)
    best = run.checkpoints_folder / "best.safetensors"
    before = read_header(best).document["settled"]
    again = trained(Settling, start_or_resume=True)
    assert read_header(again.checkpoints_folder / best.name).document["settled"] == before


def test_a_run_that_was_cut_off_while_scoring_goes_on(folder: Path) -> None:
    """From a fault: the journal of the pass with what was decided refused the pass without it."""
    with pytest.raises(Interrupted):
        trained(CutOff)
    run = trained(Settling, start_or_resume=True)
    assert run.read_scores().keys() == {"selection", "test"}
    assert not list(run.predictions_folder.glob("*/.partial"))


def test_baselines_are_runs_on_the_same_parts_and_stay(folder: Path) -> None:
    run = trained(Compared)
    own = [RunFolder(run.path / "baselines" / name) for name in ("slow", "later")]
    for one in own:
        assert one.read_scores().keys() == run.read_scores().keys()
        assert [(r["case"], r["part"]) for r in one.read_cases()] == [
            (r["case"], r["part"]) for r in run.read_cases()
        ]
    assert "learning_rate = 1e-05" in (own[0].path / "preset.toml").read_text()
    times = [one.scores_file.stat().st_mtime_ns for one in own]
    trained(Compared, start_or_resume=True)
    assert [one.scores_file.stat().st_mtime_ns for one in own] == times


def test_baselines_of_a_fold_are_no_folds(folder: Path) -> None:
    run = trained(Compared, folds=2, fold=0)
    assert run.path.name == "fold_0"
    assert (run.path / "baselines" / "slow" / "scores.json").is_file()
    assert not (run.path / "baselines" / "scores.json").exists()
