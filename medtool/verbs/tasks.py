"""Which tasks there are, what each answers, and which cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from medtool.core.errors import MedtoolError
from medtool.core.registry import load_task, task_entries


@dataclass(frozen=True)
class TaskLine:
    """One registered task; ``problem`` says why it cannot be loaded, and is "" when it can."""

    name: str
    summary: str
    distribution: str
    problem: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain text, for JSON."""
        return asdict(self)


def list_tasks() -> Iterator[TaskLine]:
    """Every registered task in the order of names; imports each plugin for its summary."""
    for entry in task_entries():
        summary, problem = "", ""
        try:
            summary = load_task(entry.name).summary
        except MedtoolError as error:
            problem = f"{error.what} {error.met}".strip()
        yield TaskLine(entry.name, summary, entry.distribution, problem)
