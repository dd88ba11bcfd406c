"""The words that this command was called with, for the record of a run."""

from __future__ import annotations

from collections.abc import Sequence

_called_with: list[str] = []


def remember(words: Sequence[str]) -> None:
    """Keep the words of the call; the process's own arguments may be another program's."""
    _called_with[:] = words


def command_line() -> str:
    """The command as it can be given to a shell again."""
    import shlex

    return shlex.join(["medtool", *_called_with])
