"""``train --until``: the first steps of a training alone, so that its plan can be looked at."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from medtool.config import resolve
from medtool.core.errors import UsageError
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter, Silent
from medtool.core.registry import load_task
from medtool.core.task import Task
from medtool.verbs.planning import KeptPlan

if TYPE_CHECKING:
    from medtool.verbs.train_options import TrainOptions

Step = Literal["plan", "prepare"]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True)
class Stopped:
    """What is there now: the plan (None where nothing is planned), and what was prepared."""

    step: Step
    fold: int | None
    plan: KeptPlan | None
    cache: Path
    prepared: int = 0
    reused: int = 0
    failures: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "until": self.step,
            "fold": self.fold,
            "plan": "" if self.plan is None else str(self.plan.file),
            "preset": "" if self.plan is None else str(self.plan.preset),
            "cache": str(self.cache),
            "prepared": self.prepared,
            "reused": self.reused,
            "failures": self.failures,
        }


def train_until(
    step: str, options: TrainOptions, reporter: Reporter | None = None
) -> tuple[Stopped, ...]:
    """Plan, or plan and prepare, as ``train`` with these options would; one result a fold.

    No run is begun. Raises what ``train`` raises, and UsageError for a step that the task does
    not have.
    """
    reporter = reporter or Silent()
    known = _known_step(step)
    _refuse_runs(options, known)
    task_class = load_task(options.task) if isinstance(options.task, str) else options.task
    if known == "plan" and task_class.planned is Task.planned:
        raise UsageError(
            f"The task '{task_class.name}' plans nothing: its presets say everything.",
            met="--until plan",
            wanted="--until prepare",
        )
    return tuple(_stopped(known, task_class, one, reporter) for one in _folds(options))


def next_line(options: TrainOptions, task: str) -> str:
    """The command that goes on: the same without ``--until``."""
    words = iter(shlex.split(options.command) or ["medtool", "train", task])
    kept = []
    for word in words:
        if word == "--until":
            next(words, None)
        elif not word.startswith("--until="):
            kept.append(word)
    return shlex.join(kept)


def _known_step(step: str) -> Step:
    for known in STEPS:
        if step == known:
            return known
    raise UsageError(
        "A training does not stop there.",
        met=f"--until {step}",
        wanted="one of: " + ", ".join(STEPS),
        nearest=nearest_name(step, STEPS),
    )


def _refuse_runs(options: TrainOptions, step: Step) -> None:
    """A run that has begun has its plan; several machines have nothing to share yet."""
    if options.resume is not None:
        raise UsageError(
            "A run that has begun is planned and prepared.",
            met=f"--resume with --until {step}",
            how="leave out one of the two.",
        )
    if options.run.nodes > 1:
        raise UsageError(
            "Planning and preparing is the work of one machine.",
            met=f"--nodes {options.run.nodes} with --until {step}",
            how="run it once without --nodes, in a folder that all share.",
        )


def _folds(options: TrainOptions) -> Iterator[TrainOptions]:
    """The options of each fold that is asked for: held-out cases have no say in its plan."""
    if options.run.folds is None or options.run.fold is not None:
        yield options
        return
    for fold in range(options.run.folds):
        yield replace(options, run=replace(options.run, fold=fold))


def _stopped(
    step: Step, task_class: type[Task], options: TrainOptions, reporter: Reporter
) -> Stopped:
    from medtool.verbs.train_prepare import pass_gate, planned_data, prepared_data

    assignments: Sequence[str] = (*options.assignments, *options.run.assignments())
    resolved = resolve(task_class, options.preset, folder=options.folder, assignments=assignments)
    task = task_class(resolved.settings)
    data, cache, _, kept = planned_data(task, resolved, options, None, reporter)
    stopped = Stopped(step, options.run.fold, kept, cache.folder)
    if step == "plan":
        return stopped
    data, report, facts = prepared_data(data, cache, options, reporter)
    pass_gate(data, facts, options, reporter)
    return replace(
        stopped,
        prepared=len(report.paths),
        reused=len(report.reused),
        failures=len(report.failures),
    )
