"""What happens when something goes wrong that nobody foresaw.

The message of an exception may quote a header or a row of labels, so that it goes into a log file
and never on the screen; the screen gets the kind of exception and where in the code it was raised.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from medtool.cli.console import Console
from medtool.core.errors import ExitStatus, MedtoolError

LOG_FOLDER = Path(".medtool", "log")


class Bug(MedtoolError):
    """An unforeseen error, as it is shown."""

    exit_status = ExitStatus.BUG


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
