"""``train``: from a folder of scans and labels to a model, its scores and a report."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.config import Resolved, changed_task, resolve
from medtool.core.checkpoint import LAST_NAME, find_checkpoint
from medtool.core.errors import Interrupted, OutputExistsError, UsageError
from medtool.core.names import safe_file_stem
from medtool.core.progress import Reporter, Silent
from medtool.core.registry import load_task
from medtool.data.locks import alone
from medtool.data.run_folder import RunFolder, fold_name
from medtool.verbs.train_again import settings_of_begin, settings_of_run
from medtool.verbs.train_options import TrainOptions, TrainResult

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.train.nodes import Link

__all__ = ["TrainOptions", "TrainResult", "train"]


def train(options: TrainOptions, reporter: Reporter | None = None) -> TrainResult:
    """Train, score and report; see docs/outputs.md for the files.

    Raises UsageError and its kinds (wrong preset, labels, too few patients), InputError (nothing
    to learn from), LeakageError, MachineError (device, disk), Interrupted (stopped; can resume).
    """
    reporter = reporter or Silent()
    if options.run.nodes == 1:
        return _whole(options, reporter, None)
    from medtool.verbs.train_nodes import train_on_nodes

    return train_on_nodes(options, lambda link: _whole(options, reporter, link))


def _whole(options: TrainOptions, reporter: Reporter, link: Link | None) -> TrainResult:
    """All that one command asks for; ``link`` leads to the processes of other nodes."""
    if options.run.folds is not None and options.run.fold is None and options.resume is None:
        return _every_fold(options, reporter, link)
    return _one_run(options, reporter, link)


def _every_fold(options: TrainOptions, reporter: Reporter, link: Link | None) -> TrainResult:
    """One fold after another, into one folder; the last one joins their scores."""
    name = options.run.run or _time_name()
    result = None
    failed: frozenset[str] = frozenset()
    for fold in range(options.run.folds or 0):
        reporter.say(f"Fold {fold} of {options.run.folds}, counted from 0.")
        run = replace(options.run, run=name, fold=fold)
        result = _one_run(replace(options, run=run), reporter, link)
        failed |= result.failed
    if result is None:
        raise UsageError("There are no folds.", met=f"--folds {options.run.folds}")
    return replace(result, failed=failed)


def _one_run(options: TrainOptions, reporter: Reporter, link: Link | None) -> TrainResult:
    started, clock = datetime.now(UTC), time.perf_counter()
    task_class = load_task(options.task) if isinstance(options.task, str) else options.task
    resolved = resolve(
        task_class, options.preset, folder=options.folder, assignments=options.all_assignments()
    )
    run, resume = _place(options, resolved, task_class.name)
    if resume is not None:
        resolved = settings_of_run(task_class, resolved, resume, options)
        reporter.say(f"Resuming {run.path} from {resume.name}.")
    else:
        resolved = settings_of_begin(task_class, resolved, run, options)
    task = task_class(resolved.settings)
    try:
        with alone(run.path):
            return _learned(task, resolved, options, run, resume, reporter, started, clock, link)
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted; what was finished is kept.",
            where=str(run.path),
            how=_how_to_go_on(options, run, task_class.name),
        ) from None


def _how_to_go_on(options: TrainOptions, run: RunFolder, task: str) -> str:
    """The words that go on with a run, whose name may be one that nobody gave it."""
    if options.run.fold is None and (run.checkpoints_folder / LAST_NAME).is_file():
        return f"medtool train {task} --resume {run.path}"
    name = run.path.name if options.run.fold is None else run.path.parent.name
    return f"the same command with --run {name} --start-or-resume."


def _learned(
    task: Task,
    resolved: Resolved,
    options: TrainOptions,
    run: RunFolder,
    resume: Path | None,
    reporter: Reporter,
    started: datetime,
    clock: float,
    link: Link | None,
) -> TrainResult:
    if options.fetch:
        from medtool.verbs.fetch import FetchOptions, fetch

        fetch(
            FetchOptions(
                task=task.name,
                preset=options.preset,
                assignments=options.assignments,
                folder=options.folder,
            ),
            reporter,
        )

    from medtool.verbs.train_prepare import make_ready

    ready = make_ready(task, resolved, options, run, resume, reporter, started=started)
    from medtool.verbs.train_learn import start_learning

    learned = start_learning(ready, options, run, reporter, link)
    run.second_names.names.update(learned.second_names)
    if learned.stopped:
        raise Interrupted(
            "Stopped; everything learned so far is saved.",
            where=str(run.path),
            how=_how_to_go_on(options, run, task.name),
        )

    _train_baselines(ready.order.task, resolved, options, run, reporter, link)
    from medtool.verbs.train_finish import finish

    return finish(ready, options, run, reporter, clock=clock)


def _train_baselines(
    task: Task,
    resolved: Resolved,
    options: TrainOptions,
    run: RunFolder,
    reporter: Reporter,
    link: Link | None,
) -> None:
    """What a run is to be compared with: each a run in its folder, on the same parts.

    A baseline that has its scores already is left as it is.
    """
    from medtool.train.keeper import resume_point

    for name, assignments in task.baselines().items():
        own = RunFolder(run.baselines_folder / name)
        if own.scores_file.is_file():
            continue
        reporter.say(f"Baseline: {name}, with {', '.join(assignments)}.")
        changed = changed_task(task, assignments)
        begun = (own.checkpoints_folder / LAST_NAME).is_file()
        try:
            _learned(
                changed,
                replace(resolved, settings=changed.settings),
                replace(options, fetch=False, resume=None),
                own,
                resume_point(own) if begun else None,
                reporter,
                datetime.now(UTC),
                time.perf_counter(),
                link,
            )
        except Interrupted as error:
            error.how = _how_to_go_on(options, run, task.name)
            raise


def _time_name() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")


def _place(options: TrainOptions, resolved: Resolved, task: str) -> tuple[RunFolder, Path | None]:
    """The run's folder, and the checkpoint from which it goes on, if it does."""
    from medtool.train.keeper import resume_point

    if options.resume is not None:
        return _resumed_place(options.resume)
    name = safe_file_stem(options.run.run or _time_name())
    path = resolved.paths.runs / task / name
    if options.run.fold is not None:
        path = path / fold_name(options.run.fold)
    run = RunFolder(path)
    if not run.exists():
        return run, None
    if not options.start_or_resume:
        raise OutputExistsError(
            "There is a run of this name.",
            where=str(path),
            how="--start-or-resume goes on with it; --run OTHER begins another.",
        )
    if not (run.checkpoints_folder / LAST_NAME).is_file():
        # Killed before the first epoch was over: begin again, with the parts that were dealt.
        return run, None
    return run, resume_point(run)


def _resumed_place(path: Path) -> tuple[RunFolder, Path | None]:
    from medtool.train.keeper import resume_point

    if path.is_dir():
        run = RunFolder(path)
        if not run.exists():
            raise UsageError(
                "There is no run in this folder.",
                where=str(path),
                wanted="a folder that 'medtool train' made",
                how="'medtool runs' lists the runs below a folder.",
            )
        return run, resume_point(run)
    checkpoint, _ = find_checkpoint(path)
    run = RunFolder(checkpoint.parent.parent)
    if not run.exists():
        raise UsageError(
            "This checkpoint does not lie in the folder of its run.",
            where=str(checkpoint),
            wanted="runs/TASK/NAME/checkpoints/...",
        )
    return run, checkpoint
