"""What happens when something goes wrong that no verb has foreseen.

What the machine refuses (a full disk, a folder that may not be written, no memory) is said as
such. Anything else is a bug.

The message of an exception may quote a header or a row of labels, so that it goes into a log file
and never on the screen; the screen gets the kind of exception and where in the code it was raised.
"""

from __future__ import annotations

import errno
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from medtool.cli.console import Console
from medtool.core.errors import ExitStatus, MachineError, MedtoolError

LOG_FOLDER = Path(".medtool", "log")

_MAKE_ROOM = "make room, or name another folder; what was finished is kept."
_MAY_NOT = "change its permissions, close programs that have it open, or name another folder."
_CABLE = "see that the drive is connected and sound, and run it again; what was finished is kept."
_OF_THE_MACHINE = {
    errno.ENOSPC: ("The disk is full.", _MAKE_ROOM),
    errno.EDQUOT: ("Your share of the disk is used up.", _MAKE_ROOM),
    errno.EACCES: ("A file or folder may not be used.", _MAY_NOT),
    errno.EPERM: ("A file or folder may not be used.", _MAY_NOT),
    errno.EROFS: ("The disk is read-only.", "name another folder."),
    errno.ENOTDIR: ("A file stands where a folder should be.", "name another place."),
    errno.EISDIR: ("A folder stands where a file should be.", "name another place."),
    errno.ENAMETOOLONG: ("A name is too long for this disk.", "choose a shorter one."),
    errno.ELOOP: ("Links lead in a circle.", "remove the link, or name what it should lead to."),
    errno.EIO: ("The disk or the network drive failed.", _CABLE),
    errno.ESTALE: ("The network drive went away.", _CABLE),
    errno.EMFILE: ("Too many files are open.", "run it with fewer workers (--workers)."),
    errno.ENOMEM: (
        "The memory of this machine is not enough.",
        "run it with fewer workers (--workers), or where there is more memory.",
    ),
}


class Bug(MedtoolError):
    """An unforeseen error, as it is shown."""

    exit_status = ExitStatus.BUG


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: an extension module that it meets while loading cannot load."""
    cause = error.__cause__
    return cause is not None and (isinstance(cause, KeyboardInterrupt) or was_interrupted(cause))


def machine_trouble(error: Exception) -> MachineError | None:
    """What the operating system refused, as a refusal of ours; None for any other exception."""
    if isinstance(error, MemoryError):
        return MachineError(
            "The memory of this machine is not enough.",
            how="run it with fewer workers (--workers), or where there is more memory.",
        )
    if not isinstance(error, OSError) or error.errno not in _OF_THE_MACHINE:
        return None
    what, how = _OF_THE_MACHINE[error.errno]
    return MachineError(what, where=str(error.filename or ""), met=error.strerror or "", how=how)


def report_bug(error: Exception, words: Sequence[str]) -> int:
    """Write the traceback into a log, say where it lies; gives the exit status."""
    log = _write_log(error, words)
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    Console().refuse(
        Bug(
            "An unforeseen error: this is a bug in medtool or in a plugin, not your mistake.",
            where=f"{Path(last.filename).name}:{last.lineno}, {last.name}" if last else "",
            met=type(error).__name__,
            how=f"{log} holds the details; read it before you send it, it may name patients."
            if log
            else "no log could be written; run it again where you may write.",
        )
    )
    return int(Bug.exit_status)


def _write_log(error: Exception, words: Sequence[str]) -> Path | None:
    from medtool import __version__

    text = "\n".join(
        [
            f"medtool {__version__}",
            "command: medtool " + " ".join(words),
            "",
            *traceback.format_exception(error),
        ]
    )
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    for folder in (LOG_FOLDER, Path(tempfile.gettempdir(), "medtool-log")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"error-{stamp}.txt"
            file.write_text(text, encoding="utf-8")
            file.chmod(0o600)
        except OSError:
            continue
        return file
    return None
