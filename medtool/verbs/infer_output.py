"""The predictions folder: rows as they come, whole tables at the end, a record of how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool.core.errors import OutputExistsError, UsageError
from medtool.core.files import file_sha256, require_writable, sweep_temporary
from medtool.data.locks import alone
from medtool.data.predictions import (
    ELEMENTS_FILE,
    LEADING_COLUMNS,
    PREDICTIONS_FILE,
    Journal,
    read_predictions,
    table_text,
    write_table,
)

PARTIAL_FOLDER = ".partial"
RUN_FILE = "run.json"
PICTURE_FOLDERS = ("masks", "probabilities", "dicom-seg", "overlays")


@dataclass(frozen=True)
class OutputPlace:
    """Where the table and everything beside it go."""

    table: Path
    folder: Path

    @classmethod
    def of(cls, output: Path) -> OutputPlace:
        """``X.csv`` puts the table there and the rest into ``X/``; else all goes into a folder."""
        if output.suffix.lower() == ".csv":
            return cls(table=output, folder=output.with_suffix(""))
        return cls(table=output / PREDICTIONS_FILE, folder=output)

    @property
    def journal(self) -> Path:
        """The journal of a run that is not whole yet."""
        return self.folder / PARTIAL_FOLDER / "journal.jsonl"


def guard(place: OutputPlace, *, force: bool, resume: bool) -> None:
    """Refuse before any work what would overwrite, unless forced to.

    Raises OutputExistsError; UsageError and MachineError for a place that cannot be written.
    """
    require_writable(place.table)
    require_writable(place.journal)
    cut_off = place.journal.exists()
    if cut_off:
        with alone(place.folder):
            pass
    if force:
        return
    if cut_off and not resume:
        raise OutputExistsError(
            "A run that was cut off left its work here.",
            where=str(place.folder),
            how="--continue finishes it, --force starts anew; or name another output with -o.",
        )
    if place.table.exists() and not cut_off:
        raise OutputExistsError(
            "There is an output already.",
            where=str(place.table),
            how="--force replaces it; or name another output with -o.",
        )


def whole_rows(place: OutputPlace, checkpoint: Path) -> list[dict[str, str]] | None:
    """The rows of a run with ``checkpoint`` that is whole; None where there is none.

    Raises UsageError when the output here is whole but of another model.
    """
    record = place.folder / RUN_FILE
    if place.journal.exists() or not (place.table.exists() and record.is_file()):
        return None
    before = json.loads(record.read_text("utf-8")).get("checkpoint", {}).get("sha256")
    if before != file_sha256(checkpoint):
        raise UsageError(
            "The run that is whole here was another one.",
            where=str(place.folder),
            met="answers of another checkpoint",
            how="--force replaces them; or name another output with -o.",
        )
    return read_predictions(place.table)


def clear(place: OutputPlace) -> None:
    """Remove an earlier run's output, once everything that may refuse this one was met."""
    # Only what a run writes: the folder may hold other files of the user's.
    place.table.unlink(missing_ok=True)
    for name in (ELEMENTS_FILE, RUN_FILE):
        (place.folder / name).unlink(missing_ok=True)
    for name in (PARTIAL_FOLDER, *PICTURE_FOLDERS):
        shutil.rmtree(place.folder / name, ignore_errors=True)


class Output:
    """Collects the rows of a run; survives a kill; gives the same files as an unbroken run."""

    def __init__(self, place: OutputPlace, identity: Mapping[str, Any]) -> None:
        self.place = place
        self._journal = Journal(place.journal)
        self.done: dict[str, dict[str, Any]] = {}
        self._take_up(dict(identity))
        sweep_temporary(place.folder)

    def _take_up(self, identity: dict[str, Any]) -> None:
        entries = self._journal.entries
        if not entries:
            self._journal.add({"identity": identity})
            return
        if entries[0].get("identity") != identity:
            self._journal.close()
            before = entries[0].get("identity", {})
            changed = [key for key in identity if before.get(key) != identity[key]]
            raise UsageError(
                "The run that was cut off here was another one.",
                where=str(self.place.folder),
                met="other " + ", ".join(changed),
                wanted="the same checkpoint and options",
                how="repeat the command as it was with --continue, or start anew with --force.",
            )
        self.done = {entry["case"]: entry for entry in entries[1:]}

    def add(self, entry: Mapping[str, Any]) -> None:
        """One case is done: ``case``, ``row``, ``elements`` and what run.json keeps of it."""
        self._journal.add(entry)
        self.done[entry["case"]] = dict(entry)

    def entries(self, order: Sequence[str]) -> list[dict[str, Any]]:
        """What is done, in the order of the cohort, whichever finished first."""
        return [self.done[case] for case in order if case in self.done]

    def write_tables(
        self,
        rows: Sequence[Mapping[str, Any]],
        elements: Sequence[Mapping[str, Any]],
        columns: Sequence[str],
    ) -> Path:
        """predictions.csv and slices.csv; gives where the first of them is."""
        if elements:
            keys = list(dict.fromkeys(key for element in elements for key in element))
            write_table(self.place.folder / ELEMENTS_FILE, table_text(elements, keys))
        return write_table(self.place.table, table_text(rows, [*LEADING_COLUMNS, *columns]))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write run.json and remove the journal: the run is whole."""
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        write_table(self.place.folder / RUN_FILE, text)
        self._journal.remove()
        shutil.rmtree(self.place.folder / PARTIAL_FOLDER, ignore_errors=True)

    def close(self) -> None:
        """Close the journal; that of a run that is not whole stays for --continue."""
        self._journal.close()
