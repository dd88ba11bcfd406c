"""The predictions folder: rows as they come, whole tables at the end, a record of how."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from medtool.core.deployed import find_deployed, same_model
from medtool.core.errors import OutputExistsError, UsageError
from medtool.core.files import cannot_write, file_sha256, require_writable, sweep_temporary
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
from medtool.data.privacy import Pseudonymiser, read_key
from medtool.data.series_table import read_series_table
from medtool.verbs.infer_model import answering_hashes

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.verbs.infer import InferOptions

PARTIAL_FOLDER = ".partial"
RUN_FILE = "run.json"
PICTURE_FOLDERS = ("masks", "probabilities", "dicom-seg", "overlays", "uncertainty")
# One word for each arithmetic, of those that options and records use.
ARITHMETIC = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
# Of what is asked, what pseudonyms hide with their key.
KEYED = ("changed", "sources")
# Words of an option that leave the choice open.
OPEN = ("", "auto")


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


@dataclass(frozen=True)
class WholeRun:
    """What a run that is whole has written, and how many studies were ok, refused, failed."""

    rows: list[dict[str, str]]
    studies: Mapping[str, int]


def whole_run(place: OutputPlace, options: InferOptions, task: Task) -> WholeRun | None:
    """The run that is whole here; None where there is none.

    Raises UsageError when it is of another model or was asked for other answers, LabelsError for a
    table of series that cannot be read.
    """
    file = place.folder / RUN_FILE
    if place.journal.exists() or not (place.table.exists() and file.is_file()):
        return None
    record = json.loads(file.read_text("utf-8"))
    # With an engine that is left open the answers may be those of any that takes the same model.
    engine = str(record.get("engine", "")) if options.engine in OPEN else options.engine
    if not same_model(record.get("checkpoint", {}), answering_hashes(options.checkpoint, engine)):
        _refuse_another(place, "answers of another checkpoint")
    # Records of earlier versions do not say what was asked.
    before = record.get("identity", {})
    now = _asked_again(place, options, task)
    changed = [name for name in now if name in before and _word(before[name]) != _word(now[name])]
    if changed:
        _refuse_another(place, "other " + ", ".join(_truly(changed)))
    rows = read_predictions(place.table)
    return WholeRun(rows, record.get("studies") or count_studies(rows))


def _refuse_another(place: OutputPlace, met: str) -> NoReturn:
    raise UsageError(
        "The run that is whole here was another one.",
        where=str(place.folder),
        met=met,
        how="--force replaces it; or name another output with -o.",
    )


def _asked_again(place: OutputPlace, options: InferOptions, task: Task) -> dict[str, Any]:
    """What is asked now, as far as that is known before the model is loaded."""
    if options.series is not None:
        read_series_table(options.series)
    names, file = None, options.pseudonymise
    if file is not None:
        # A key that is still to be made is no earlier run's; that is no moment to make it.
        names = Pseudonymiser(read_key(file, output=place.folder)[0] if file.is_file() else b"")
    computing = {
        # An optimised model hands the device on to its engine.
        "device": "" if find_deployed(options.checkpoint) else options.run.device.partition(":")[0],
        "precision": options.run.precision or "",
        "engine": options.engine,
    }
    return {
        **what_is_asked(options, names),
        "by": options.by or task.settings.infer.by,
        **{name: word for name, word in computing.items() if word not in OPEN},
    }


def _truly(changed: Sequence[str]) -> list[str]:
    """``changed`` without what only looks so because its hashes are made with another key."""
    keyed = KEYED if "pseudonyms" in changed else ()
    return [name for name in changed if name not in keyed]


def _word(value: object) -> object:
    return ARITHMETIC.get(value, value) if isinstance(value, str) else value


def what_is_asked(options: InferOptions, names: Pseudonymiser | None) -> dict[str, Any]:
    """What of the options must be the same when a run goes on; beside pseudonyms, no path."""
    return {
        "pseudonyms": names.name("key", "check") if names else "",
        "overlays": options.overlays,
        "dicom_seg": options.dicom_seg,
        "changed": [names.name("changed", one) if names else one for one in options.assignments],
        "series": file_sha256(options.series) if options.series else "",
        "sources": _sources_word(options.sources, names),
    }


def _sources_word(sources: Sequence[Path], names: Pseudonymiser | None) -> str:
    """One hash of where the sources lie, in any order: a path may name a patient."""
    if not sources:
        return ""
    # File names need not be valid text.
    places = b"\0".join(sorted({os.fsencode(source.resolve()) for source in sources}))
    word = hashlib.sha256(places).hexdigest()
    return names.name("sources", word) if names else word


def count_studies(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many of the studies, one a row, are ok, refused, failed."""
    counted = Counter(str(row["status"]) for row in rows)
    return {status: counted[status] for status in ("ok", "refused", "failed")}


