"""``medtool inspect-checkpoint``: the door to ``medtool.verbs.inspect_checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console
from medtool.cli.flags import Force, Json, Quiet

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a run's folder: its best one."),
]
Other = Annotated[
    Path | None,
    typer.Argument(metavar="[OTHER]", help="A second one: show what differs.", show_default=False),
]
Verify = Annotated[bool, typer.Option("--verify", help="Hash every tensor again.")]
Layers = Annotated[bool, typer.Option("--layers", help="List every layer with its shapes.")]
Slim = Annotated[
    Path | None,
    typer.Option("--slim", metavar="FILE", help="Write a copy without what only training needs."),
]


def command(
    checkpoint: Checkpoint,
    other: Other = None,
    verify: Verify = False,
    layers: Layers = False,
    slim: Slim = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Say what a model is: task, layers, metrics, data, weights, licence, hashes."""
    from medtool.core.errors import CheckpointError, ExitStatus
    from medtool.verbs.inspect_checkpoint import inspect_checkpoint, write_slim

    console = Console(quiet=quiet)
    inspection = inspect_checkpoint(checkpoint, other, verify=verify)
    if as_json:
        console.json(inspection.as_dict())
    else:
        from medtool.verbs.inspection_text import inspection_lines

        console.result("\n".join(inspection_lines(inspection, all_layers=layers)))
    if inspection.damaged:
        raise CheckpointError(
            "This checkpoint is damaged.",
            where=str(inspection.path),
            met=", ".join(inspection.damaged[:5]) + " differ from what was written"
            if inspection.optimised is not None
            else f"{len(inspection.damaged)} tensors differ from what was written",
            how="copy it again from where it came from.",
        )
    if slim is not None:
        write_slim(inspection, slim, force=force)
        console.say(f"Written: {slim}")
    return int(ExitStatus.DONE)
