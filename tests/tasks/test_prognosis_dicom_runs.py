"""Training on DICOM studies: masks in SEG objects, outcomes in a table, each may be missing."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pet_ct_studies import hot_mask, write_study, write_table

from medtool.dicom import scan
from medtool.dicom.segmentation import Maker, Segment, write_segmentation

PATIENTS = 12
WITHOUT_MASK, WITHOUT_OUTCOME, WITHOUT_WEIGHT = 3, 5, 7
SMALL = (
    "data.preparation.size_px=[32, 32]",
    "model.first_features=4",
    "model.levels=3",
    "model.head_features=[8]",
    'model.covariates=["age", "sex"]',
    "train.epochs=1",
    "infer.passes=2",
    "metrics.bootstrap_draws=100",
    "report.worst_cases=1",
)


def write_cohort(folder: Path) -> None:
    rows: list[tuple[object, ...]] = []
    for number in range(PATIENTS):
        name = f"P{number:02d}"
        changes = {"PatientWeight": None} if number == WITHOUT_WEIGHT else {}
        write_study(folder / name, name, seed=number, changes=changes)
        if number != WITHOUT_MASK:
            (pet,) = (one for one in scan([folder / name]).series if one.modality == "PT")
            write_segmentation(
                hot_mask(),
                pet,
                [Segment("GTV", (1,))],
                folder / name / "seg.dcm",
                maker=Maker("test", "1", "1"),
            )
        outcome = ("", "") if number == WITHOUT_OUTCOME else (12 + number, number % 2)
        rows.append((name, *outcome, 50 + number, "fm"[number % 2]))
    write_table(folder / "outcomes.csv", "patient,time_months,event,Age,Sex", rows)


def test_dicom_studies_are_learned_from_and_scored(
    medtool: Callable[..., Any], tmp_path: Path
) -> None:
    write_cohort(tmp_path / "data")
    settings = [word for value in SMALL for word in ("--set", value)]
    outcome = medtool(
        "train", "petct", "--data", "data", "--preset", "demo", "--run", "first",
        "--workers", "0", *settings,
        folder=tmp_path,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    run = tmp_path / "runs" / "petct" / "first"
    with (run / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert len(rows) == PATIENTS - 1 and f"P{WITHOUT_WEIGHT:02d}" not in rows
    assert rows["P02"]["event"] == "0" and float(rows["P02"]["time_days"]) == 14 * 30.4375
    assert rows[f"P{WITHOUT_OUTCOME:02d}"]["time_days"] == ""
    assert rows["P00"]["part"] and float(rows["P00"]["weight_kg"]) == 70.0
    # A run that goes on has to meet the outcomes that it began with.
    table = tmp_path / "data" / "outcomes.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("P02,14,0", "P02,14,1"), encoding="utf-8")
    again = medtool(
        "train", "petct", "--data", "data", "--resume", "runs/petct/first", folder=tmp_path
    )
    assert again.status == 2 and "changed since this run began" in again.err
    table.write_text(text, encoding="utf-8")
    scored = medtool("evaluate", run, "-o", "scores", folder=tmp_path)
    assert scored.status == 0, scored.err
    assert "A higher risk is worse" in scored.out + scored.err