def clear(place: OutputPlace) -> None:
    """Remove an earlier run's output, once everything that may refuse this one was met.

    Nothing is removed where no run of ours is. Raises MachineError for what cannot be removed: it
    may name patients that the new run does not.
    """
    marks = (place.table, place.folder / RUN_FILE, place.folder / PARTIAL_FOLDER)
    if not any(mark.exists() for mark in marks):
        return
    try:
        _remove_run(place)
    except OSError as error:
        raise cannot_write(place.folder, error) from error


def _remove_run(place: OutputPlace) -> None:
    # Only what a run writes: the folder may hold other files of the user's.
    listed, second = list(_listed_files(place)), _second_files(place)
    # First what would pass for a run that is whole or can go on, last what marks a run of ours:
    # when this is cut off, --force finishes it.
    place.table.unlink(missing_ok=True)
    place.journal.unlink(missing_ok=True)
    for name in PICTURE_FOLDERS:
        _remove_folder(place.folder / name)
    for path in listed:
        path.unlink(missing_ok=True)
        _remove_empty(path.parent, place.folder.resolve())
    for path in (*second, place.folder / ELEMENTS_FILE):
        path.unlink(missing_ok=True)
    _remove_folder(place.folder / PARTIAL_FOLDER)
    (place.folder / RUN_FILE).unlink(missing_ok=True)


def _remove_folder(folder: Path) -> None:
    # What a link of the user's leads to lies elsewhere.
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and folder.is_relative_to(top):
        # One of the known folders has gone as a whole before.
        if folder.is_dir():
            if any(folder.iterdir()):
                return
            folder.rmdir()
        folder = folder.parent


def _listed_files(place: OutputPlace) -> Iterator[Path]:
    """What earlier runs say that they wrote, as far as it is there and inside the folder."""
    folder = place.folder.resolve()
    for entry in _listed_entries(place):
        hashes = entry.get("outputs_sha256") if isinstance(entry, dict) else None
        for name in hashes if isinstance(hashes, dict) else ():
            path = folder / name
            # Whoever sent the folder may have written its run.json: no name may climb out.
            if path.is_file() and path.parent.resolve().is_relative_to(folder):
                yield path.parent.resolve() / path.name


def _listed_entries(place: OutputPlace) -> Iterator[object]:
    records = place.folder / RUN_FILE
    for file in (records, *_second_names(records)):
        if file.is_file():
            cases = _document(file.read_bytes()).get("cases")
            yield from cases if isinstance(cases, list) else ()
    if place.journal.is_file():
        yield from map(_document, place.journal.read_bytes().splitlines())


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:  # it was damaged, or cut off in the middle of a line
        return {}
    return document if isinstance(document, dict) else {}


def _second_files(place: OutputPlace) -> list[Path]:
    """What was written under a second name because another program held the first."""
    tables = [
        file
        for file in _second_names(place.table)
        # A table with a folder beside it is a run of its own.
        if not file.with_suffix("").exists() and _is_of_predictions(file)
    ]
    others = (ELEMENTS_FILE, RUN_FILE)
    return [*tables, *(file for name in others for file in _second_names(place.folder / name))]


def _second_names(path: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(path.stem)}-\d+{re.escape(path.suffix)}")
    found = path.parent.glob(f"*{path.suffix}")
    return [file for file in found if pattern.fullmatch(file.name) and file.is_file()]


def _is_of_predictions(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.readline().startswith(",".join(LEADING_COLUMNS).encode())


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
                met="other " + ", ".join(_truly(changed)),
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
