"""The only file that prints: results to stdout, everything else to stderr.

Notes, warnings and bars are for a person who waits; they go to stderr so that stdout can be piped
into a file or a program. Live bars and colour appear on a terminal only; elsewhere a long step
leaves a line when it ends. rich is imported when the first bar is drawn, because it costs more
than everything else that a short command does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from medtool.core.environment import colour_forbidden
from medtool.core.errors import MedtoolError
from medtool.core.progress import Advance

if TYPE_CHECKING:
    from rich.progress import Progress

RED = "31"
YELLOW = "33"

# Without a terminal a long step says where it is this often.
SECONDS_BETWEEN_LINES_S = 60.0


class Console:
    """How one command speaks; implements ``medtool.core.progress.Reporter``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet or Console.all_quiet
        self._bars: Progress | None = None

    # Set by the global --quiet, before a verb opens its console.
    all_quiet = False

    def result(self, text: str) -> None:
        """What was asked for: a line on stdout."""
        print(printable(text), file=sys.stdout)

    def json(self, document: Any) -> None:
        """What was asked for, for a program: one JSON document on stdout.

        Values that are no number (undefined metrics) become null: JSON knows no NaN.
        """
        import json

        text = json.dumps(_without_nan(document), indent=2, allow_nan=False, default=str)
        self.result(text)

    def say(self, text: str) -> None:
        """A note on stderr; nothing when quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr)

    def warn(self, text: str) -> None:
        """A warning on stderr, also when quiet."""
        print(f"{_coloured('warning:', YELLOW, sys.stderr)} {printable(text)}", file=sys.stderr)

    def refuse(self, error: MedtoolError) -> None:
        """A refusal on stderr: what, where, met, wanted, nearest, how to go on."""
        summary, *rest = (printable(line) for line in error.lines())
        print(f"{_coloured('medtool:', RED, sys.stderr)} {summary}", file=sys.stderr)
        for line in rest:
            print(line, file=sys.stderr)

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """A bar with rate and time left on a terminal; elsewhere lines, the last one at the end."""
        if self.quiet:
            yield _nothing
        elif self._bars is not None:
            # Work inside work: one more bar, for two displays at once would overwrite each other.
            yield self._bar(self._bars, description, total)
        elif live(sys.stderr):
            with _open_bars() as bars:
                self._bars = bars
                try:
                    yield self._bar(bars, description, total)
                finally:
                    self._bars = None
        else:
            lines = _Lines(self, description, total)
            yield lines.advance
            lines.end()

    def _bar(self, bars: Progress, description: str, total: int | None) -> Advance:
        number = bars.add_task(description, total=total, rate="", note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bars.update(number, advance=steps, note=printable(note))
            speed = next((bar.speed for bar in bars.tasks if bar.id == number), None)
            bars.update(number, rate=_rate(speed))

        return advance


def printable(text: str) -> str:
    """``text`` with everything escaped that could command a terminal or turn what is read around.

    Names in headers, tables and archives are a stranger's; line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in "\n\t" or character.isprintable() else repr(character)[1:-1]
        for character in text
    )


def live(stream: TextIO) -> bool:
    """Whether a person watches ``stream`` on a terminal."""
    return stream.isatty()


def _coloured(text: str, colour: str, stream: TextIO) -> str:
    # Old Windows consoles print escape codes as they are.
    if colour_forbidden() or not live(stream) or sys.platform == "win32":
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return value


def _nothing(steps: int = 1, note: str = "") -> None:
    """The bar of a quiet console."""


class _Lines:
    """Progress where nobody watches: now and then a line, and one at the end."""

    def __init__(self, console: Console, description: str, total: int | None) -> None:
        self.console = console
        self.description = description
        self.total = total
        self.done = 0
        self.began = time.monotonic()
        self.spoke = self.began

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count; speak when the last line is old."""
        self.done += steps
        if time.monotonic() - self.spoke >= SECONDS_BETWEEN_LINES_S:
            self.spoke = time.monotonic()
            self.console.say(self._line())

    def end(self) -> None:
        """The last line, when anything was done."""
        if self.done:
            self.console.say(self._line())

    def _line(self) -> str:
        seconds = time.monotonic() - self.began
        of = f" of {self.total}" if self.total is not None else ""
        return f"{self.description}: {self.done}{of} in {span(seconds)}"


def _open_bars() -> Progress:
    """An empty set of bars on stderr, not yet shown."""
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=RichConsole(stderr=True),
        # Notes are lifted above the bars; results stay on stdout, which may be a file.
        redirect_stdout=False,
    )


def _rate(per_second: float | None) -> str:
    if not per_second:
        return ""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"


def span(seconds: float) -> str:
    """Seconds as a person says them: ``8.1 s``, ``3 min 20 s``, ``5 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "") -> str:
    """Columns of text, each as wide as its widest cell; the last one is not padded."""
    if not rows:
        return ""
    rows = [tuple(" ".join(cell.splitlines()) for cell in row) for row in rows]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append(indent + "  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)
