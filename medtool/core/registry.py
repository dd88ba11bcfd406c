"""Tasks come through the entry-point group ``medtool.tasks``; ours and a stranger's alike."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from medtool.core.errors import MachineError, UnknownNameError, UsageError
from medtool.core.names import nearest_name

if TYPE_CHECKING:
    from medtool.core.task import Task

ENTRY_POINT_GROUP = "medtool.tasks"


@dataclass(frozen=True)
class TaskEntry:
    """A registered name and the distribution that registered it."""

    name: str
    target: str
    distribution: str


def _entries() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        same = found.setdefault(entry.name, [])
        # An editable install and its wheel can both list one entry point: that is one task.
        if all((e.value, _distribution(e)) != (entry.value, _distribution(entry)) for e in same):
            same.append(entry)
    return found


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"


def task_entries() -> list[TaskEntry]:
    """All registered tasks by name, without importing any."""
    return [
        TaskEntry(name, entry.value, _distribution(entry))
        for name, same in sorted(_entries().items())
        for entry in same
    ]


def task_names() -> list[str]:
    """The names that can be asked for, sorted."""
    return sorted(_entries())


def load_task(name: str) -> type[Task]:
    """The class registered as ``name``.

    Raises UnknownNameError (no such task), UsageError (two distributions claim the name),
    MachineError (its package cannot be imported).
    """
    entries = _entries()
    if name not in entries:
        raise UnknownNameError(
            f"There is no task named '{name}'.",
            met=name,
            wanted="one of: " + ", ".join(sorted(entries)),
            nearest=nearest_name(name, entries),
            how="'medtool tasks' lists the tasks with what each answers.",
        )
    if len(entries[name]) > 1:
        owners = " and ".join(sorted(_distribution(entry) for entry in entries[name]))
        raise UsageError(
            f"The task name '{name}' is taken twice.",
            met=f"it is registered by {owners}",
            wanted="each task name in one distribution",
            how="uninstall one of the two.",
        )
    entry = entries[name][0]
    try:
        task: type[Task] = entry.load()
    except Exception as error:  # noqa: BLE001 - a stranger's package may raise anything on import
        raise MachineError(
            f"The task '{name}' cannot be loaded.",
            where=f"{entry.value} of {_distribution(entry)}",
            met=f"{type(error).__name__}: {error}",
            how="reinstall that package, or report this to its author.",
        ) from error
    return task
