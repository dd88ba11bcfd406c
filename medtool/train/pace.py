"""How long a run will take, measured on its own network and cases before it begins.

Steps are timed on a copy of the network for every stage, since a stage that trains more costs
more. The measurement is done once: what follows from it is fixed in the plan.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from medtool.core.records import ExampleKey
from medtool.train.live import Live
from medtool.train.loader import BatchLoader, batch_to_device
from medtool.train.loop import Job, steps_of_epoch, take_step
from medtool.train.plan import Plan

WARM_UP_STEPS = 1
TIMED_STEPS = 2
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

    def run_s(self, plan: Plan, from_epoch: int = 0) -> float:
        """Seconds of all epochs from ``from_epoch`` on."""
        return sum(self.epoch_s(plan, epoch) for epoch in range(from_epoch, plan.epochs))

    def as_document(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return asdict(self)


def measure_pace(job: Job, live: Live) -> Pace:
    """Time a few steps of each stage and a few validations; ``live`` does not change."""
    step_s = []
    for number in range(len(live.plan.stages)):
        trial = _trial(job, live, number)
        steps = steps_of_epoch(job, trial)
        while len(steps) < WARM_UP_STEPS + TIMED_STEPS:
            steps = steps + steps
        steps = steps[: WARM_UP_STEPS + TIMED_STEPS]
        examples = job.task.examples(job.training, job.prepared, training=True)
        keys = (batch for step in steps for batch in step.batches)
        batches = BatchLoader(examples, job.training).batches(keys)
        step_s.append(min(_timed_steps(job, trial, steps, batches)))
    return Pace(tuple(step_s), _validate_case_s(job, live), len(job.selection))


def _trial(job: Job, live: Live, stage: int) -> Live:
    network = copy.deepcopy(live.network)
    trial = Live(network, job.task.groups(network), live.train, live.plan)
    trial.epoch = live.plan.stages[stage].from_epoch
    trial.enter_stage()
    trial.train_mode()
    return trial


def _timed_steps(job: Job, trial: Live, steps: list[Any], batches: Iterator[Any]) -> list[float]:
    seconds = []
    for number, step in enumerate(steps):
        began = time.perf_counter()
        # With workers, data are made while the network computes.
        waited_s = take_step(job, trial, step, batches)
        _synchronise(job)
        if number >= WARM_UP_STEPS:
            taken_s = time.perf_counter() - began
            computing_s = taken_s - waited_s
            loading_s = waited_s / job.workers if job.workers else computing_s + waited_s
            seconds.append(max(computing_s, loading_s))
    return seconds


def _validate_case_s(job: Job, live: Live) -> float:
    examples = job.task.examples(job.selection, job.prepared, training=False)
    count = min(TIMED_VALIDATIONS, len(job.selection))
    if count == 0:
        return 0.0
    network = copy.deepcopy(live.network).eval()
    keys = [(ExampleKey(live.train.seed, 0, index),) for index in range(count)]
    began = time.perf_counter()
    with torch.no_grad(), job.fabric.autocast():
        for batch in BatchLoader(examples, job.selection).batches(keys):
            job.task.validate(network, batch_to_device(batch, job.fabric.device))
    _synchronise(job)
    return (time.perf_counter() - began) / count


def _synchronise(job: Job) -> None:
    if job.fabric.device.type == "cuda":
        torch.cuda.synchronize(job.fabric.device)


def fit_to_minutes(plan: Plan, pace: Pace, minutes: float) -> Plan:
    """``plan`` with as many of its epochs as fit into ``minutes``, never more than it has.

    Stages shrink in proportion, each keeping at least one epoch; where not even one epoch for
    each fits, epochs lose steps (at least one stays).
    """
    budget_s = minutes * 60.0 * SHARE_FOR_TRAINING
    for epochs in range(plan.epochs, len(plan.stages) - 1, -1):
        shorter = plan.shortened(epochs)
        if pace.run_s(shorter) <= budget_s:
            return replace(shorter, minutes=minutes)
    shortest = plan.shortened(len(plan.stages))
    for_steps_s = budget_s - shortest.epochs * pace.validation_s()
    steps = int(for_steps_s / sum(pace.step_s)) if for_steps_s > 0 else 0
    return replace(shortest, minutes=minutes, steps_per_epoch=max(1, steps))
