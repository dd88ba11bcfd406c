"""Prepared cases on disk: ``<root>/<task>/<key>/<case>-<identity>.b2``.

The key is a hash of the task's name, its preparation version and what its ``preparation_key`` says:
the preset's table ``[data.preparation]``, of segmentations also channels and labels. The identity
is a hash of the case id and of what its inputs are: of each file its path below the folder that
all of them share, size and time of last change (a study that is moved keeps its place in the
cache, one that is edited loses it), of DICOM the UIDs of its instances, of volumes a few kilobytes;
whole contents are not hashed, since that would cost as much as reading the scans again. A file is
written beside and renamed, so that a name that exists is whole; a lock per case keeps two processes
from preparing the same one. ``ledger.jsonl`` has a line for everything that was done, repaired or
refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool import __version__
from medtool.core.errors import MachineError
from medtool.core.files import TEMPORARY_PREFIX, replacing
from medtool.core.names import case_file_stem, safe_file_stem
from medtool.core.records import Case, Prepared
from medtool.data.case_file import DamagedFile, read_case_file, to_bytes, verify
from medtool.data.case_file import read_case_file as read_prepared
from medtool.data.dataset_record import ImageReference
from medtool.data.layout_files import spacing_file
from medtool.data.locks import locked
from medtool.dicom.series import Series

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from medtool.core.task import Task

__all__ = ["Cache", "Refusal", "default_cache_root", "input_files", "read_prepared"]

LEDGER_FILE = "ledger.jsonl"
KEY_FILE = "key.json"
# Writing one case takes seconds: a temporary file of this age was left by a process that died.
STALE_S = 3600.0
# Of a volume's file, at each of three places.
PIECE_BYTES = 4096


@dataclass(frozen=True)
class Refusal:
    """Why a case has no file: said once, remembered as long as its inputs stay the same."""

    case_id: str
    code: str
    message: str


def default_cache_root(folder: Path = Path()) -> Path:
    """Where prepared cases go unless told otherwise."""
    return folder / ".medtool" / "cache"


def input_files(case: Case) -> list[tuple[Path, int]]:
    """Every file that the case is read from, with the frame inside it (0 for whole files)."""
    files: set[tuple[Path, int]] = set()
    for value in case.inputs.values():
        if isinstance(value, Series):
            files.update((plane.path, plane.frame) for plane in value.planes)
        elif isinstance(value, ImageReference):
            files.update((file, value.component or 0) for file in _files_at(value.path))
        elif isinstance(value, str | Path):
            files.update((file, 0) for file in _files_at(Path(value)))
    return sorted(files)


def _files_at(path: Path) -> list[Path]:
    """The file itself and what says how large its voxels are, or every file below a folder."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    beside = spacing_file(path)
    return [path] if beside is None else [path, beside]


def _reference_files(case: Case) -> list[tuple[Path, int]]:
    """Files of the references: what was prepared of a mask is another once the mask was edited."""
    named = (Path(value) for value in case.references.values())
    return [(path, 0) for path in named if path.is_file()]


def input_bytes(case: Case) -> int:
    """Size on disk of the files that the case is read from; missing ones count nothing."""
    total = 0
    for path in {path for path, _ in input_files(case)}:
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _identity(case: Case) -> str:
    """Hash of the case id, of names, sizes and times of the files it is read from, and of what they
    hold: scans of two patients may be alike in all that stands outside.
    """
    files = [*input_files(case), *_reference_files(case)]
    folders = {path.parent.absolute() for path, _ in files}
    try:
        common = os.path.commonpath(folders) if folders else ""
    except ValueError:
        common = ""  # files on two drives of a Windows machine: absolute paths then
    digest = hashlib.blake2b(digest_size=12)
    series = [value for value in case.inputs.values() if isinstance(value, Series)]
    uids = [[plane.sop_instance_uid for plane in one.planes] for one in series]
    digest.update(json.dumps([case.case_id, sorted(case.inputs), uids]).encode())
    # Of a series its UIDs say what is inside, and its files are many.
    pieces = {path for path, _ in files} - {plane.path for one in series for plane in one.planes}
    for path, frame in files:
        try:
            status = path.stat()
            facts: list[object] = [status.st_size, status.st_mtime_ns]
        except OSError:
            facts = ["missing"]
        whole = path.absolute()
        facts.append(_piece(path) if path in pieces else "")
        name = (whole.relative_to(common) if common else whole).as_posix()
        digest.update(json.dumps([name, frame, *facts]).encode())
    return digest.hexdigest()


