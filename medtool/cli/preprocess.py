"""``medtool preprocess``: the door to ``medtool.verbs.preprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console, span
from medtool.cli.flags import (
    OUTPUT,
    Cache,
    CaseTimeout,
    Data,
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
    data: Data = None,
    labels: Labels = None,
    series: SeriesTable = None,
    preset: Preset = None,
    assignments: Set = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview",
            metavar="DIR",
            help="Only write pictures of every stage, of one study a class.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    cache: Cache = None,
    workers: Workers = None,
    case_timeout_s: CaseTimeout = None,
    quiet: Quiet = False,
) -> int:
    """Prepare every study into the cache; what is there already is kept."""
    from medtool.verbs.preprocess import preprocess
    from medtool.verbs.task_data import DataOptions

    console = Console(quiet=quiet)
    result = preprocess(
        DataOptions(task, data, labels, series, preset, assignments or ()),
        cache=cache,
        workers=workers,
        case_timeout_s=case_timeout_s,
        preview=preview,
        force=force,
        reporter=console,
    )
    if as_json:
        console.json(result.as_dict())
    elif result.report is None:
        for picture in result.pictures:
            console.result(str(picture))
    else:
        report = result.report
        failed = len(report.failures) + len(result.refused)
        console.result(
            f"{len(report.paths)} studies are ready ({len(report.reused)} were before), "
            f"{failed} are not; {report.stored_bytes / 1e6:.1f} MB in {result.cache}, "
            f"{span(report.seconds)}."
        )
    return int(result.status)
