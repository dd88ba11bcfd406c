"""Pruning in rounds: a few channels leave, the network learns again with the loop of its task.

One round that takes all away leaves a network that has forgotten too much to learn again in a
short time; several small ones do not (Molchanov 2017).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from medtool.core.errors import Interrupted, UsageError
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case
from medtool.nets.freezing import parameter_count
from medtool.nets.widths import Widths, changed_widths, widths
from medtool.optimize.batch_norms import estimate_batch_norms
from medtool.optimize.distil import DistilledTask
from medtool.optimize.prune import output_layers, prune_channels
from medtool.optimize.weights import zero_smallest
from medtool.train.devices import make_fabric
from medtool.train.live import Live
from medtool.train.loop import EpochDone, Job, StepDone, Stopped, training_loop
from medtool.train.plan import Plan, Stage, make_plan
from medtool.train.probe import probe_inputs

if TYPE_CHECKING:
    from torch import nn

    from medtool.config.prune_section import PruneSection
    from medtool.config.sections import TrainSection
    from medtool.core.task import Task


@dataclass(frozen=True)
class Learners:
    """The cases that a network learns again from, and those that choose its best epoch.

    ``prepared`` maps case ids to files of the cache, as ``task.prepare`` made them: features that
    were computed once by a part of the network are of no use, for that part is pruned as well.
    """

    training: Sequence[Case]
    selection: Sequence[Case]
    prepared: Mapping[str, Path]
    workers: int = 0
    device: str = "cpu"
    should_stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True)
class Round:
    """What one round left: parameters, and the primary metric on the selection part after the
    first epoch and at the best one; None where nothing was learned.
    """

    share: float
    parameters: int
    epochs: int
    first_value: float | None
    best_value: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Pruned:
    """A pruned network, the widths for its checkpoint, and what each round left.

    ``kept_whole`` names layers that were not pruned, each with the reason.
    """

    network: nn.Module
    widths: Widths
    rounds: tuple[Round, ...]
    parameters_before: int
    kept_whole: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for optimize.json."""
        return {
            "parameters_before": self.parameters_before,
            "parameters": parameter_count(self.network),
            "rounds": [one.as_dict() for one in self.rounds],
            "kept_whole": dict(self.kept_whole),
        }


def prune_in_rounds(
    task: Task,
    network: nn.Module,
    settings: PruneSection,
    learners: Learners,
    reporter: Reporter | None = None,
) -> Pruned:
    """A pruned copy of ``network`` that learned again after every round.

    Raises UsageError for a network that cannot be pruned, MachineError where torch-pruning or the
    device is missing, Interrupted where it was asked to stop.
    """
    reporter = reporter or Silent()
    whole, student = network, copy.deepcopy(network).cpu()
    full, inputs = widths(whole), _inputs(task)
    taught = _taught(task, whole, settings, inputs)
    rounds: list[Round] = []
    kept_whole: Mapping[str, str] = {}
    for number in range(1, settings.steps + 1):
        share = settings.share * number / settings.steps
        student = student.cpu()
        if settings.kind == "channels":
            removed = prune_channels(
                student, inputs, share=share, round_to=settings.round_to, whole=full
            )
            kept_whole = removed.kept_whole
        else:
            zero_smallest(student, share, keep=output_layers(student, inputs))
        estimate_batch_norms(task, student, learners.training, learners.prepared, reporter=reporter)
        epochs = settings.last_epochs if number == settings.steps else settings.epochs
        if settings.kind == "weights":
            # What learns again would fill the zeros: for study they stay.
            epochs = 0
        reporter.say(
            f"Round {number} of {settings.steps}: {share:.0%} less in each layer, "
            f"{parameter_count(student) / 1e6:.2f} million parameters."
        )
        first, best = _learn_again(taught, task, student, epochs, settings, learners, reporter)
        rounds.append(Round(share, parameter_count(student), epochs, first, best))
    changed = changed_widths(student.cpu(), whole)
    return Pruned(student.eval(), changed, tuple(rounds), parameter_count(whole), kept_whole)


def _inputs(task: Task) -> list[torch.Tensor]:
    return list(probe_inputs(task.deployment()).values())


def _taught(
    task: Task, whole: nn.Module, settings: PruneSection, inputs: Sequence[torch.Tensor]
) -> Task:
    """The task with the loss of a network that is taught by the whole one, where that is asked."""
    if settings.distil_weight == 0 or settings.kind == "weights":
        return task
    # Traced where the student is, on the CPU; it moves to the device with the learning.
    teacher = copy.deepcopy(whole).cpu()
    taught: Any = DistilledTask(
        task,
        teacher,
        output_layers(teacher, inputs),
        weight=settings.distil_weight,
        temperature=settings.distil_temperature,
    )
    return cast("Task", taught)


def _learn_again(
    taught: Task,
    task: Task,
    network: nn.Module,
    epochs: int,
    settings: PruneSection,
    learners: Learners,
    reporter: Reporter,
) -> tuple[float | None, float | None]:
    """Train ``network`` in place to its best epoch; the metric of the first and best epoch."""
    if epochs == 0:
        return None, None
    train = task.settings.train
    fabric = make_fabric(learners.device, precision=train.precision)
    fabric.launch()
    network.to(fabric.device)
    if isinstance(taught, DistilledTask):
        taught.to(fabric.device)
    groups = task.groups(network)
    plan = learning_plan(train, list(groups), settings, epochs, cases=len(learners.training))
    live = Live(network, groups, train, plan)
    job = Job(
        task=taught,
        fabric=fabric,
        training=learners.training,
        selection=learners.selection,
        prepared=learners.prepared,
        workers=learners.workers,
        should_stop=learners.should_stop,
    )
    primary = task.settings.metrics.primary
    values: list[float] = []
    best: dict[str, torch.Tensor] = {}
    with reporter.progress("Learning again", plan.steps) as advance:
        for fact in training_loop(job, live):
            if isinstance(fact, StepDone):
                advance(1, f"epoch {fact.epoch + 1} of {epochs}")
            elif isinstance(fact, Stopped):
                raise Interrupted(
                    "Stopped while a pruned network was learning again; no model was written."
                )
            elif isinstance(fact, EpochDone):
                values.append(float(fact.metrics[primary]))
                if fact.is_best or not best:
                    best = {n: t.detach().clone() for n, t in live.answering_weights().items()}
    network.load_state_dict(best)
    chosen = live.best.value if live.best is not None else values[-1]
    return values[0], chosen


def learning_plan(
    train: TrainSection,
    groups: Sequence[str],
    settings: PruneSection,
    epochs: int,
    *,
    cases: int,
) -> Plan:
    """The plan of a training after pruning: every part learns, for each lost channels.

    Each at the last rate that the preset gives it, parts that it freezes at the lowest one; with
    the schedule of the preset over ``epochs``.
    """
    rates: dict[str, float] = {}
    for stage in train.stages:
        rates.update(stage.rates)
    lowest = min(rates.values(), default=train.learning_rate)
    every = {name: rates.get(name, lowest) * settings.rate_factor for name in groups}
    if not groups:
        raise UsageError("This network has no parts that learn.", where="the task's groups()")
    plan = make_plan(
        train.model_copy(update={"epochs": epochs, "stages": [], "warmup_epochs": 0}),
        list(groups),
        cases=cases,
    )
    return replace(plan, stages=(Stage(0, every),))
