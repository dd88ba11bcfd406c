"""Where ``optimize`` writes: what it may replace, the room beside it in which a model is made, and
what a process that was killed there left.

A room is a folder of ours beside the output, on the same disk: the model grows in ``new``, and what
it replaces waits in ``old`` until its place is taken. Whoever works in a room holds its lock; one
whose lock can be taken belongs to a process that died.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from medtool.core.deployed import (
    DOCUMENT_FILE,
    FLOAT_FILE,
    MODEL_CARD,
    OPTIMIZE_FILE,
    find_deployed,
)
from medtool.core.errors import MedtoolError, OutputExistsError, UsageError
from medtool.core.files import IN_USE, TEMPORARY_PREFIX, cannot_write, require_writable
from medtool.core.progress import Reporter
from medtool.data.locks import try_lock
from medtool.verbs.optimize_options import OptimizeOptions

ROOM_PREFIX = f"{TEMPORARY_PREFIX}optimize-"
NEW, OLD = "new", "old"
# Holds the name of the folder that the room is for.
NAME_FILE = "output"
# How often a room is made again that another process took for one of a dead process.
TRIES = 20
NAMES_SHOWN = 5


# --- what may be replaced -------------------------------------------------------------------------
def require_place(options: OptimizeOptions) -> None:
    """Refuse before any work an output that would destroy something.

    Raises UsageError (the output holds what the model is made of, or is no optimised model),
    OutputExistsError (it is there, and nobody forces), MachineError (it cannot be written).
    """
    output = options.output
    _require_apart(options)
    filled = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if filled and not options.force:
        raise OutputExistsError(
            "There is something by this name.",
            where=str(output),
            how="--force replaces it; or name another folder with -o.",
        )
    if filled and output.is_dir() and find_deployed(output) is None:
        raise UsageError(
            "This folder holds no optimised model: it is not replaced.",
            where=str(output),
            wanted="a folder that 'medtool optimize' wrote, or none",
            how="name another folder with -o.",
        )
    require_writable(output / "any")


def _require_apart(options: OptimizeOptions) -> None:
    place = options.output.resolve()
    given = {
        "CHECKPOINT": options.checkpoint,
        "--data": options.data,
        "--calibration": options.calibration,
    }
    for word, path in given.items():
        if path is None:
            continue
        source = path.resolve()
        if source == place:
            raise _not_apart(options.output, f"it is {word}")
        if source.is_relative_to(place):
            raise _not_apart(options.output, f"{word} lies in it: {path}")
    if place.exists() and Path.cwd().is_relative_to(place):
        # Renaming it would fail, or take the shell's own folder away.
        raise _not_apart(options.output, "the command runs in it")


def _not_apart(output: Path, met: str) -> UsageError:
    return UsageError(
        "This folder is no place for the optimised model.",
        where=str(output),
        met=met,
        wanted="a folder that holds nothing of CHECKPOINT, --data and --calibration",
        how="name another folder with -o.",
    )


# --- the room -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Room:
    """A room for the model that becomes ``target``, while its lock is held."""

    folder: Path
    target: Path

    @property
    def stage(self) -> Path:
        """Where the model grows."""
        return self.folder / NEW

    def finish(self, reporter: Reporter) -> None:
        """Let the model be the output; what was there before goes, or comes back where this fails.

        Only what an optimised model consists of goes: what others put there stays, and is named.
        """
        kept: list[str] = []
        try:
            if self.target.exists():
                kept = _foreign(self.target)
                self.target.rename(self.folder / OLD)
            self.stage.rename(self.target)
        finally:
            _settle(self.folder, self.target)
        if kept:
            reporter.say(f"Kept, since 'medtool optimize' did not write it: {_some(kept)}.")


@contextmanager
def room_for(output: Path, reporter: Reporter) -> Iterator[Room]:
    """A room beside ``output`` that is gone at the end. Raises MachineError where it, or what is to
    lie in it, cannot be written.
    """
    try:
        # A link's folder is replaced, not the link.
        target = output.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _new_room(target)
    except OSError as error:
        raise cannot_write(output, error) from error
    try:
        (folder / NEW).mkdir()
        yield Room(folder, target)
    except OSError as error:
        # A full disk names no file; what lies elsewhere was to be read.
        named = Path(str(error.filename)) if error.filename else folder
        if named != target and folder not in (named, *named.parents):
            raise
        raise cannot_write(output, error) from error
    finally:
        left = _emptied(folder, target)
        lock.close()
        _remove(folder, left, reporter)


def _new_room(target: Path) -> tuple[Path, IO[bytes]]:
    for _ in range(TRIES):
        folder = Path(tempfile.mkdtemp(prefix=ROOM_PREFIX, dir=target.parent))
        with suppress(FileNotFoundError):
            lock = try_lock(folder / IN_USE)
            if lock is not None:
                # A name need not be valid text.
                (folder / NAME_FILE).write_bytes(os.fsencode(target.name))
                return folder, lock
        # Swept between the making and the locking.
    raise FileNotFoundError(f"{ROOM_PREFIX}* was taken away {TRIES} times")


def _emptied(folder: Path, target: Path) -> list[str]:
    """Empty a room; gives what of others stays in ``old``, for its place is taken."""
    shutil.rmtree(folder / NEW, ignore_errors=True)
    with suppress(OSError):
        _settle(folder, target)
    old = folder / OLD
    return _foreign(old) if old.is_dir() else []


def _remove(folder: Path, left: list[str], reporter: Reporter) -> None:
    old = folder / OLD
    if left:
        reporter.warn(f"What others wrote stays in {old}, move it from there: {_some(left)}.")
    if not old.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _settle(folder: Path, target: Path) -> bool:
    """Put right what ``target`` held before: back where nothing took its place (then True), else
    the model goes, its optimize.json last, and what others wrote moves over.

    Cut off at any point and begun again, it comes to the same.
    """
    old = folder / OLD
    if not old.is_dir():
        return False
    if not target.exists():
        old.rename(target)
        return True
    for name in _foreign(old):
        if not (target / name).exists():
            (old / name).rename(target / name)
    if _foreign(old):
        return False
    for name in sorted(_own(old), key=lambda one: one == OPTIMIZE_FILE):
        (old / name).unlink(missing_ok=True)
    old.rmdir()
    return False


# --- whose files ----------------------------------------------------------------------------------
def _foreign(folder: Path) -> list[str]:
    """Names in ``folder`` that are no files of an optimised model."""
    own = _own(folder)
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in own or (entry.is_dir() and not entry.is_symlink())
    )


def _own(folder: Path) -> set[str]:
    """Names that an optimised model has in ``folder``: what it lists, and what all have."""
    if not (folder / OPTIMIZE_FILE).is_file():
        return set()
    listed: set[str] = set()
    # One that is damaged lists nothing.
    with suppress(MedtoolError):
        deployed = find_deployed(folder)
        files = deployed.document["files"] if deployed is not None else {}
        listed = {name for file, entry in files.items() for name in (file, *_beside(entry))}
    return listed | known_names()


def _beside(entry: dict[str, dict[str, str]]) -> Iterator[str]:
    yield from entry.get("external") or {}


def known_names() -> set[str]:
    """Names of all files that an optimised model can consist of."""
    from medtool.optimize.case_table import CASES_FILE
    from medtool.optimize.export import EXTERNAL_ENDING
    from medtool.optimize.litert import LITERT_FILE, LITERT_INT8_FILE
    from medtool.report.optimisation import REPORT_FILE
    from medtool.verbs import optimize_make as made
    from medtool.verbs.optimize_prune import PRUNED_FILE

    onnx = (FLOAT_FILE, made.INT8_FILE, made.FLOAT16_FILE, made.WEIGHTS8_FILE)
    return {
        *onnx,
        *(name + EXTERNAL_ENDING for name in onnx),
        made.OPENVINO_FILE,
        PurePath(made.OPENVINO_FILE).with_suffix(".bin").name,
        LITERT_FILE,
        LITERT_INT8_FILE,
        PRUNED_FILE,
        DOCUMENT_FILE,
        MODEL_CARD,
        OPTIMIZE_FILE,
        REPORT_FILE,
        CASES_FILE,
    }


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


# --- after a kill ---------------------------------------------------------------------------------
def sweep_rooms(output: Path, reporter: Reporter) -> None:
    """Remove the rooms that dead processes left beside ``output``: their tables name patients.

    A model that was to be replaced comes back where nothing took its place.
    """
    for folder in sorted(output.resolve().parent.glob(f"{ROOM_PREFIX}*")):
        # Another user's cannot be looked into.
        with suppress(OSError):
            _sweep(folder, reporter)


def _sweep(folder: Path, reporter: Reporter) -> None:
    if folder.is_symlink() or not (folder / IN_USE).is_file():
        return  # another process is just making it
    # Where there are no locks a room may be another node's, hours into its work.
    lock = try_lock(folder / IN_USE, proved=True)
    if lock is None:
        return
    left: list[str] = []
    try:
        target = _target_of(folder)
        if _settle(folder, target):
            reporter.warn(f"{target} came back: an optimisation that was to replace it was killed.")
        left = _emptied(folder, target)
    except (FileNotFoundError, ValueError):
        # Killed before it had a name, and so before anything else: it is empty.
        if (folder / OLD).exists():
            return
    finally:
        lock.close()
    _remove(folder, left, reporter)
    if not folder.exists():
        reporter.say(f"Removed what an optimisation that was killed left: {folder}.")


def _target_of(folder: Path) -> Path:
    """What a room is for. Raises FileNotFoundError or ValueError where that is not known."""
    name = os.fsdecode((folder / NAME_FILE).read_bytes())
    if name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a folder")
    return folder.with_name(name)
