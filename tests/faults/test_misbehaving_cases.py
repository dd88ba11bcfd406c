"""A case that hangs, one whose worker is killed, one that raises: rows, never the end."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from faulty_place import Place, write_slow_scans

SECRET = "Zaphod^Beeblebrox"


@pytest.fixture(scope="module")
def scans(place: Place) -> Path:
    folder = place.folder / "misbehaving"
    write_slow_scans(folder, "good", "x_hang", "x_killed", "x_error", "x_refused")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="the worker kills itself with a signal")
def test_each_is_a_row_of_infer(place: Place, scans: Path, medtool) -> None:
    out = place.folder / "rows"
    words = ["infer", scans, "-c", place.run, "-o", out, "--device", "cpu", "--workers", "2"]
    # Importing what a worker needs does not count: the time runs from the case's own start.
    done = medtool(*words, "--case-timeout", "3")
    assert done.status == 1
    assert "1 answered, 1 refused, 3 failed" in done.err
    with (out / "predictions.csv").open(newline="") as file:
        rows = {row["case"]: (row["status"], row["code"]) for row in csv.DictReader(file)}
    assert rows == {
        "good": ("ok", ""),
        "x_hang": ("failed", "case-timeout"),
        "x_killed": ("failed", "worker-died"),
        "x_error": ("failed", "unforeseen"),
        "x_refused": ("refused", "too-strange"),
    }
    for case, (status, code) in rows.items():
        assert (f"{case}: {status}, {code}" in done.err) == (status != "ok")
    assert list(out.rglob(".*")) == []


def test_what_a_library_says_of_a_case_stays_off_the_screen(
    tmp_path: Path, place: Place, medtool, monkeypatch
) -> None:
    from faulty_task import FaultyTask

    def quoting(self: object, case: object) -> None:
        raise ValueError(f"invalid value for PatientName: {SECRET}")

    monkeypatch.setattr(FaultyTask, "prepare", quoting)
    write_slow_scans(tmp_path / "scans", "one")
    words = ["preprocess", "faulty", "--data", tmp_path, "--cache", tmp_path / "cache"]
    done = medtool(*words, "--workers", "0")
    assert done.status == 3
    assert "one: failed, unforeseen: ValueError in quoting (test_misbehaving_cases.py:" in done.err
    assert SECRET not in done.err + done.out
    out = tmp_path / "out"
    words = ["infer", tmp_path / "scans", "-c", place.run, "-o", out, "--device", "cpu"]
    done = medtool(*words, "--workers", "0")
    assert SECRET not in done.err + done.out
    assert SECRET not in (out / "predictions.csv").read_text()
    assert SECRET not in json.dumps((out / "run.json").read_text())
