"""Names from outside: in folders, headers and tables; none breaks a file, a table or a terminal."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest
from dicom_builder import build_series

from medtool.core.names import RESERVED_FILE_NAMES
from medtool.data.predictions import read_predictions

NAME = "Beeblebrox^Zaphod"
# PatientIDs: formulas, paths, reserved names, other scripts, control characters, long ones; two
# that become the same file name.
PATIENTS = (
    "=HYPERLINK(1)",
    "../../etc",
    "CON",
    "aux.1",
    "患者 七",
    "Ünal",
    "a/b",
    "a_b",
    "\x07bell\u202e",
    "0007",
    "L" * 64,
)
SAFE = re.compile(r"[A-Za-z0-9._-]{1,120}")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A pile of studies, one a patient, in folders with names of every kind."""
    folders = (
        "CON",
        "nul.txt",
        " leading",
        "ünï 頭",
        "x" * 200,
        "run.json",
        "=1+1",
        "-o",
        "p",
        "q",
    )
    if sys.platform == "win32":
        folders = ("ünï 頭", "x" * 100, "run.json", "=1+1", "-o", "p", "q", "r", "s", "t")
    for number, patient in enumerate(PATIENTS):
        build_series(
            tmp_path / "pile" / folders[number % len(folders)],
            (6, 8, 8),
            patient_id=patient,
            study_uid=f"1.2.3.{number}",
            series_uid=f"1.2.3.{number}.1",
            name=(f"{number}-" + "{:02d}").format,
            tags={
                "PatientName": NAME,
                "SpecificCharacterSet": "ISO_IR 192",
                "SeriesDescription": "head\x07\u202e",
            },
        )
    return tmp_path


def printable(text: str) -> bool:
    return all(line.isprintable() for line in text.splitlines())


def test_check_shows_them_and_writes_a_table_that_comes_back(hostile: Path, medtool) -> None:
    table = hostile / "series.csv"
    done = medtool("check", "brainmet", hostile / "pile", "--csv", table, "--workers", "0")
    assert printable(done.out)
    assert printable(done.err)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["case"] for row in rows}) == len(PATIENTS)
    assert all(SAFE.fullmatch(row["case"]) for row in rows)
    assert not {row["case"].lower().split(".")[0] for row in rows} & RESERVED_FILE_NAMES
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    again = medtool(
        "check", "brainmet", hostile / "pile", "--series", table, "--workers", "0", "--json"
    )
    document = json.loads(again.out)
    assert {row["patient"] for row in document["series"]} == set(PATIENTS)
    assert NAME not in done.out + done.err + again.out + table.read_text(encoding="utf-8")


def test_infer_writes_every_id_back_and_no_name(hostile: Path, medtool) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "refusals"))
    from setups import working_model

    working_model(hostile)
    words = ["infer", hostile / "pile", "-c", hostile / "model.safetensors", "-o", hostile / "out"]
    done = medtool(*words, "--allow-demo", "--workers", "0", "--overlays", folder=hostile)
    assert printable(done.err)
    assert {row["patient"] for row in read_predictions(hostile / "out")} == set(PATIENTS)
    written = [path for path in (hostile / "out").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert NAME.encode() not in path.read_bytes()
    assert NAME not in done.out + done.err


def test_an_edited_table_of_series_comes_back_from_excel(hostile: Path, medtool) -> None:
    table = hostile / "series.csv"
    medtool("check", "brainmet", hostile / "pile", "--csv", table, "--workers", "0")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["chosen"] = "TRUE" if row["chosen"] == "yes" else "FALSE"
        row["use"] = "FALSCH" if number == 0 else "WAHR"
    with (hostile / "edited.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    words = ["check", "brainmet", hostile / "pile", "--workers", "0", "--json"]
    done = medtool(*words, "--series", hostile / "edited.csv")
    document = json.loads(done.out)
    (said,) = document["overruled"]
    assert (said["key"], said["use"]) == (rows[0]["key"], False)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_circles_broken_links_and_empty_files(tmp_path: Path, medtool) -> None:
    build_series(tmp_path / "CTs" / "P1", patient_id="P1")
    (tmp_path / "CTs" / "P1" / "up").symlink_to(tmp_path / "CTs")
    (tmp_path / "CTs" / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "CTs" / "itself").symlink_to(tmp_path / "CTs" / "itself")
    (tmp_path / "CTs" / "empty.dcm").write_bytes(b"")
    os.mkfifo(tmp_path / "CTs" / "pipe")
    document = json.loads(medtool("check", "brainmet", tmp_path, "--workers", "0", "--json").out)
    assert len(document["series"]) == 1
    codes = {Path(entry["file"]).name: entry["code"] for entry in document["skipped"]}
    assert codes == {
        "broken": "unreadable",
        "itself": "unreadable",
        "pipe": "unreadable",
        "empty.dcm": "empty-file",
    }
