"""``medtool presets``: the door to ``medtool.verbs.presets``."""

from __future__ import annotations

from typing import Annotated

import typer

from medtool.cli.console import Console, table
from medtool.cli.flags import Json, Quiet, Set


def command(
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Only the presets of this task.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A preset's name or path: show it resolved."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the task's presets.")
    ] = False,
    assignments: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List presets; with TASK and NAME show one, resolved, with the origin of each value."""
    from medtool.verbs import presets

    console = Console(quiet=quiet)
    if assignments and (schema or name is None):
        raise typer.BadParameter(
            "--set changes a preset that is shown: medtool presets TASK NAME --set KEY=VALUE"
        )
    if schema:
        if task is None:
            raise typer.BadParameter("name a task: medtool presets TASK --schema")
        console.json(presets.preset_schema(task))
    elif task is not None and name is not None:
        resolved = presets.show_preset(task, name, assignments=assignments or ())
        if as_json:
            console.json(resolved.as_dict())
        else:
            console.result(resolved.as_toml())
    else:
        found = presets.list_presets(task)
        if as_json:
            console.json({"presets": [line.as_dict() for line in found]})
        elif found:
            rows = [(f.task, f.name, f.place, f.problem or f.description) for f in found]
            console.result(table(rows))
        else:
            console.warn("there is no preset; every task runs on its defaults.")