def _piece(path: Path) -> str:
    """A hash of what stands in the beginning, the middle and the end of a file."""
    digest = hashlib.blake2b(digest_size=12)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for start in (0, size // 2, size - PIECE_BYTES):
                file.seek(max(0, start))
                digest.update(file.read(PIECE_BYTES))
    except OSError:
        return "unreadable"
    return digest.hexdigest()


def case_stem(case: Case) -> str:
    """A file name for what is kept of a case: another one once its files changed."""
    return f"{case_file_stem(case.case_id)}-{_identity(case)}"


class Cache:
    """The prepared cases of one task under one preparation."""

    def __init__(self, root: Path, task: Task) -> None:
        self.root = root
        parts = {
            "task": task.name,
            "preparation_version": task.preparation_version,
            "preparation": dict(task.preparation_key()),
        }
        text = json.dumps(parts, sort_keys=True)
        self.key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder = root / safe_file_stem(task.name) / self.key
        self._key_text = text
        # By object, with the object itself so that its number cannot pass to another one.
        self._stems: dict[int, tuple[Case, str]] = {}

    def _stem(self, case: Case) -> str:
        # Asking the file system for a thousand slices twice costs; one case object, one answer.
        if id(case) not in self._stems:
            self._stems[id(case)] = (case, case_stem(case))
        return self._stems[id(case)][1]

    def __getstate__(self) -> dict[str, Any]:
        # Stems go by object; another process has other objects.
        return {**self.__dict__, "_stems": {}}

    def path(self, case: Case) -> Path:
        """The file of the case, whether it exists or not."""
        return self.folder / f"{self._stem(case)}.b2"

    def _refusal_path(self, case: Case) -> Path:
        return self.folder / f"{self._stem(case)}.refused.json"

    def has(self, case: Case) -> bool:
        """Whether the case is prepared (its file exists; ``sound`` also reads it)."""
        return self.path(case).is_file()

    def sound(self, case: Case) -> bool:
        """Whether the case has a file that is whole; reads every byte of it once."""
        try:
            return bool(verify(self.path(case))["case"] == case.case_id)
        except DamagedFile:
            return False

    def load(self, case: Case) -> Prepared:
        """The prepared case. Raises DamagedFile (also when there is none)."""
        return read_case_file(self.path(case))

    def store(self, case: Case, prepared: Prepared) -> Path:
        """Write the case's file, whole or not at all. Raises MachineError (disk full, ...)."""
        path = self.path(case)
        self._write(path, to_bytes(prepared))
        self._refusal_path(case).unlink(missing_ok=True)
        return path

    def refuse(self, case: Case, code: str, message: str) -> None:
        """Remember that the case cannot be prepared, and why."""
        entry = {"case": case.case_id, "code": code, "message": message, "by": __version__}
        self._write(self._refusal_path(case), [json.dumps(entry).encode()])

    def refusal(self, case: Case) -> Refusal | None:
        """Why the case was refused, if it was, by this version of medtool: a newer one may not."""
        try:
            entry = json.loads(self._refusal_path(case).read_bytes())
            if entry["by"] != __version__:
                return None
            return Refusal(entry["case"], entry["code"], entry["message"])
        except (OSError, ValueError, KeyError):
            return None

    def claim(self, case: Case) -> AbstractContextManager[None]:
        """Hold the case while preparing it; other processes wait for their turn."""
        return locked(self.folder / "locks" / f"{self._stem(case)}.lock")

    def record(self, case_id: str, what: str, **facts: object) -> None:
        """Add a line to the ledger: ``what`` is done, repaired, rebuilt, refused or failed."""
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "case": case_id,
            "what": what,
            **facts,
        }
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        # One write of one line in append mode: lines of several processes do not mix.
        with (self.folder / LEDGER_FILE).open("ab", buffering=0) as file:
            file.write(line)

    def ledger(self) -> list[Mapping[str, Any]]:
        """The lines of the ledger, oldest first; a line cut short by a kill is left out."""
        try:
            lines = (self.folder / LEDGER_FILE).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            with suppress(ValueError):
                entries.append(json.loads(line))
        return entries

    def open(self) -> None:
        """Make the folder, say in it what the key stands for, sweep what dead processes left."""
        if not (self.folder / KEY_FILE).exists():
            self._write(self.folder / KEY_FILE, [self._key_text.encode()])
        for file in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > STALE_S:
                    file.unlink()

    def _write(self, path: Path, parts: list[bytes]) -> None:
        """Write beside and rename."""
        try:
            with replacing(path) as file:
                for part in parts:
                    file.write(part)
        except MachineError as error:
            error.how = "name another folder with --cache, or " + error.how
            raise
