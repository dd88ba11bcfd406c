"""Tables that spreadsheets cannot misread, and journals that survive a kill."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from held_open import held_open
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.errors import UsageError
from medtool.data.predictions import (
    Journal,
    escape_cell,
    read_predictions,
    read_table,
    table_text,
    unescape_cell,
    write_table,
)


@given(st.text())
def test_escape_is_undone_exactly_and_never_starts_a_formula(text: str) -> None:
    cell = escape_cell(text)
    assert unescape_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-3, "-3"),
        (-0.5, "-0.5"),
        (0.1, "0.1"),
        (None, ""),
        (float("nan"), ""),
        (True, "1"),
        ("007", "007"),
        ("=1+1", "'=1+1"),
        ("'quoted", "''quoted"),
    ],
)
def test_cells(value: object, cell: str) -> None:
    assert escape_cell(value) == cell


def test_table_round_trip_with_numpy_numbers_commas_and_line_breaks(tmp_path) -> None:
    rows = [
        {"case": "a,b", "value": np.float32(0.5), "message": 'two\nlines "quoted"'},
        {"case": "-1", "value": np.int64(-7)},
    ]
    path = write_table(tmp_path / "t.csv", table_text(rows, ["case", "value", "message"]))
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[2] == ["'-1", "-7", ""]
    assert read_table(path) == [
        {"case": "a,b", "value": "0.5", "message": 'two\nlines "quoted"'},
        {"case": "-1", "value": "-7", "message": ""},
    ]


def test_another_table_is_refused_with_the_nearest_column(tmp_path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("cases,patient\n1,2\n")
    with pytest.raises(UsageError) as refusal:
        read_predictions(file)
    assert refusal.value.nearest == "cases"
    with pytest.raises(UsageError):
        read_predictions(tmp_path / "nothing")


def test_a_table_that_is_open_elsewhere_gets_a_second_name(tmp_path, monkeypatch) -> None:
    target = tmp_path / "t.csv"
    target.write_text("old")
    rename = Path.replace

    def locked(self, other):
        if Path(other) == target:
            raise PermissionError(13, "used by another process")
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", locked)
    written = write_table(target, "new")
    assert written.name == "t-2.csv"
    assert written.read_text() == "new"
    assert target.read_text() == "old"


def test_a_second_name_is_taken_again_and_the_first_is_tried_each_time(
    tmp_path, monkeypatch
) -> None:
    held = held_open(monkeypatch)
    target = tmp_path / "t.csv"
    target.write_text("old")
    (tmp_path / "t-2.csv").write_text("somebody else's")
    held.add(target)
    second = write_table(target, "1")
    assert second.name == "t-3.csv"
    assert write_table(target, "2", second=second) == second
    assert second.read_text() == "2"
    held.add(second)
    assert write_table(target, "3", second=second).name == "t-4.csv"
    held.remove(target)
    assert write_table(target, "4", second=second) == target
    assert (target.read_text(), second.read_text()) == ("4", "2")
    assert (tmp_path / "t-2.csv").read_text() == "somebody else's"


def test_journal_drops_half_a_line_and_goes_on(tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.add({"case": "ä"})
    first.add({"case": "b"})
    first.close()
    with path.open("ab") as file:
        file.write(b'{"case": "c')
    second = Journal(path)
    assert [entry["case"] for entry in second.entries] == ["ä", "b"]
    second.add({"case": "d"})
    second.close()
    assert [json.loads(line)["case"] for line in path.read_text("utf-8").splitlines()] == [
        "ä",
        "b",
        "d",
    ]
    third = Journal(path)
    third.remove()
    assert not path.exists()
