"""check: the document, the table of series, what a person edits, and the real scans."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_builder import build_series
from faulty_task import FaultyTask, write_scans
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core import registry
from medtool.core.errors import ExitStatus, InputError, LabelsError, OutputExistsError
from medtool.data.series_table import read_overrulings, read_series_table
from medtool.verbs import task_data
from medtool.verbs.check import check
from medtool.verbs.check_text import check_summary
from medtool.verbs.preprocess import preprocess
from medtool.verbs.task_data import DataOptions

TASKS = {"tiny": TinyTask, "faulty": FaultyTask}


@pytest.fixture(autouse=True)
def _tiny_tasks_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of the tests come by name as well; the others through their entry points."""
    load = registry.load_task
    monkeypatch.setattr(task_data, "load_task", lambda name: TASKS.get(name) or load(name))


def _edit(table: Path, edits: dict[str, dict[str, str]]) -> None:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(edits.get(row["case"], {}))
    with table.open("w", newline="", encoding="utf-16") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def test_the_document_has_series_cases_and_labels(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path, patients=3)
    (tmp_path / "scans" / "P000" / "note.txt").write_text("x")
    result = check(DataOptions("tiny", tmp_path), workers=0)
    document = result.document
    json.dumps(document, allow_nan=False)
    assert result.status == 0
    assert [row["case"] for row in document["series"]] == ["P000_0", "P000_1", "P001_0", "P002_0"]
    assert {"uid", "verdict", "codes", "size", "spacing_mm", "findings"} <= set(
        document["series"][0]
    )
    assert document["skipped"][0]["code"] == "not-a-scan"
    assert document["labels"]["key"] == "case"
    assert document["labels"]["cases"] == {"0": 3, "1": 1}
    assert all(case["usable"] for case in document["cases"])


def test_pixels_are_looked_at_in_workers(tmp_path: Path) -> None:
    write_scans(tmp_path, "a", "b_killed", "c_refused", "d_hang", "e_error")
    bad = tmp_path / "scans" / "patient-f" / "f.npy"
    bad.parent.mkdir()
    np.save(bad, np.full((3, 16, 16), np.nan, np.float32))
    result = check(DataOptions("faulty", tmp_path), workers=2, case_timeout_s=2.0)
    codes = {
        case["case"]: [finding["code"] for finding in case["findings"]]
        for case in result.document["cases"]
    }
    assert codes == {
        "a": [], "b_killed": ["worker-died"], "c_refused": ["too-strange"],
        "d_hang": ["case-timeout"], "e_error": ["unforeseen"], "f": ["not-finite"],
    }  # fmt: skip
    assert result.status == 1
    assert [s["findings"][0]["code"] for s in result.document["series"] if s["case"] == "f"] == [
        "not-finite"
    ]


def test_a_person_overrules_and_the_record_says_so(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "data", patients=3)
    table = tmp_path / "series.csv"
    check(DataOptions("tiny", tmp_path / "data"), csv=table, workers=0)
    assert read_series_table(table) == {}
    _edit(table, {"P001_0": {"use": "No", "who": "Dr. A"}, "P002_0": {"use": "yes"}})
    (overruling,) = read_overrulings(table)
    assert (overruling.use, overruling.who, overruling.case) == (False, "Dr. A", "P001_0")
    again = tmp_path / "again.csv"
    result = check(DataOptions("tiny", tmp_path / "data", series=table), csv=again, workers=0)
    chosen = {row["case"]: row["chosen"] for row in result.document["series"]}
    assert chosen == {"P000_0": True, "P000_1": True, "P001_0": False, "P002_0": True}
    (entry,) = result.document["overruled"]
    assert (entry["who"], entry["use"], entry["file"]) == ("Dr. A", False, str(table))
    assert "P001_0" not in {case["case"] for case in result.document["cases"]}
    # The new table still knows that a person decided.
    assert read_series_table(again) == read_series_table(table)


