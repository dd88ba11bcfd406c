"""``medtool infer``: the door to ``medtool.verbs.infer``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtool.cli.console import Console
from medtool.cli.flags import (
    AllowDemo,
    CaseTimeout,
    Device,
    Force,
    Json,
    Output,
    Precision,
    Quiet,
    SeriesTable,
    Sources,
    Workers,
)
from medtool.cli.infer_flags import (
    By,
    Changes,
    Checkpoints,
    Continue,
    DicomSeg,
    EngineName,
    KeepPrepared,
    Mirror,
    Overlays,
    Probabilities,
    Pseudonymise,
    Region,
    Step,
)
from medtool.cli.words import command_line

if TYPE_CHECKING:
    from medtool.verbs.infer import InferResult


def command(
    sources: Sources,
    checkpoints: Checkpoints,
    output: Output,
    by: By = None,
    overlays: Overlays = False,
    dicom_seg: DicomSeg = False,
    probabilities: Probabilities = False,
    region: Region = None,
    mirror: Mirror = False,
    step: Step = None,
    assignments: Changes = None,
    pseudonymise: Pseudonymise = None,
    resume: Continue = False,
    force: Force = False,
    allow_demo: AllowDemo = False,
    series: SeriesTable = None,
    device: Device = "auto",
    precision: Precision = None,
    engine: EngineName = "",
    workers: Workers = None,
    case_timeout_s: CaseTimeout = None,
    cache: KeepPrepared = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Answer for every study in folders, files or zip archives: a table, and what is beside it."""
    from medtool.core.environment import ask_for_large_pages
    from medtool.core.errors import UsageError
    from medtool.verbs.infer import InferOptions, infer
    from medtool.verbs.options import RunOptions

    if by not in (None, "case", "patient"):
        raise UsageError("There is no such way to answer.", met=f"--by {by}", wanted="case|patient")
    console = Console(quiet=quiet)
    ask_for_large_pages()
    result = infer(
        InferOptions(
            sources=tuple(sources),
            checkpoint=checkpoints[0],
            more_checkpoints=tuple(checkpoints[1:]),
            output=output,
            by=by,  # type: ignore[arg-type]
            overlays=overlays,
            dicom_seg=dicom_seg,
            assignments=(
                *(assignments or ()),
                *(["infer.probabilities=true"] if probabilities else []),
                *(["infer.mirror=true"] if mirror else []),
                *([f"infer.step={step}"] if step is not None else []),
                *([f"infer.region_checkpoint={region}"] if region is not None else []),
            ),
            pseudonymise=pseudonymise,
            allow_demo=allow_demo,
            resume=resume,
            force=force,
            series=series,
            case_timeout_s=case_timeout_s,
            engine=engine,
            run=RunOptions(device=device, precision=precision, workers=workers, cache=cache),
            command=command_line(),
        ),
        console,
    )
    _show(result, console, as_json=as_json)
    return int(result.status)


def _show(result: InferResult, console: Console, *, as_json: bool) -> None:
    """The rows as JSON, or where the table lies and how many were answered."""
    from medtool import RESEARCH_NOTICE

    if as_json:
        console.json(
            {
                "table": str(result.table),
                "ok": result.ok,
                "refused": result.refused,
                "failed": result.failed,
                "rows": [dict(row) for row in result.rows],
            }
        )
    else:
        console.result(str(result.table))
        console.say(
            f"{result.ok} answered, {result.refused} refused, {result.failed} failed. "
            + RESEARCH_NOTICE
        )
