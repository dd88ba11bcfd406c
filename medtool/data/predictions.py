"""The table of predictions: its leading columns, and cells that spreadsheets cannot misread.

A cell of text that begins with a character that Excel takes for a formula is written with an
apostrophe in front; text that begins with an apostrophe gets another one, so that reading undoes
it exactly. Numbers are never escaped.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medtool.core.errors import MachineError, UsageError
from medtool.core.files import cannot_write, nearest_path, replace_text
from medtool.core.names import nearest_name

LEADING_COLUMNS = ("case", "patient", "study_uid", "status", "code", "message")
PREDICTIONS_FILE = "predictions.csv"
ELEMENTS_FILE = "slices.csv"

# What spreadsheets take for the start of a formula (OWASP's list on CSV injection), and our mark.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
ESCAPE = "'"


def escape_cell(value: object) -> str:
    """``value`` as the text of a CSV cell; None and NaN become an empty cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = str(value)
    return ESCAPE + text if text.startswith((*FORMULA_STARTS, ESCAPE)) else text


def unescape_cell(text: str) -> str:
    """The text that ``escape_cell`` was given."""
    return text[len(ESCAPE) :] if text.startswith(ESCAPE) else text


def _plain(value: object) -> object:
    # numpy's numbers know how to become Python's; the csv layer needs nothing else of numpy.
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def table_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV text with a header line; a column that a row lacks is an empty cell."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([escape_cell(_plain(row.get(column))) for column in columns])
    return buffer.getvalue()


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV that medtool wrote, cells as text, escapes undone."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [
            {key: unescape_cell(cell or "") for key, cell in row.items() if key is not None}
            for row in csv.DictReader(file)
        ]


def read_predictions(path: Path) -> list[dict[str, str]]:
    """Rows of a predictions.csv, given the file or its folder.

    Raises UsageError when the file is missing or lacks a leading column.
    """
    file = path / PREDICTIONS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            "There are no predictions here.",
            where=str(path),
            wanted=f"a folder with {PREDICTIONS_FILE}, or that file",
            nearest="" if path.exists() else nearest_path(path),
            how="'medtool infer' writes one.",
        )
    with file.open(encoding="utf-8-sig", newline="") as opened:
        header = next(csv.reader(opened), [])
    missing = [column for column in LEADING_COLUMNS if column not in header]
    if missing:
        raise UsageError(
            "This table is not one of predictions.",
            where=str(file),
            met="columns " + ", ".join(header),
            wanted="columns " + ", ".join(LEADING_COLUMNS),
            nearest=nearest_name(missing[0], header),
        )
    return read_table(file)


def write_table(path: Path, text: str, *, second: Path | None = None) -> Path:
    """Write a table whole or not at all; gives the name under which it now is.

    A table that another program holds open (Excel on Windows) cannot be replaced: then the text
    goes to ``second``, the name that an earlier writing gave, or else to one that nothing has yet.
    Raises MachineError when nothing can be written.
    """
    for name in (path, second):
        if name is None:
            continue
        try:
            replace_text(name, text)
            return name
        except MachineError as error:
            if not (isinstance(error.__cause__, PermissionError) and name.exists()):
                raise
    free = _second_name(path)
    replace_text(free, text)
    return free


def _second_name(path: Path) -> Path:
    number = 2
    while (second := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return second


def typed_rows(
    rows: Sequence[Mapping[str, str]], columns: Mapping[str, tuple[str, str, str]]
) -> list[dict[str, Any]]:
    """Rows as read, with the numbers of a task's ``columns`` as numbers and empty ones as None."""
    kinds = {"float": float, "int": int}

    def typed(name: str, cell: str) -> object:
        kind = kinds.get(columns[name][0]) if name in columns else None
        return cell if kind is None else kind(cell) if cell else None

    return [{name: typed(name, cell) for name, cell in row.items()} for row in rows]


class Journal:
    """What is done so far, one JSON document a line, safe against a kill at any moment.

    ``entries`` are those of an earlier run that was cut off; half a last line is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if path.is_file():
            self._recover()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def _recover(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self.entries.append(json.loads(line))
                except ValueError:  # a power cut may leave a line of zeros
                    break
                whole += len(line)
        with self.path.open("rb+") as file:
            file.truncate(whole)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append one entry and see it on the disk. Raises MachineError when it is full."""
        try:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete: the run is whole."""
        self.close()
        self.path.unlink(missing_ok=True)
