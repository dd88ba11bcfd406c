"""The folder of one training run: what lies where, and reading it without torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool.core.checkpoint import CHECKPOINTS_FOLDER, PRESET_FILE, plain_json
from medtool.core.errors import InputError
from medtool.core.files import cannot_write, replace_text
from medtool.data.fold_files import FOLDS_FILE
from medtool.data.predictions import read_table, table_text, write_table

CASE_COLUMNS = (
    "case",
    "patient",
    "study_uid",
    "accession",
    "study_date",
    "folder",
    "part",
    "label",
)
CHECKPOINT_COLUMNS = (
    "file",
    "kind",
    "epoch",
    "metric",
    "value",
    "low",
    "high",
    "threshold",
    "sha256",
)
HISTORY_COLUMNS = ("epoch", "stage", "seconds", "data_wait_share", "loss")


@dataclass
class SecondNames:
    """Where tables are while another program holds their own names open (Excel on Windows)."""

    names: dict[Path, Path] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)

    def of(self, path: Path) -> Path:
        """The file that holds the newest rows of the table ``path``."""
        second = self.names.get(path, path)
        # A person may have taken the second one away.
        return second if second.is_file() else path

    def write(self, path: Path, text: str) -> None:
        """Write ``path``, or the second name that it got before, or else a new one."""
        before = self.names.pop(path, None)
        written = write_table(path, text, second=before)
        if written != path:
            self.names[path] = written
        if before is not None and before != written:
            # Older rows beside newer ones would only mislead.
            with suppress(OSError):
                before.unlink()
        if written not in (path, before):
            self.unsaid.append(
                f"{path} is open elsewhere; while it is, its rows are in {written.name}."
            )

    def settle(self) -> None:
        """Give tables their own names again where nobody holds these any more."""
        for path, second in list(self.names.items()):
            if second.is_file():
                self.write(path, second.read_bytes().decode())


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; makes no folder by itself.

    ``second_names`` is of this process: whoever writes and reads the same tables shares it.
    """

    path: Path
    second_names: SecondNames = field(default_factory=SecondNames, compare=False, repr=False)

    @property
    def preset_file(self) -> Path:
        """The resolved preset."""
        return self.path / PRESET_FILE

    @property
    def cases_file(self) -> Path:
        """One row a case: part, label, facts."""
        return self.path / "cases.csv"

    @property
    def folds_file(self) -> Path:
        """The parts as nnU-Net keeps them: of a run its one fold, above folds all of them."""
        return self.path / FOLDS_FILE

    @property
    def history_file(self) -> Path:
        """One row an epoch."""
        return self.path / "history.csv"

    @property
    def checkpoints_folder(self) -> Path:
        """The checkpoints."""
        return self.path / CHECKPOINTS_FOLDER

    @property
    def checkpoints_file(self) -> Path:
        """One row a checkpoint that is kept."""
        return self.path / "checkpoints.csv"

    @property
    def predictions_folder(self) -> Path:
        """One folder a part (selection, test), each as ``infer`` writes it."""
        return self.path / "predictions"

    @property
    def baselines_folder(self) -> Path:
        """The runs that it is compared with, each a folder of a run."""
        return self.path / "baselines"

    @property
    def scores_file(self) -> Path:
        """Scores by part."""
        return self.path / "scores.json"

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def run_file(self) -> Path:
        """Command, versions, machine, seconds by step, and what was decided."""
        return self.path / "run.json"

    @property
    def log_file(self) -> Path:
        """What was said while it ran."""
        return self.path / "log.txt"

    @property
    def events_folder(self) -> Path:
        """TensorBoard's events."""
        return self.path / "events"

    @property
    def intake_file(self) -> Path:
        """The document of ``check --json`` for the run's data."""
        return self.path / "intake.json"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.run_file.is_file()

    def read_cases(self) -> list[dict[str, str]]:
        """Rows of cases.csv."""
        return self._rows(self.cases_file)

    def read_history(self) -> list[dict[str, Any]]:
        """Rows of history.csv; numbers as numbers, empty cells as None."""
        return [_numbers(row) for row in self._rows(self.history_file)]

    def read_checkpoints(self) -> list[dict[str, Any]]:
        """Rows of checkpoints.csv; numbers as numbers, empty cells as None."""
        rows = self._rows(self.checkpoints_file)
        return [_numbers(row, text=("file", "kind", "metric", "sha256")) for row in rows]

    def _rows(self, path: Path) -> list[dict[str, str]]:
        return read_rows(self.second_names.of(path))

    def read_scores(self) -> dict[str, Any]:
        """scores.json: {"test": document, "selection": document}."""
        return read_json(self.scores_file)

    def read_run(self) -> dict[str, Any]:
        """run.json."""
        return read_json(self.run_file)

    def write_run(self, document: Mapping[str, Any]) -> None:
        """Write run.json anew."""
        write_json(self.run_file, document)

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write history.csv anew; columns are those of all rows, the common ones first."""
        self.write_table(self.history_file, rows, HISTORY_COLUMNS)

    def write_checkpoints(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write checkpoints.csv anew."""
        self.write_table(self.checkpoints_file, rows, CHECKPOINT_COLUMNS)

    def write_cases(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write cases.csv anew; columns are those of all rows, the common ones first."""
        self.write_table(self.cases_file, rows, CASE_COLUMNS)

    def write_table(
        self, path: Path, rows: Sequence[Mapping[str, Any]], first_columns: Iterable[str] = ()
    ) -> None:
        """Write a table of the run, under a second name while another program holds it open."""
        self.second_names.write(path, _rows_text(rows, first_columns))

    def tell_second_names(self, warn: Callable[[str], None]) -> None:
        """Say where tables went that are open elsewhere, each once; into the log, too."""
        while self.second_names.unsaid:
            line = self.second_names.unsaid.pop(0)
            warn(line)
            self.log(line)

    def log(self, text: str) -> None:
        """Append one line to log.txt. Raises MachineError where it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("a", encoding="utf-8", newline="\n") as file:
                file.write(text.rstrip("\n") + "\n")
        except OSError as error:
            raise cannot_write(self.log_file, error) from error


def fold_name(fold: int) -> str:
    """The folder of a fold, in that of its run."""
    return f"fold_{fold}"


def fold_folders(path: Path) -> list[RunFolder]:
    """The folds of a run, by number; [] where it has none."""
    folders = [c for c in path.glob("fold_*") if c.is_dir() and c.name[5:].isdecimal()]
    return [RunFolder(folder) for folder in sorted(folders, key=lambda c: int(c.name[5:]))]


def find_runs(root: Path) -> list[RunFolder]:
    """Every run below ``root`` (itself, or up to three folders down), sorted by path."""
    depths = ("run.json", "*/run.json", "*/*/run.json", "*/*/*/run.json")
    return [
        RunFolder(file.parent)
        for file in sorted({f for depth in depths for f in root.glob(depth)})
        if (file.parent / "preset.toml").is_file()
    ]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file of ours. Raises InputError where it is missing or damaged."""
    try:
        return read_table(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], first_columns: Iterable[str] = ()
) -> None:
    """Write ``rows`` whole or not at all; None and NaN are empty cells, formulas are escaped.

    Raises MachineError where another program holds the file open.
    """
    replace_text(path, _rows_text(rows, first_columns))


def _rows_text(rows: Sequence[Mapping[str, Any]], first_columns: Iterable[str]) -> str:
    columns = dict.fromkeys([*first_columns, *(key for row in rows for key in row)])
    return table_text(rows, list(columns))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON table of ours. Raises InputError where it is missing or damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(document, dict):
        raise _unreadable(path, ValueError("no table"))
    return document


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write ``document`` whole or not at all, indented; what is not finite becomes null."""
    replace_text(path, json.dumps(json.loads(plain_json(document)), indent=2) + "\n")


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError("A file of the run cannot be read.", where=str(path), met=str(error))


def _numbers(row: Mapping[str, str], text: Sequence[str] = ()) -> dict[str, Any]:
    return {key: value if key in text else _number(value) for key, value in row.items()}


def _number(text: str) -> object:
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
