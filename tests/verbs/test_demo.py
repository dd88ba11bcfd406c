"""medtool demo: every verb on a synthetic cohort."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from medtool_brainmet import Brainmet
from medtool_brainmet.demo import DemoOptions as CohortOptions
from medtool_brainmet.demo import write_cohort
from named_in import files_naming
from segmentation_places import TINY, TINY_VOLUMES

from medtool.core.errors import ExitStatus, OutputExistsError, UnknownNameError
from medtool.core.progress import Advance, Reporter
from medtool.core.registry import load_task
from medtool.data.predictions import read_predictions
from medtool.verbs.demo import MARKER, DemoOptions, demo
from medtool.verbs.options import RunOptions

STEPS = ["check", "preprocess", "train", "infer", "evaluate", "inspect-checkpoint"]


def test_a_folder_of_others_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(OutputExistsError):
            demo(DemoOptions("brainmet", tmp_path, force=force))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_earlier_demo_is_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("written by a demo")
    with pytest.raises(OutputExistsError, match="before"):
        demo(DemoOptions("brainmet", tmp_path))
    assert (tmp_path / MARKER).is_file()


def test_a_task_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        demo(DemoOptions("brainmets", tmp_path / "new"))
    assert not (tmp_path / "new").exists()


# A small version of the demo; benchmarks/demo_quality.py judges the whole one.
SMALL = CohortOptions(patients=24, size_px=64, workers=1)
QUICK = """
[data.preparation]
size_px = 48
[augment]
audit_shuffles = 10
[model]
hidden_features = 16
[train]
epochs = 2
[metrics]
bootstrap_draws = 100
"""


class Bars:
    """A reporter that keeps what its bars were told."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int | None]] = []
        self.steps = 0

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        self.bars.append((description, total))

        def advance(steps: int = 1, note: str = "") -> None:
            self.steps += steps

        yield advance


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bar_shows_while_the_cohort_is_written(tmp_path: Path, workers: int) -> None:
    shown = Bars()
    few = CohortOptions(patients=4, size_px=64, workers=workers, oddities=False)
    write_cohort(tmp_path, 0, few, shown)
    assert (shown.bars, shown.steps) == ([("Writing", 4)], 4)


def write_small(task: Brainmet, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
    """The task's own cohort with fewer patients, and settings for a short training beside it."""
    write_cohort(folder, seed, SMALL, reporter)
    (folder / "medtool.toml").write_text(QUICK)


def test_the_demo_runs_every_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Brainmet, "write_demo", write_small)
    result = demo(DemoOptions("brainmet", tmp_path / "demo", run=RunOptions(workers=0)))
    assert result.status == ExitStatus.DONE
    assert [step.command.split()[1] for step in result.steps if step.command] == STEPS
    assert result.report is not None
    assert result.report.is_file()
    run = json.loads((result.run / "run.json").read_text())
    assert run["synthetic"] is True
    assert run["plan"]["epochs"] == 2
    # Augmentation by class, which the demo does not use, would tell the class.
    assert run["audit"]["used"] == "both_alike"
    assert run["audit"]["auroc"]["both_alike"][0] < run["audit"]["auroc"]["by_class"][0]
    assert files_naming(result.run / "checkpoints", str(tmp_path)) == []
    # Patients come in pairs that share all that is not disease.
    for row in run["confounders"]:
        assert row["auroc"] <= 0.65, row


# Cases of a small demo: enough for a held-out part with every class.
FEW = {"heart": 12, "segment": 10, "pancreas": 16, "petct": 20}


@pytest.mark.parametrize("task", FEW)
def test_the_demos_of_outlines_run_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    def write_few(self: Any, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        module = import_module(f"medtool_{task}.demo")
        volumes = task in ("segment", "pancreas")
        write = module.write_dataset if volumes else module.write_cohort
        write(folder, seed, FEW[task], reporter)
        (folder / "medtool.toml").write_text(TINY.get(task, TINY_VOLUMES))

    monkeypatch.setattr(load_task(task), "write_demo", write_few)
    result = demo(DemoOptions(task, tmp_path / "demo", run=RunOptions(workers=0)))
    assert result.status == ExitStatus.DONE
    assert [step.command.split()[1] for step in result.steps if step.command] == STEPS
    assert result.report is not None and result.report.is_file()
    rows = read_predictions(result.folder / "answers")
    # Petct's cohort has one study more, of DICOM.
    assert len(rows) >= FEW[task] * (4 if task == "heart" else 1)
    assert {row["status"] for row in rows} == {"ok"}
    assert all((result.folder / "answers" / row["mask"]).is_file() for row in rows)
    dice = result.scores["test"]["metrics"]["dice"]
    assert isfinite(dice["value"]) and dice["n"] > 1
    assert json.loads((result.run / "run.json").read_text())["synthetic"] is True
    assert files_naming(result.run / "checkpoints", str(tmp_path)) == []
