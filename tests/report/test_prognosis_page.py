"""Survival and uncertainty in the report: what a reader must find there, and when there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from judged_prognosis import SETTINGS, cohort

from medtool.config.write import preset_text
from medtool.core.records import Prediction, Scores
from medtool.data.run_folder import RunFolder, write_json
from medtool.report.evaluation import write_evaluation_report
from medtool.report.page import write_report
from medtool.score.document import scores_to_document
from medtool.tasks.prognosis_scores import score_prognosis

SECTIONS = ("Survival", "Uncertainty", "To look at first")


def scored(keep: str = "") -> Scores:
    """A cohort of 40; with ``keep`` only its columns and no masks, as of a model of risks alone."""
    predictions, truths = cohort(40)
    if keep:
        predictions = [
            Prediction(one.case_id, one.patient_id, {keep: one.scalars[keep]})
            for one in predictions
        ]
    return score_prognosis(SETTINGS, predictions, truths)


def run_with(folder: Path, scores: Scores) -> RunFolder:
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.preset_file.write_text(preset_text(SETTINGS), encoding="utf-8")
    write_json(run.scores_file, {"test": scores_to_document(scores)})
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = run_with(tmp_path_factory.mktemp("run") / "run", scored())
    run_with(run.baselines_folder / "survival", scored(keep="risk"))
    return write_report(run).read_text(encoding="utf-8")


def text_of(page: str, title: str) -> str:
    """The words of a section, without its markup."""
    found = re.search(rf"<h2>{title}</h2>(.*?)<h2>", page, re.DOTALL)
    assert found is not None, title
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[1]))


def test_survival_says_what_a_risk_is_and_counts_its_pairs(page: str) -> None:
    text = text_of(page, "Survival")
    assert "higher is worse" in text
    assert "no probability" in text
    assert "39 patients of the held-out test part" in text
    pairs = scored().tables["survival"]["pairs"]
    assert f"{pairs['concordant']} in the right order" in text
    assert "Log-rank test" in text
    assert "at risk, 1 of 2" in text
    assert "best reachable" in text
    assert "This model minus it" in text


def test_uncertainty_is_drawn_and_the_review_list_named(page: str) -> None:
    text = text_of(page, "Uncertainty")
    assert "voxels within 5 mm" in text
    assert "an uncertainty that knew the errors" in text
    first = scored().tables["review"][0]["case"]
    listed = text_of(page, "To look at first")
    assert listed.index(first) < listed.index(scored().tables["review"][1]["case"])
    assert "higher is worse" in listed


def test_a_model_of_one_half_stands_beside_with_the_difference(page: str) -> None:
    text = text_of(page, "Beside simpler models")
    value = scored().metrics["harrell_c"]
    assert f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})" in text
    assert "Survival alone" in text
    # The same risks: no difference, and an interval that says so.
    assert "0.000 to 0.000" in text


def test_what_the_task_tells_first_are_the_cards(page: str) -> None:
    names = re.findall(r'<div class="name">(.*?)</div>', page)
    assert names[:3] == ["Mean of Dice and C", "Dice", "Harrell&#39;s C"]
    assert "Best reachable C" in names


def test_few_events_are_a_warning_and_no_survival_no_section(tmp_path: Path) -> None:
    predictions, truths = cohort(12)
    few = score_prognosis(SETTINGS, predictions, truths)
    text = write_report(run_with(tmp_path / "few", few)).read_text(encoding="utf-8")
    assert "an interval of a C-index over so few is wide" in text
    masks = score_prognosis(
        SETTINGS,
        [replace(one, scalars={"volume_ml": 1.0}) for one in predictions],
        [replace(one, outcome=None) for one in truths if one.arrays],
    )
    text = write_report(run_with(tmp_path / "masks", masks)).read_text(encoding="utf-8")
    assert "<h2>Survival</h2>" not in text
    assert "<h2>Beside simpler models</h2>" not in text


def test_an_evaluation_has_the_same_sections(tmp_path: Path) -> None:
    one = {
        "name": "answers",
        "scores": scored(),
        "confounders": (),
        "metrics": SETTINGS.metrics.model_dump(mode="json"),
        "folders": (),
        "cases": [],
        "synthetic": True,
    }
    file = write_evaluation_report(tmp_path, evaluated=[one], comparison=None)
    text = file.read_text(encoding="utf-8")
    assert all(f"<h2>{title}</h2>" in text for title in SECTIONS)
