"""``medtool fetch``: the door to ``medtool.verbs.fetch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli.console import Console
from medtool.cli.flags import Force, Json, Preset, Quiet, Set, Task


def command(
    task: Task,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE",
            help="Carry weights to a machine without network: written where FILE does not exist, "
            "read where it does.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Take this file in place of the hub's."),
    ] = None,
    preset: Preset = None,
    assignments: Set = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch the weights that a task's preset starts from; nothing else goes over the network.

    They are kept below ~/.medtool/weights (model.weights.folder), with revision, hash, licence.
    """
    from medtool.verbs.fetch import FetchOptions, fetch

    console = Console(quiet=quiet)
    options = FetchOptions(
        task=task,
        preset=preset,
        assignments=tuple(assignments or ()),
        bundle=bundle,
        file=file,
        force=force,
    )
    result = fetch(options, console)
    if as_json:
        console.json(result.as_dict())
        return
    record = result.record
    console.result(f"weights   {result.file}" + (" (already there)" if result.was_there else ""))
    console.result(f"from      {record.file} of {record.repository} at {record.revision}")
    console.result(f"revision  {record.resolved_revision or 'unknown: a file of this machine'}")
    console.result(f"sha256    {record.tensors_sha256} (tensors)")
    console.result(f"licence   {record.licence_text()}")
    if result.bundle:
        console.result(f"bundle    {result.bundle}")
