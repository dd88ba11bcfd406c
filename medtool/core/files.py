"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medtool.core.errors import MachineError

TEMPORARY_PREFIX = ".writing-"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path`` when the block ends well, and is gone when it does not.

    Missing folders are made. The bytes are on the disk before the name changes, so that a power
    cut leaves one whole file. Raises MachineError where the disk is full or read-only.
    """
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


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix line ends, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


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
