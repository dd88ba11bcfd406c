"""``medtool tasks``: the door to ``medtool.verbs.tasks``."""

from __future__ import annotations

from medtool.cli.console import Console
from medtool.cli.flags import Json, Quiet


def command(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the tasks by name, with what each answers; those that cannot be loaded say why."""
    from medtool.core.registry import task_entries
    from medtool.verbs.tasks import list_tasks

    console = Console(quiet=quiet)
    names = [entry.name for entry in task_entries()]
    width = max(map(len, names), default=0)
    tasks = []
    # Line by line: a plugin that imports slowly does not hold back the others.
    for task in list_tasks():
        tasks.append(task)
        if not as_json:
            said = task.summary or f"cannot be loaded: {task.problem}"
            console.result(f"{task.name:<{width}}  {said}")
    if as_json:
        console.json({"tasks": [task.as_dict() for task in tasks]})
    if not names:
        console.warn("no task is registered; reinstall medtool.")
