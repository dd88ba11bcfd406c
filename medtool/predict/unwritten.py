"""A case whose answer cannot be written or drawn: named with its reason, and never the end."""

from __future__ import annotations

import errno
from pathlib import Path

from medtool.core.errors import MachineError, MedtoolError
from medtool.core.files import cannot_write
from medtool.data.worker import unforeseen

# What the system says of a disk, and not of one file on it.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def why_unwritten(error: Exception, folder: Path) -> tuple[str, str]:
    """Code and message of a case of which something could not be written below ``folder``.

    Raises MachineError where no other case could be written either.
    """
    if isinstance(error, MachineError):
        raise error
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        raise cannot_write(folder, error) from error
    if isinstance(error, MedtoolError):
        return getattr(error, "code", "writing"), error.what
    return unforeseen(error)
