"""The options that verbs share, each said once: use them as annotations of a command.

def command(task: Task, preset: Preset = None, quiet: Quiet = False) -> None: ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUNNING = "How it runs"
SETTINGS = "What is done"
OUTPUT = "What comes out"

# --- what is worked on ------------------------------------------------------------------------
Task = Annotated[
    str, typer.Argument(metavar="TASK", help="Name of the task; 'medtool tasks' lists them.")
]
Sources = Annotated[
    list[Path],
    typer.Argument(metavar="SOURCE...", help="Folders, files or zip archives with scans."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of the data; by default the one of medtool.toml, else this folder.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Table of labels; by default the one labels*.csv of the data.",
    ),
]
Checkpoint = Annotated[
    Path,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="FILE|RUN",
        help="A checkpoint, or a run's folder: its best one is taken.",
    ),
]
SeriesTable = Annotated[
    Path | None,
    typer.Option(
        "--series",
        metavar="FILE",
        help="The table of 'medtool check --csv', with your edits in column 'use'.",
    ),
]

# --- what is done -----------------------------------------------------------------------------
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        help="A preset by name or path; 'medtool presets' lists them.",
        rich_help_panel=SETTINGS,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the preset, as train.epochs=10; can be given several times.",
        rich_help_panel=SETTINGS,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Seed of everything that is drawn at random.",
        rich_help_panel=SETTINGS,
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds",
        metavar="K",
        min=2,
        help="Number of folds of cross-validation.",
        rich_help_panel=SETTINGS,
    ),
]
Fold = Annotated[
    int | None,
    typer.Option(
        "--fold",
        metavar="k",
        min=0,
        help="Only this fold, counted from 0.",
        rich_help_panel=SETTINGS,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        metavar="M",
        min=0.0,
        help="Fit the training into this time.",
        rich_help_panel=SETTINGS,
    ),
]

AllowDemo = Annotated[
    bool, typer.Option("--allow-demo", help="Let a model of synthetic scans answer for patients.")
]

# --- how it runs ------------------------------------------------------------------------------
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|mps",
        help="Where networks run; auto takes a GPU where there is one.",
        rich_help_panel=RUNNING,
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices", metavar="N", min=1, help="Devices of each machine.", rich_help_panel=RUNNING
    ),
]
Nodes = Annotated[
    int,
    typer.Option(
        "--nodes", metavar="N", min=1, help="Machines of a cluster.", rich_help_panel=RUNNING
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="auto|32|bf16|16",
        help="Bits of the arithmetic; auto as the device does best.",
        rich_help_panel=RUNNING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=0,
        help="Worker processes; 0 for one process; by default as cores and memory allow.",
        rich_help_panel=RUNNING,
    ),
]


def _over_zero(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value:g} is not over 0.")
    return value


CaseTimeout = Annotated[
    float | None,
    typer.Option(
        "--case-timeout",
        metavar="SECONDS",
        callback=_over_zero,
        help="Give up reading and preparing a case after this time.",
        rich_help_panel=RUNNING,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Prepared cases; by default .medtool/cache.",
        rich_help_panel=RUNNING,
    ),
]

# --- what comes out ---------------------------------------------------------------------------
Run = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME",
        help="Name of the run's folder; by default the time.",
        rich_help_panel=OUTPUT,
    ),
]
Keep = Annotated[
    int | None,
    typer.Option(
        "--keep",
        metavar="N",
        min=1,
        help="Milestones and ends of stages kept beside best and last.",
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="OUT", help="Where results are written.", rich_help_panel=OUTPUT
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite what exists.", rich_help_panel=OUTPUT)
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No notes, no bars: results, warnings and errors only."),
]
