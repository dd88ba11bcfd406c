"""``medtool import``: the door to ``medtool.verbs.import_model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console
from medtool.cli.flags import OUTPUT, Force, Json, Quiet

Program = Annotated[
    str, typer.Argument(metavar="PROGRAM", help="What trained the model: nnunet (nnU-Net v2).")
]
Folder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL_FOLDER",
        help="The folder of the model: of nnU-Net TRAINER__PLANS__CONFIGURATION.",
    ),
]
Target = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE", help="The checkpoint to write.", rich_help_panel=OUTPUT
    ),
]
Which = Annotated[
    str,
    typer.Option(
        "--checkpoint", metavar="final|best", help="Which of the checkpoints of each fold."
    ),
]
OnlyFolds = Annotated[
    list[str] | None,
    typer.Option(
        "--fold",
        metavar="k|all",
        help="Only this fold; can be given several times. By default all, as one model.",
    ),
]
ForTask = Annotated[
    str | None,
    typer.Option("--task", metavar="TASK", help="The task to import for; by default the one."),
]


def command(
    program: Program,
    folder: Folder,
    output: Target,
    checkpoint: Which = "final",
    folds: OnlyFolds = None,
    task: ForTask = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a model that another program trained into a checkpoint, running none of its code."""
    from medtool.core.errors import UsageError
    from medtool.core.names import counted
    from medtool.verbs.import_model import ImportOptions, import_model

    if checkpoint not in ("final", "best"):
        raise UsageError(
            "There is no such checkpoint.", met=f"--checkpoint {checkpoint}", wanted="final|best"
        )
    console = Console(quiet=quiet)
    result = import_model(
        ImportOptions(
            program=program,
            folder=folder,
            output=output,
            checkpoint=checkpoint,  # type: ignore[arg-type]
            folds=tuple(folds or ()),
            task=task,
            force=force,
        ),
        console,
    )
    if as_json:
        console.json(result.as_dict())
        return
    console.result(str(result.file))
    console.say(
        f"{counted(len(result.models), 'model')} for the task {result.task}. "
        f"Answer with: medtool infer SOURCE --checkpoint {result.file} -o answers"
    )
