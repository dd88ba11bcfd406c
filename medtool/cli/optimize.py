"""``medtool optimize``: the door to ``medtool.verbs.optimize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console
from medtool.cli.flags import (
    SETTINGS,
    Cache,
    Device,
    Force,
    Json,
    Quiet,
    Seed,
    Workers,
)

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
        help="The folder of the optimised model.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the data; by default that of the run."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Table of labels; by default the run's, else the one labels*.csv of the data.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="DIR",
        help="Scans to calibrate on, and for nothing else; by default the training part's.",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="int8|openvino|litert|float16|weights8",
        help="A file to make beside the float one; can be given several times.",
        rich_help_panel=SETTINGS,
    ),
]
Prune = Annotated[
    str | None,
    typer.Option(
        "--prune",
        metavar="NAME|FILE",
        help="Take channels out first, as optimize.prune of this preset says, and train again.",
        rich_help_panel=SETTINGS,
    ),
]
LitertPython = Annotated[
    Path | None,
    typer.Option(
        "--litert-python",
        metavar="FILE",
        help="Python of the environment that has litert-torch, for --format litert.",
        rich_help_panel=SETTINGS,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="SHARE",
        help="By how much a metric may fall; by default 0.005 for Dice and AUROC, 0.01 for "
        "Harrell's C and macro F1.",
        rich_help_panel=SETTINGS,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of optimize, as optimize.measure_runs=9; can be given several times.",
        rich_help_panel=SETTINGS,
    ),
]


def command(
    checkpoint: Source,
    output: Target,
    data: Data = None,
    labels: Labels = None,
    calibration: Calibration = None,
    formats: Formats = None,
    prune: Prune = None,
    litert_python: LitertPython = None,
    tolerance: Tolerance = None,
    assignments: Changes = None,
    seed: Seed = None,
    force: Force = False,
    device: Device = "auto",
    workers: Workers = None,
    cache: Cache = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a model smaller and faster; write it only where it is measured to be as good."""
    from medtool.verbs.optimize import optimize
    from medtool.verbs.optimize_options import OptimizeOptions
    from medtool.verbs.options import RunOptions

    console = Console(quiet=quiet)
    result = optimize(
        OptimizeOptions(
            checkpoint=checkpoint,
            output=output,
            data=data,
            labels=labels,
            calibration=calibration,
            formats=tuple(formats or ()),
            prune=prune,
            litert_python=litert_python,
            tolerance=tolerance,
            assignments=tuple(assignments or ()),
            force=force,
            run=RunOptions(device=device, workers=workers, cache=cache, seed=seed),
        ),
        console,
    )
    if as_json:
        console.json(dict(result.document))
        return
    console.result(str(result.folder))
    console.say(f"Report: {result.report}")
    console.say(f"Answer with: medtool infer SCANS --checkpoint {result.folder} -o OUT")