def test_a_series_that_is_not_there_is_said(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "data", patients=2)
    table = tmp_path / "series.csv"
    table.write_text("key,chosen,use\n1.2.3,yes,no\n")
    result = check(DataOptions("tiny", tmp_path / "data", series=table), workers=0)
    assert "overruled-not-found" in {finding["code"] for finding in result.document["findings"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uid,use\n1,yes\n", "lacks a column"),
        ("key,chosen,use\n1,yes,perhaps\n", "neither yes nor no"),
        ("", "is empty"),
    ],
)
def test_tables_of_series_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "series.csv").write_text(text)
    with pytest.raises(LabelsError, match=words):
        read_series_table(tmp_path / "series.csv")


def test_an_existing_table_is_kept(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path, patients=2)
    table = tmp_path / "series.csv"
    table.write_text("mine")
    with pytest.raises(OutputExistsError):
        check(DataOptions("tiny", tmp_path), csv=table, workers=0)
    assert table.read_text() == "mine"
    check(DataOptions("tiny", tmp_path), csv=table, workers=0, force=True)
    assert table.read_text().startswith("key,uid,case")


@pytest.mark.parametrize("named", [True, False])
def test_labels_are_judged_where_no_study_can_be_used(tmp_path: Path, named: bool) -> None:
    """Once the table was not even opened, so that a slip in it came to light a night later."""
    (tmp_path / "scans" / "P000").mkdir(parents=True)
    (tmp_path / "scans" / "P000" / "P000_0.npy").write_bytes(b"no scan")
    labels = tmp_path / ("other.csv" if named else "labels.csv")
    options = DataOptions("brainmet", tmp_path, labels=labels if named else None)
    labels.write_text("case,label\nP000_0,1\nP001_0,0\n", encoding="utf-8")
    result = check(options, workers=0)
    assert result.status == ExitStatus.NO_INPUT
    assert result.document["labels"]["cases"] == {}
    assert result.document["labels"]["labels_without_case"] == ["P000_0", "P001_0"]
    labels.write_text("case,label\nP000_0,1\nP000_0,0\n", encoding="utf-8")
    with pytest.raises(LabelsError, match="P000_0|two labels|twice|contradict"):
        check(options, workers=0)


def test_labels_fit_studies_that_cannot_be_used(tmp_path: Path) -> None:
    build_series(tmp_path / "CTs" / "P7", (2, 16, 16), patient_id="P7", study_uid="1.2.7")
    (tmp_path / "labels.csv").write_text("patient,label\nP7,1\nP8,0\n", encoding="utf-8")
    result = check(DataOptions("brainmet", tmp_path), workers=0)
    assert result.status == ExitStatus.NO_INPUT
    labels = result.document["labels"]
    assert labels["labels_without_case"] == ["P8"]
    assert check_summary(result.document).endswith("none of them with a label.")


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data") as caught:
        check(DataOptions("tiny", tmp_path / "none"), workers=0)
    assert caught.value.exit_status == 3


def test_the_command(tmp_path: Path, medtool: Callable[..., Any]) -> None:
    write_tiny_cohort(tmp_path, patients=3)
    table = medtool("check", "tiny", tmp_path, "--workers", "0", "--csv", tmp_path / "s.csv")
    assert table.status == 0
    assert table.out.splitlines()[-1] == (
        "4 of 4 studies can be used, of 3 patients; 3 labelled 0, 1 labelled 1."
    )
    assert (tmp_path / "s.csv").exists()
    document = medtool("check", "tiny", tmp_path, "--workers", "0", "--json")
    assert set(json.loads(document.out)) >= {"series", "skipped", "cases", "labels"}
    empty = tmp_path / "empty"
    empty.mkdir()
    assert medtool("check", "tiny", empty).status == 3


