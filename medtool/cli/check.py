"""``medtool check``: the door to ``medtool.verbs.check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console, table
from medtool.cli.flags import (
    OUTPUT,
    CaseTimeout,
    Force,
    Json,
    Labels,
    Preset,
    Quiet,
    SeriesTable,
    Set,
    Task,
    Workers,
)


def command(
    task: Task,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA]", help="Folder of the data; by default as medtool.toml says, or here."
        ),
    ] = None,
    series: SeriesTable = None,
    labels: Labels = None,
    preset: Preset = None,
    assignments: Set = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write one row a series, with a column 'use' for you to edit.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    workers: Workers = None,
    case_timeout_s: CaseTimeout = None,
    quiet: Quiet = False,
) -> int:
    """Say of every series and study under DATA whether it can be used, and why not."""
    from medtool.verbs.check import check
    from medtool.verbs.check_text import check_lines, check_remarks, check_summary
    from medtool.verbs.task_data import DataOptions

    console = Console(quiet=quiet)
    result = check(
        DataOptions(task, data, labels, series, preset, assignments or ()),
        csv=csv,
        force=force,
        workers=workers,
        case_timeout_s=case_timeout_s,
        reporter=console,
    )
    if result.refusal is not None:
        console.refuse(result.refusal)
    if as_json:
        console.json(result.document)
    elif result.document["series"] or result.document["skipped"]:
        console.result(table(check_lines(result.document)))
        console.result("")
        for remark in check_remarks(result.document):
            console.result(remark)
        console.result(check_summary(result.document))
    if result.table is not None:
        console.say(f"Edit the column 'use' of {result.table}; --series {result.table} reads it.")
    return int(result.status)
