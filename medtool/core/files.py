"""Writing files so that a reader sees the old one or the new one, never half; their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medtool.core.errors import MachineError, UsageError
from medtool.core.names import nearest_name

TEMPORARY_PREFIX = ".writing-"
# Stands in a folder of ours while a process works there alone.
IN_USE = ".in-use"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path`` when the block ends well, and is gone when it does not.

    Missing folders are made. The bytes are on the disk before the name changes, so that a power
    cut leaves one whole file. Raises MachineError where the disk is full or read-only, UsageError
    where ``path`` is a folder or a device.
    """
    _require_replaceable(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        # mkstemp makes files that only their owner reads; results are shared as the umask says.
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        _remove(temporary)
        raise cannot_write(path, error) from error
    except BaseException:
        _remove(temporary)
        raise


def sweep_temporary(*folders: Path) -> None:
    """Remove what writers that were killed left in these folders, which nobody writes to now."""
    for folder in folders:
        for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(OSError):
                file.unlink()


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix line ends, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def require_writable(path: Path) -> None:
    """Refuse, before any work, a file or folder to be that could not be written at its end.

    Changes nothing on the disk. Raises UsageError where a file stands in the place of a folder,
    MachineError where the folder may not be written to.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(
            "A file stands where a folder should be.",
            where=str(folder),
            wanted=f"a folder, for {path}",
            how="name another place.",
        )
    if not os.access(folder, os.W_OK):
        raise MachineError(
            "This folder cannot be written to.",
            where=str(folder),
            wanted=f"a place for {path.name}",
            how="choose another folder, or change its permissions.",
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex; bounded memory. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(paths: Iterable[Path]) -> str:
    """One SHA-256 over several files: of their sorted single hashes, so that order is nothing."""
    digest = hashlib.sha256()
    for single in sorted(file_sha256(path) for path in paths):
        digest.update(single.encode())
    return digest.hexdigest()


def nearest_path(path: Path) -> str:
    """The file or folder beside a missing ``path`` whose name is nearest to it, or ""."""
    parent = path.parent
    if not parent.is_dir():
        return nearest_path(parent) if parent != path else ""
    try:
        names = [entry.name for entry in parent.iterdir()]
    except OSError:
        return ""
    name = nearest_name(path.name, names)
    return str(parent / name) if name else ""


def _require_replaceable(path: Path) -> None:
    if path.exists() and not path.is_file():
        # Renaming over a device would put a plain file in its place, for everybody.
        raise UsageError(
            "Something that is no file stands where one is to be written.",
            where=str(path),
            met="a folder" if path.is_dir() else "a device",
            how="name another file.",
        )


def cannot_write(path: Path, error: OSError) -> MachineError:
    """The refusal for a file that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MachineError(
        "The disk is full." if full else "A file cannot be written.",
        where=str(path),
        met=error.strerror or str(error),
        how="free some space and start again; what was finished is kept."
        if full
        else "choose another folder, or change its permissions.",
    )


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove(temporary: str) -> None:
    if temporary:
        with suppress(OSError):
            Path(temporary).unlink()