EXPECTED_FOLDERS = (
    "head_ct/ge_tilt_uneven",
    "head_ct/philips_phantom_tilt/S1000",
    "head_ct/philips_phantom_tilt/S2010",
    "head_ct/philips_phantom_tilt/S4010",
    "torso_ct/ge_crlm1004",
    "torso_ct/siemens_j2k_no_uid",
    "torso_ct/ge_duplicate_gap",
    "petct/ge_sts001/pet_dicom",
    "petct/ge_sts003_gml/pet_dicom",
    "petct/siemens_qin0139/pet_dicom",
    "petct/ge_jpeg_singles",
)


@pytest.mark.real_data
def test_every_folder_of_the_expected_verdicts_is_tested(real_data: Path) -> None:
    expected = json.loads((real_data / "expected_verdicts.json").read_text())["series"]
    assert {line["folder"] for line in expected} == set(EXPECTED_FOLDERS)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", EXPECTED_FOLDERS)
def test_check_says_what_is_expected_of_real_series(
    real_data: Path, folder: str, medtool: Callable[..., Any]
) -> None:
    lines = json.loads((real_data / "expected_verdicts.json").read_text())["series"]
    outcome = medtool("check", "brainmet", real_data / folder, "--json", "--workers", "0")
    assert outcome.status in (0, 3)
    document = json.loads(outcome.out)
    for line in (line for line in lines if line["folder"] == folder):
        series = [
            row
            for row in document["series"]
            if row["files"] == line["files"] and row["verdict"] == line["verdict"]
        ]
        assert series, f"{line} is not among {document['series']}"
        said = [" ".join([*row["repairs"], *row["reasons"]]).lower() for row in series]
        assert any(all(word in text for word in line["words"]) for text in said)
        skipped = {Path(entry["file"]).name for entry in document["skipped"]}
        assert set(line.get("skipped", ())) <= skipped
        if row_modality := {row["modality"] for row in series} & {"PT", "MR"}:
            codes = {finding["code"] for row in series for finding in row["findings"]}
            assert "wrong-modality" in codes, row_modality
    assert len(document["series"]) == sum(line["folder"] == folder for line in lines)


@pytest.mark.real_data
def test_a_person_overrules_a_header_but_not_missing_slices(
    real_data: Path, tmp_path: Path
) -> None:
    # A real head, its header changed so that it calls itself a reformat; a real stack with a hole.
    for file in (real_data / "head_ct" / "ge_tilt_uneven").iterdir():
        scan = pydicom.dcmread(file)
        scan.ImageType = ["DERIVED", "PRIMARY", "AXIAL", "REFORMATTED"]
        scan.save_as(tmp_path / file.name)
    options = DataOptions("brainmet", tmp_path)
    table = tmp_path / "series.csv"
    assert check(options, csv=table, workers=0).status == ExitStatus.NO_INPUT
    (row,) = csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines())
    _edit(table, {row["case"]: {"use": "yes", "who": "Dr. A"}})
    found = check(replace(options, series=table), workers=0)
    assert found.status == ExitStatus.DONE
    (series,) = found.document["series"]
    assert (series["verdict"], series["chosen"]) == ("repaired", True)
    assert any("a person says so" in text for text in series["warnings"])
    assert found.document["overruled"][0]["who"] == "Dr. A"
    # Its preparation is that of the same scan under an honest header.
    ready = preprocess(replace(options, series=table), cache=tmp_path / "cache", workers=0)
    assert ready.status == ExitStatus.DONE

    gap = DataOptions("brainmet", real_data / "torso_ct" / "ge_duplicate_gap")
    table = tmp_path / "gap.csv"
    check(gap, csv=table, workers=0)
    (row,) = csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines())
    _edit(table, {row["case"]: {"use": "yes"}})
    (case,) = check(replace(gap, series=table), workers=0).document["cases"]
    (said,) = case["findings"]
    assert said["code"] == "too-few-slices;missing-slices;cannot-be-overruled"
    assert "step 32.50 mm" in said["message"]
    assert "It stays refused, though" in said["message"]
