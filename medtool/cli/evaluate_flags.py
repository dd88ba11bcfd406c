"""The options that only ``medtool evaluate`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.flags import OUTPUT, SETTINGS

Subjects = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PREDICTIONS...]", help="Predictions or a run's folder; two are compared."
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        "-c",
        help="A model to evaluate on --data (two are compared), or the one that made the "
        "predictions.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Also write scores.json and report.html into this folder.",
        rich_help_panel=OUTPUT,
    ),
]
By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="case|patient",
        help="One answer a study, or pooled over the studies of a patient.",
        rich_help_panel=SETTINGS,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        min=0.0,
        max=1.0,
        help="Decide at this probability instead of the stored one.",
        rich_help_panel=SETTINGS,
    ),
]
Subgroup = Annotated[
    list[str] | None,
    typer.Option(
        "--subgroup",
        metavar="FACT",
        help="A table by this fact; can be given several times.",
        rich_help_panel=SETTINGS,
    ),
]
Seen = Annotated[
    str,
    typer.Option(
        "--seen",
        metavar="refuse|leave-out|report",
        help="What to do with patients seen in training.",
        rich_help_panel=SETTINGS,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        help="Column of the ids; by default the model's own, else recognised.",
        rich_help_panel=SETTINGS,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        help="Column of the labels; by default the one the model learned, else recognised.",
        rich_help_panel=SETTINGS,
    ),
]
