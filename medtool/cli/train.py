"""``medtool train``: the door to ``medtool.verbs.train``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtool.cli.console import Console
from medtool.cli.flags import (
    Cache,
    CaseTimeout,
    Data,
    Device,
    Devices,
    Fold,
    Folds,
    Json,
    Keep,
    Labels,
    Minutes,
    Nodes,
    Precision,
    Preset,
    Quiet,
    Run,
    Seed,
    SeriesTable,
    Set,
    Task,
    Workers,
)
from medtool.cli.train_flags import (
    AllowLeak,
    Fetch,
    FromScratch,
    Resume,
    Slim,
    StartOrResume,
    Until,
)
from medtool.cli.words import command_line

if TYPE_CHECKING:
    from medtool.verbs.train_options import TrainOptions


def command(
    task: Task,
    preset: Preset = None,
    data: Data = None,
    labels: Labels = None,
    assignments: Set = None,
    run: Run = None,
    series: SeriesTable = None,
    folds: Folds = None,
    fold: Fold = None,
    minutes: Minutes = None,
    seed: Seed = None,
    from_scratch: FromScratch = False,
    fetch: Fetch = False,
    allow_leak: AllowLeak = None,
    until: Until = None,
    resume: Resume = None,
    start_or_resume: StartOrResume = False,
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = None,
    workers: Workers = None,
    case_timeout_s: CaseTimeout = None,
    cache: Cache = None,
    keep: Keep = None,
    slim: Slim = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train on a folder of scans with labels; ends with scores, a report and the infer line."""
    from medtool.core.errors import ExitStatus
    from medtool.verbs.options import RunOptions
    from medtool.verbs.train import TrainOptions, train

    console = Console(quiet=quiet)
    options = RunOptions(
        run, cache, device, devices, nodes, precision, workers, minutes, folds, fold, seed, keep
    )
    asked = TrainOptions(
        task=task,
        preset=preset,
        data=data,
        labels=labels,
        assignments=tuple(assignments or ()),
        series=series,
        allow_leak=tuple(allow_leak or ()),
        from_scratch=from_scratch,
        fetch=fetch,
        resume=resume,
        start_or_resume=start_or_resume,
        slim=slim,
        case_timeout_s=case_timeout_s,
        run=options,
        command=command_line(),
    )
    if until is not None:
        return _until(until, asked, console, as_json=as_json)
    result = train(asked, console)
    if result.first and as_json:
        console.json(result.as_dict())
    elif result.first:
        console.say(f"Report: {result.report}")
        console.result(result.infer_line)
    return int(ExitStatus.SOME_CASES_FAILED if result.failures else ExitStatus.DONE)


def _until(step: str, options: TrainOptions, console: Console, *, as_json: bool) -> int:
    """The first steps of a training alone: what was decided, where it lies, what comes next."""
    from medtool.cli.console import table
    from medtool.core.errors import ExitStatus
    from medtool.verbs.train_until import next_line, train_until

    found = train_until(step, options, console)
    line = next_line(options, str(options.task))
    if as_json:
        console.json({"stopped": [one.as_dict() for one in found], "next": line})
    for one in found:
        fold = "" if one.fold is None else f" of fold {one.fold}"
        if one.plan is not None and not as_json:
            console.say(table([("Decided", "Value", "Why"), *one.plan.decisions]))
            console.result(str(one.plan.file))
            console.say(
                f"To change the plan{fold}, give a changed copy of {one.plan.preset} as --preset."
            )
        elif one.plan is None and step == "plan":
            console.say("The preset fixes everything: there was nothing to plan.")
        if step == "prepare" and not as_json:
            console.result(str(one.cache))
            console.say(f"{one.prepared} cases{fold} are ready ({one.reused} were before).")
    console.say(f"Next: {line}")
    failures = sum(one.failures for one in found)
    return int(ExitStatus.SOME_CASES_FAILED if failures else ExitStatus.DONE)
