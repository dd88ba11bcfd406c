"""How long work speaks to whoever started it, without knowing whether that is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from medtool.core.records import Finding


class Advance(Protocol):
    """Moves one progress bar on."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


class Reporter(Protocol):
    """Where notes, warnings and progress go; results are return values, not notes."""

    def say(self, text: str) -> None:
        """A line that a user wants to read while waiting."""

    def warn(self, text: str) -> None:
        """A line that a user must not miss."""

    def progress(self, description: str, total: int | None) -> AbstractContextManager[Advance]:
        """A bar with rate and time left for ``total`` steps."""


class Silent:
    """A reporter that drops everything: the default of the Python API."""

    def say(self, text: str) -> None:
        """Drop the note."""

    def warn(self, text: str) -> None:
        """Drop the warning."""

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """A bar that no one sees."""

        def advance(steps: int = 1, note: str = "") -> None:
            """Nothing to move."""

        yield advance


def tell(findings: Iterable[Finding], reporter: Reporter) -> None:
    """Say notes and warn of everything else."""
    for finding in findings:
        (reporter.say if finding.severity == "note" else reporter.warn)(finding.message)
