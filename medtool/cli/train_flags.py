"""The options that only ``medtool train`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.flags import OUTPUT, RUNNING, SETTINGS

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
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="plan|prepare",
        help="Stop early: once the plan is made, or once every case is prepared.",
        rich_help_panel=SETTINGS,
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
