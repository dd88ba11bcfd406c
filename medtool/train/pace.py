"""How long a run will take, measured on its own network and cases before it begins.

Steps are timed on a copy of the network for every stage, since a stage that trains more costs
more. The measurement is done once: what follows from it is fixed in the plan.
"""

from __future__ import annotations

import copy
import time
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from medtool.core.records import ExampleKey
from medtool.train.live import Live
from medtool.train.loader import BatchLoader, batch_to_device
from medtool.train.loop import Job, take_step
from medtool.train.plan import Plan
from medtool.train.sampler import Step

# The first step pays for memory and threads; later ones are what a run is made of.
TIMED_STEPS = 3
# A step longer than this is measured once: what it pays for at first is small beside it.
LONG_STEP_S = 5.0
TIMED_VALIDATIONS = 2
# Of the time that was given: the rest is for saving, scoring and the report.
SHARE_FOR_TRAINING = 0.9


@dataclass(frozen=True)
class Pace:
    """Seconds of one step in each stage, and of validating one case."""

    step_s: tuple[float, ...]
    validate_case_s: float
    selection_cases: int

    def epoch_s(self, plan: Plan, epoch: int) -> float:
        """Seconds of one epoch with its validation."""
        stage = plan.stage_index(epoch)
        return plan.steps_per_epoch * self.step_s[stage] + self.validation_s()

    def validation_s(self) -> float:
        """Seconds of one pass over the selection part."""
        return self.selection_cases * self.validate_case_s

    def run_s(self, plan: Plan) -> float:
        """Seconds of all epochs."""
        ends = [stage.from_epoch for stage in plan.stages[1:]] + [plan.epochs]
        return sum(
            (end - stage.from_epoch) * self.epoch_s(plan, stage.from_epoch)
            for stage, end in zip(plan.stages, ends, strict=True)
        )

    def as_document(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return asdict(self)


def measure_pace(job: Job, live: Live, *, selection_cases: int) -> Pace:
    """Time a few batches in each stage and a few validations; ``live`` does not change.

    ``job`` may hold a sample of the cases: they are taken again and again. ``selection_cases`` is
    how many the run will validate on.
    """
    step_s = tuple(_step_s(job, _trial(job, live, n)) for n in range(len(live.plan.stages)))
    return Pace(step_s, _validate_case_s(job, live), selection_cases)


def _trial(job: Job, live: Live, stage: int) -> Live:
    network = copy.deepcopy(live.network)
    trial = Live(network, job.task.groups(network), live.train, live.plan)
    trial.epoch = live.plan.stages[stage].from_epoch
    trial.enter_stage()
    trial.train_mode()
    return trial


def _step_s(job: Job, trial: Live) -> float:
    """Seconds of one step of the optimiser: of one batch, times those that are accumulated."""
    examples = job.task.examples(job.training, job.prepared, training=True)
    keys = tuple(
        ExampleKey(trial.train.seed, trial.epoch, number % len(job.training))
        for number in range(trial.train.batch_cases)
    )
    seconds: list[float] = []
    while len(seconds) < TIMED_STEPS and (not seconds or seconds[-1] < LONG_STEP_S):
        batches = BatchLoader(examples, job.training).batches([keys])
        began = time.perf_counter()
        loading_s = take_step(job, trial, Step((keys,), len(keys)), batches)
        _synchronise(job)
        computing_s = time.perf_counter() - began - loading_s
        # Workers load while the network computes.
        both = max(computing_s, loading_s / job.workers) if job.workers else computing_s + loading_s
        seconds.append(both)
    return min(seconds) * trial.train.accumulate


def _validate_case_s(job: Job, live: Live) -> float:
    if not job.selection:
        return 0.0
    examples = job.task.examples(job.selection, job.prepared, training=False)
    network = copy.deepcopy(live.network).eval()
    keys = [
        (ExampleKey(live.train.seed, 0, number % len(job.selection)),)
        for number in range(TIMED_VALIDATIONS)
    ]
    began = time.perf_counter()
    with torch.no_grad(), job.fabric.autocast():
        for batch in BatchLoader(examples, job.selection).batches(keys):
            job.task.validate(network, batch_to_device(batch, job.fabric.device))
    _synchronise(job)
    return (time.perf_counter() - began) / TIMED_VALIDATIONS


def _synchronise(job: Job) -> None:
    if job.fabric.device.type == "cuda":
        torch.cuda.synchronize(job.fabric.device)


def fit_to_minutes(plan: Plan, pace: Pace, minutes: float) -> Plan:
    """``plan`` with as many of its epochs as fit into ``minutes``, never more than it has.

    Stages shrink in proportion, each keeping at least one epoch; where not even one epoch for
    each fits, epochs lose steps (at least one stays).
    """
    budget_s = minutes * 60.0 * SHARE_FOR_TRAINING
    # The most epochs that fit; False sorts before True, so that bisect finds where it stops.
    candidates = range(len(plan.stages), plan.epochs + 1)
    fitting = bisect_left(
        candidates, True, key=lambda epochs: pace.run_s(plan.shortened(epochs)) > budget_s
    )
    if fitting:
        return replace(plan.shortened(candidates[fitting - 1]), minutes=minutes)
    shortest = plan.shortened(len(plan.stages))
    for_steps_s = budget_s - shortest.epochs * pace.validation_s()
    steps = int(for_steps_s / sum(pace.step_s)) if for_steps_s > 0 else 0
    return replace(shortest, minutes=minutes, steps_per_epoch=max(1, steps))
