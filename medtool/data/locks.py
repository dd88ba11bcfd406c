"""Locks between processes: held by an open file, so that a killed process lets go of them."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medtool.core.errors import OutputExistsError
from medtool.core.files import IN_USE, cannot_write

# What systems say when another process holds the lock.
HELD = frozenset([errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK])
# How often a waiting process looks whether the lock is free.
POLL_S = 0.1


def try_lock(path: Path, *, proved: bool = False) -> IO[bytes] | None:
    """An open file that holds ``path``'s lock until it is closed; None while another holds it.

    Where the file system has no locks it is given all the same; ``proved``: then None.
    """
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if proved or error.errno in HELD:
            file.close()
            return None
        # A file system without locks: better unguarded than never.
    return file


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold ``path``'s lock; ``waiting`` is called once when another process has it.

    Raises MachineError where the lock's file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = try_lock(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    if held is None and waiting is not None:
        waiting()
    while held is None:
        time.sleep(POLL_S)
        held = try_lock(path)
    try:
        yield
    finally:
        held.close()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work in ``folder`` (made where missing) as the only process.

    A folder that nothing was written into is gone at the end. Raises OutputExistsError while
    another process works there, MachineError where the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    mark = folder / IN_USE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = try_lock(mark)
    except OSError as error:
        raise cannot_write(mark, error) from error
    if held is None:
        raise OutputExistsError(
            "Another process is writing here.",
            where=str(folder),
            how="wait until it has ended, or name another place.",
        )
    try:
        yield
    finally:
        held.close()
        with suppress(OSError):
            mark.unlink()
            for path in made:
                path.rmdir()
