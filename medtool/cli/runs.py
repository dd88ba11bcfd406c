"""``medtool runs``: the door to ``medtool.verbs.runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medtool.cli.console import Console
from medtool.cli.flags import Json, Quiet

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER]",
        help="Where to look; by default the runs of this folder.",
        show_default=False,
    ),
]
HEADINGS = ("run", "task", "preset", "state", "epochs", "metric")


def command(folder: Folder = None, as_json: Json = False, quiet: Quiet = False) -> int:
    """List runs, each with its metric, interval and what the number is worth."""
    from medtool.config import project_paths
    from medtool.core.errors import ExitStatus, UsageError
    from medtool.verbs.runs import list_runs

    console = Console(quiet=quiet)
    root = folder if folder is not None else project_paths().runs
    if not root.is_dir():
        raise UsageError(
            "There are no runs here.",
            where=str(root),
            wanted="a folder of runs",
            how="'medtool train' makes one.",
        )
    lines = list_runs(root)
    if as_json:
        console.json([line.as_dict() for line in lines])
        return int(ExitStatus.DONE)
    rows = [HEADINGS, *(_row(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.result("  ".join(cells).rstrip())
    if not lines:
        console.say(f"No run below {root}.")
    return int(ExitStatus.DONE)


def _row(line: Any) -> tuple[str, ...]:
    score = ""
    if line.value is not None:
        score = f"{line.metric} {line.value:.3f}"
        if line.low is not None and line.high is not None:
            score += f" ({line.low:.3f} to {line.high:.3f})"
        note = line.optimistic or line.part
        score += f", n = {line.n}, {note}{', synthetic data' if line.synthetic else ''}"
    return (line.run, line.task, line.preset, line.state, str(line.epochs), score)
