"""``medtool bench``: the door to ``medtool.verbs.bench``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from medtool.cli.console import Console, table
from medtool.cli.flags import OUTPUT, RUNNING, Force, Json, Quiet

Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL...", help="Checkpoints, runs, optimised folders or files in them."
    ),
]
Scans = Annotated[
    list[Path] | None,
    typer.Option("--source", metavar="SCANS", help="Also time the way from scans to a table."),
]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", metavar="NAME", help="Only this engine; can be given several times."),
]
Threads = Annotated[
    list[int] | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="So many threads; several times for several. By default 1, 2, 4, ... up to all.",
        rich_help_panel=RUNNING,
    ),
]
Batches = Annotated[
    list[int] | None,
    typer.Option(
        "--batch",
        metavar="N",
        help="So many images in one call; several times for several. By default 1 and 8.",
        rich_help_panel=RUNNING,
    ),
]
Runs = Annotated[
    int,
    typer.Option(
        "--runs", metavar="N", help="Calls that are timed each time.", rich_help_panel=RUNNING
    ),
]
Memory = Annotated[
    bool,
    typer.Option("--memory/--no-memory", help="Measure memory.", rich_help_panel=RUNNING),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        help="Also PyTorch as torch.compile makes it, which takes a minute.",
        rich_help_panel=RUNNING,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Also write bench.json and a plot, bench.svg, there.",
        rich_help_panel=OUTPUT,
    ),
]
HEADINGS = ("way", "file", "MB", "threads", "batch", "ms (quartiles)", "images/s", "faster", "peak")
FILE_HEADINGS = ("from file to file", "file", "studies", "s each")


def command(
    models: Models,
    source: Scans = None,
    engine: Engines = None,
    output: Output = None,
    force: Force = False,
    threads: Threads = None,
    batch: Batches = None,
    runs: Runs = 50,
    memory: Memory = True,
    compiled: Compile = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time a model in every engine that is installed here; nothing is judged."""
    from medtool.optimize.processor import processor_text
    from medtool.verbs.bench import BenchOptions, bench

    console = Console(quiet=quiet)
    result = bench(
        BenchOptions(
            models=tuple(models),
            sources=tuple(source or ()),
            engines=tuple(engine or ()),
            threads=tuple(threads or ()),
            batches=tuple(batch or ()),
            runs=runs,
            memory=memory,
            compiled=compiled,
            output=output,
            force=force,
        ),
        console,
    )
    if as_json:
        console.json(result.as_dict())
        return
    console.say(processor_text())
    many = len(models) > 1
    console.result(table([HEADINGS, *(_cells(row, many=many) for row in result.rows)]))
    if result.from_files:
        console.result("")
        rows = [_file_cells(row, many=many) for row in result.from_files]
        console.result(table([FILE_HEADINGS, *rows]))


def _file(row: Mapping[str, Any], *, many: bool) -> str:
    """The file, of several models with the one that it belongs to."""
    return f"{row['file']} of {row['model']}" if many else str(row["file"])


def _cells(row: Mapping[str, Any], *, many: bool) -> tuple[str, ...]:
    size = f"{row['bytes'] / 1e6:.1f}"
    known = (row["name"], _file(row, many=many), size, str(row["threads"]), str(row["batch"]))
    if row["per_second"] is None:
        return (*known, f"not measured: {row['why_not']}", "", "", "")
    low, high = row["quartiles_ms"]
    faster, peak = row["times_faster"], row.get("peak_bytes")
    return (
        *known,
        f"{row['median_ms']:.1f} ({low:.1f} to {high:.1f})",
        f"{row['per_second']:.1f}",
        "" if faster is None else f"{faster:.2f} x",
        "" if not peak else f"{peak / 1e6:.0f} MB",
    )


def _file_cells(row: Mapping[str, Any], *, many: bool) -> tuple[str, ...]:
    measured = row["seconds"] is not None
    took = str(row["seconds_each"]) if measured else f"not measured: {row['why_not']}"
    studies = f"{row['answered']} of {row['studies']}"
    return row["name"], _file(row, many=many), studies, took
