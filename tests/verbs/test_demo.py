"""medtool demo: every verb on a synthetic cohort, and what such a cohort must not give away."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from medtool_brainmet.demo import DemoOptions as CohortOptions
from medtool_brainmet.demo import write_cohort

from medtool.core.errors import ExitStatus, OutputExistsError, UnknownNameError
from medtool.verbs.demo import MARKER, DemoOptions, demo
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

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


@pytest.mark.slow
def test_the_demo_runs_every_verb_and_learns(tmp_path: Path) -> None:
    result = demo(DemoOptions("brainmet", tmp_path / "demo"))
    assert result.status == ExitStatus.DONE
    assert [step.command.split()[1] for step in result.steps if step.command] == STEPS
    assert result.report is not None
    assert result.report.is_file()
    auroc = result.scores["test"]["metrics"]["auroc"]
    assert auroc["value"] > 0.9
    run = json.loads((result.run / "run.json").read_text())
    assert run["synthetic"] is True
    for row in run["confounders"]:
        if row["fact"] in ("slices", "thickness_mm", "manufacturer"):
            assert 0.35 <= row["auroc"] <= 0.65, row
    assert run["audit"]["auroc"]["both_alike"][0] < 0.6 < run["audit"]["auroc"]["by_class"][0]


# --- what must not be learned -------------------------------------------------------------
SEEDS = range(5)
SMALL = CohortOptions(patients=60, size_px=64, oddities=False)
# Half of the patients are held out: the mean over five seeds then has a deviation of 0.05.
QUICK = (
    "data.preparation.size_px=48",
    "augment.audit_shuffles=0",
    "train.epochs=4",
    "train.test_share=0.5",
    "model.hidden_features=16",
)


def held_out_auroc(folder: Path, seed: int) -> float:
    """AUROC on the test part of a short run on the cohort in ``folder``."""
    result = train(
        TrainOptions(
            task="brainmet",
            preset="demo",
            data=folder,
            assignments=QUICK,
            run=RunOptions(run="null", seed=seed, workers=0, cache=folder / "cache"),
            folder=folder,
        )
    )
    return float(result.scores["test"]["metrics"]["auroc"]["value"])


def shuffle_labels(folder: Path, seed: int) -> None:
    """Deal the labels of ``folder``/labels1.csv anew."""
    path = folder / "labels1.csv"
    with path.open(newline="") as stream:
        head, *rows = csv.reader(stream)
    dealt = np.random.default_rng(seed).permutation([row[1] for row in rows])
    with path.open("w", newline="") as stream:
        pairs = zip((row[0] for row in rows), dealt, strict=True)
        csv.writer(stream).writerows([head, *pairs])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shuffled labels", "no lesions"])
def test_without_disease_nothing_is_learned(kind: str, tmp_path: Path) -> None:
    aurocs = []
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        lesions = kind == "shuffled labels"
        write_cohort(folder, seed, CohortOptions(**{**vars(SMALL), "lesions": lesions}))
        if lesions:
            shuffle_labels(folder, seed)
        aurocs.append(held_out_auroc(folder, seed))
    assert 0.4 <= np.mean(aurocs) <= 0.6, aurocs
