"""Several folds by one command: what failed in any of them, and what cannot be joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listening import Listening
from tiny_task import TinySettings, TinyTask, write_tiny_cohort

from medtool.config.sections import TrainSection
from medtool.core.records import Case, Prediction
from medtool.data.predictions import LEADING_COLUMNS
from medtool.data.run_folder import RunFolder, write_json, write_rows
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train
from medtool.verbs.train_folds import join_folds

# Tested in the first of two folds, learned from in the second.
MUTE = "P002_0"


class Mute(TinyTask):
    """One case has no answer."""

    def predict(self, model: Any, prepared: Any, case: Case) -> Prediction:
        if case.case_id == MUTE:
            raise ValueError("no answer")
        return super().predict(model, prepared, case)


def test_what_failed_in_an_earlier_fold_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fault: only the last fold decided whether the command ended with status 1."""
    monkeypatch.chdir(write_tiny_cohort(tmp_path, patients=24))
    result = train(
        TrainOptions(
            task=Mute,
            assignments=("train.epochs=1", "metrics.bootstrap_draws=100"),
            run=RunOptions(run="cv", device="cpu", workers=0, folds=2),
        )
    )
    parts = [
        row["part"]
        for fold in ("fold_0", "fold_1")
        for row in RunFolder(result.run.parent / fold).read_cases()
        if row["case"] == MUTE
    ]
    assert parts == ["test", "train"], "a test of nothing"
    assert result.failed == {MUTE}
    assert result.failures == 1


def test_folds_that_test_a_case_twice_are_not_joined(tmp_path: Path) -> None:
    """From a fault: a case that two folds had tested counted twice in the joint scores."""
    for fold in range(2):
        run = RunFolder(tmp_path / f"fold_{fold}")
        write_json(run.scores_file, {})
        rows = [{"case": f"c{fold}", "status": "ok"}, {"case": "both", "status": "ok"}]
        write_rows(run.predictions_folder / "test" / "predictions.csv", rows, LEADING_COLUMNS)
    task, said = TinyTask(TinySettings(train=TrainSection(folds=2))), Listening()
    # The folds are trained: what each of them is worth must not be lost.
    assert join_folds(task, tmp_path, (), said) is None
    assert any("both: in fold_0 and fold_1" in line for line in said.lines)
