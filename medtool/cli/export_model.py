"""``medtool export``: the door to ``medtool.verbs.export_model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console
from medtool.cli.flags import OUTPUT, Force, Json, Quiet

Program = Annotated[
    str, typer.Argument(metavar="PROGRAM", help="Who is to answer: nnunet (nnU-Net v2).")
]
Source = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a run's folder: its best one."),
]
Target = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Where it is written: for nnU-Net the folder nnUNet_results.",
        rich_help_panel=OUTPUT,
    ),
]
Dataset = Annotated[
    str,
    typer.Option("--dataset", metavar="NAME", help="Its data set, such as Dataset007_Organ."),
]


def command(
    program: Program,
    checkpoint: Source,
    output: Target,
    dataset: Dataset = "",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a model with which another program answers."""
    from medtool.verbs.export_model import ExportOptions, export_model

    console = Console(quiet=quiet)
    result = export_model(
        ExportOptions(program, checkpoint, output, dataset=dataset, force=force), console
    )
    if as_json:
        console.json(result.as_dict())
        return
    console.result(str(result.folder))
    console.say(f"Answer there with: {result.command}")
