"""``medtool demo``: the door to ``medtool.verbs.demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console, span
from medtool.cli.flags import Device, Force, Json, Quiet, Seed, Task, Workers


def command(
    task: Task,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for the cohort and what comes of it.")
    ],
    seed: Seed = None,
    force: Force = False,
    as_json: Json = False,
    device: Device = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> int:
    """Write a synthetic cohort into DIR and run the main commands on it; ends with the report."""
    from medtool.core.environment import ask_for_large_pages
    from medtool.verbs.demo import DemoOptions, demo
    from medtool.verbs.options import RunOptions

    console = Console(quiet=quiet)
    # It answers in the process that learned.
    ask_for_large_pages()
    result = demo(
        DemoOptions(
            task=task,
            folder=folder,
            seed=seed or 0,
            force=force,
            run=RunOptions(device=device, workers=workers),
        ),
        console,
    )
    if as_json:
        console.json(result.as_dict())
    else:
        console.say("")
        console.say(
            f"All of it took {span(sum(step.seconds for step in result.steps))}. Synthetic scans: "
            "this model says nothing about patients. The report:"
        )
        console.result(str(result.report))
    return int(result.status)
