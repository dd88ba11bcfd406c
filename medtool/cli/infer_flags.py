"""Options of ``medtool infer`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.flags import RUNNING

Checkpoints = Annotated[
    list[Path],
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="FILE|RUN",
        help="A checkpoint, or a run: its best one, or all its folds. Several answer together."
        " Or an optimised model: its folder, or a file in it.",
    ),
]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="case|patient", help="One answer a study, or one a patient."),
]
Overlays = Annotated[
    bool, typer.Option("--overlays", help="Also write pictures of what an answer rests on.")
]
DicomSeg = Annotated[
    bool,
    typer.Option("--dicom-seg", help="Also write masks as DICOM SEG, on the slices of the series."),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME|auto",
        help="What computes an optimised model: onnxruntime, openvino, litert; auto measures them.",
        rich_help_panel=RUNNING,
    ),
]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="Also write the probability of each label.")
]
Region = Annotated[
    Path | None,
    typer.Option(
        "--region",
        metavar="FILE|RUN",
        help="A coarse model that is asked first: look closely only around what it finds.",
    ),
]
Mirror = Annotated[
    bool, typer.Option("--mirror", help="Average over mirrored inputs: slower, a little better.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of infer, as infer.batch_windows=4; can be given several times.",
    ),
]
Step = Annotated[
    float | None,
    typer.Option("--step", metavar="SHARE", help="From window to window, as a share of a window."),
]
Pseudonymise = Annotated[
    Path | None,
    typer.Option(
        "--pseudonymise",
        metavar="KEYFILE",
        help="Replace every id and UID by a keyed hash; the key is made there when missing.",
    ),
]
Continue = Annotated[bool, typer.Option("--continue", help="Finish a run that was cut off.")]
KeepPrepared = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keep prepared studies here; by default none is kept.",
        rich_help_panel=RUNNING,
    ),
]
