"""One folder for patients' temporary files: gone at the end and, after a kill, at the next start.

Each process owns a folder below the common one and holds a lock in it; a folder whose lock can be
taken belongs to a process that died, and is removed.
"""

from __future__ import annotations

import getpass
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from medtool.core.errors import MachineError
from medtool.core.names import safe_file_stem
from medtool.data.locks import try_lock

LOCK_FILE = "in-use"
# How often a folder is made again that another process took away meanwhile.
TRIES = 20


def scratch_root() -> Path:
    """The folder that holds the scratch folders of all of this user's processes."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "user"
    return Path(tempfile.gettempdir()) / f"medtool-{safe_file_stem(user)}"


def sweep(root: Path) -> int:
    """Remove the folders that dead processes left below ``root``; gives how many there were."""
    removed = 0
    for folder in sorted(root.glob("run-*")):
        lock_path = folder / LOCK_FILE
        if not lock_path.exists():
            continue  # another process is just making it
        lock = try_lock(lock_path)
        if lock is None:
            continue
        # The lock is kept meanwhile: an owner that comes to it late finds it taken, or gone.
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
        if folder.exists():  # Windows removes no open file
            shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


class Scratch:
    """A temporary folder as a context manager; ``path`` is it."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or scratch_root()
        self._lock: IO[bytes] | None = None
        self.path = Path()

    def __enter__(self) -> Scratch:
        try:
            for tries_left in reversed(range(TRIES)):
                try:
                    self._make()
                    break
                except (FileNotFoundError, FileExistsError):
                    # The process that ended last removes the root, perhaps just after this one
                    # made it.
                    if not tries_left:
                        raise
        except OSError as error:
            raise MachineError(
                "No temporary folder can be made.",
                where=str(self._root),
                met=error.strerror or type(error).__name__,
            ) from error
        return self

    def _make(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._root.is_symlink():
            raise MachineError(
                "The folder for temporary files is a link; another user may have placed it.",
                where=str(self._root),
                how="remove the link, or point TMPDIR at a folder of your own.",
            )
        sweep(self._root)
        self.path = Path(tempfile.mkdtemp(prefix="run-", dir=self._root))
        self._lock = try_lock(self.path / LOCK_FILE)
        if self._lock is not None and self.path.exists():
            return
        # Swept between the making and the locking: there will be another.
        if self._lock is not None:
            self._lock.close()
        raise FileExistsError(self.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self._root.rmdir()
