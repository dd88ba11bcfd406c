"""``medtool train``: the door to ``medtool.verbs.train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console
from medtool.cli.flags import (
    OUTPUT,
    RUNNING,
    SETTINGS,
    Cache,
    CaseTimeout,
    Data,
    Device,
    Devices,
    Fold,
    Folds,
    Json,
    Keep,
    Labels,
    Minutes,
    Nodes,
    Precision,
    Preset,
    Quiet,
    Run,
    Seed,
    SeriesTable,
    Set,
    Task,
    Workers,
)

FromScratch = Annotated[
    bool,
    typer.Option(
        "--from-scratch",
        help="Start from random weights; everything trains.",
        rich_help_panel=SETTINGS,
    ),
]
Fetch = Annotated[
    bool,
    typer.Option(
        "--fetch", help="Fetch the weights of the preset first.", rich_help_panel=SETTINGS
    ),
]
AllowLeak = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-leak",
        metavar="patient=ID",
        help="Vouch for a patient that the leakage gate refuses.",
        rich_help_panel=SETTINGS,
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="RUN|FILE",
        help="Go on with a run, or from one of its checkpoints.",
        rich_help_panel=RUNNING,
    ),
]
StartOrResume = Annotated[
    bool,
    typer.Option(
        "--start-or-resume",
        help="Go on with the run of this name where there is one.",
        rich_help_panel=RUNNING,
    ),
]
Slim = Annotated[
    bool,
    typer.Option(
        "--slim",
        help="At the end, drop from checkpoints what only training needs.",
        rich_help_panel=OUTPUT,
    ),
]


def command(
    task: Task,
    preset: Preset = None,
    data: Data = None,
    labels: Labels = None,
    assignments: Set = None,
    run: Run = None,
    series: SeriesTable = None,
    folds: Folds = None,
    fold: Fold = None,
    minutes: Minutes = None,
    seed: Seed = None,
    from_scratch: FromScratch = False,
    fetch: Fetch = False,
    allow_leak: AllowLeak = None,
    resume: Resume = None,
    start_or_resume: StartOrResume = False,
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = None,
    workers: Workers = None,
    case_timeout_s: CaseTimeout = None,
    cache: Cache = None,
    keep: Keep = None,
    slim: Slim = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train on a folder of scans with labels; ends with scores, a report and the infer line."""
    from medtool.core.errors import ExitStatus
    from medtool.verbs.options import RunOptions
    from medtool.verbs.train import TrainOptions, train

    console = Console(quiet=quiet)
    options = RunOptions(
        run, cache, device, devices, nodes, precision, workers, minutes, folds, fold, seed, keep
    )
    result = train(
        TrainOptions(
            task=task,
            preset=preset,
            data=data,
            labels=labels,
            assignments=tuple(assignments or ()),
            series=series,
            allow_leak=tuple(allow_leak or ()),
            from_scratch=from_scratch,
            fetch=fetch,
            resume=resume,
            start_or_resume=start_or_resume,
            slim=slim,
            case_timeout_s=case_timeout_s,
            run=options,
            command="medtool " + " ".join(sys.argv[1:]),
        ),
        console,
    )
    if as_json:
        console.json(result.as_dict())
    else:
        console.say(f"Report: {result.report}")
        console.result(result.infer_line)
    return int(ExitStatus.SOME_CASES_FAILED if result.failures else ExitStatus.DONE)
