"""``medtool evaluate`` of answers with masks, risks and doubts: one model, and two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from medtool_petct.demo import write_cohort
from untrained_petct import write_petct_model

from medtool.config.places import known_task
from medtool.config.write import write_preset
from medtool.core.checkpoint import read_header
from medtool.data.run_folder import RunFolder
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions

Medtool = Callable[..., Any]
CASES = 8


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic cohort, and what two models of random weights say of it."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_cohort(folder / "cohort", 0, CASES)
    settings = {"one": "metrics.bootstrap_draws=100", "other": "model.suv_scale=20.0"}
    for name, setting in settings.items():
        model = write_petct_model(folder / f"{name}.safetensors", setting)
        options = InferOptions(
            (folder / "cohort",), model, folder / name, run=RunOptions(workers=0)
        )
        assert infer(options).ok == CASES
    return folder


def test_answers_are_scored_where_masks_and_outcomes_are_known(
    answers: Path, medtool: Medtool
) -> None:
    outcome = medtool("evaluate", "one", "--data", "cohort", "--json", folder=answers)
    assert outcome.status == 0, outcome.err
    scores = json.loads(outcome.out)["evaluated"][0]["scores"]
    metrics = scores["metrics"]
    assert metrics["harrell_c"]["n"] == CASES
    assert metrics["reachable_c"]["value"] > 0.6
    # One of twelve has no tumour, and its number is 7.
    assert metrics["dice"]["n"] == CASES - 1
    assert metrics["false_positive_where_absent_ml"]["n"] == 1
    assert metrics["voxel_ece"]["value"] > 0
    # A model that was never trained has no baseline hazard, and nothing is known of its patients.
    assert "brier_365" not in metrics
    assert any("training patients are not known" in note for note in scores["notes"])
    assert [row["case"] for row in scores["per_case"]] == [f"demo_{n:03d}" for n in range(CASES)]


def test_two_models_are_compared_by_their_masks_and_their_risks(
    answers: Path, medtool: Medtool
) -> None:
    words = ("evaluate", "one", "other", "--data", "cohort", "-o", "page")
    outcome = medtool(*words, folder=answers)
    assert outcome.status == 0, outcome.err
    document = json.loads((answers / "page" / "scores.json").read_text(encoding="utf-8"))
    compared = {row["metric"]: row for row in document["comparison"]["differences"]}
    assert {"dice", "harrell_c"} <= compared.keys()
    ours, theirs = (one["scores"]["metrics"]["harrell_c"]["value"] for one in document["evaluated"])
    assert compared["harrell_c"]["difference"] == pytest.approx(ours - theirs)
    page = (answers / "page" / "report.html").read_text(encoding="utf-8")
    assert "Survival (first)" in page
    assert "Harrell" in page


def test_a_run_answers_for_data_that_are_named(answers: Path, medtool: Medtool) -> None:
    """From a fault: --data beside a run was not looked at, and its own test part was printed."""
    run = RunFolder(answers / "run")
    shutil.copytree(answers / "one", run.predictions_folder / "test")
    run.checkpoints_folder.mkdir()
    shutil.copy(answers / "one.safetensors", run.checkpoints_folder / "best.safetensors")
    header = read_header(answers / "one.safetensors")
    write_preset(known_task(header).settings, run.preset_file)
    run.write_run({"task": "petct", "data": {"folder": str(answers / "cohort")}})
    write_cohort(answers / "external", 1, 3)
    outcome = medtool("evaluate", "run", "--data", "external", "--json", folder=answers)
    assert outcome.status == 0, outcome.err
    (found,) = json.loads(outcome.out)["evaluated"]
    assert [row["case"] for row in found["scores"]["per_case"]] == [
        f"demo_{number:03d}" for number in range(3)
    ]
