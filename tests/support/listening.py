"""A reporter that keeps what is said, in order."""

from __future__ import annotations

from medtool.core.progress import Silent


class Listening(Silent):
    """Keeps notes and warnings alike."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say
