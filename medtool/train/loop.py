"""The training loop: one generator that yields facts and neither saves, logs nor prints.

Its caller sees every fact while the state stands still between two steps, and may save it there.
Randomness is drawn from (seed, epoch, case) by the data set, from (seed, epoch, step, device) for
whatever a network draws by itself; so resuming, the number of workers and their order change
nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.errors import MedtoolError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.core.randomness import key64
from medtool.core.records import Case, ExampleKey
from medtool.train.devices import any_process, clip, gather, share_buffers, sum_gradients
from medtool.train.live import Best, Live, LossSums
from medtool.train.loader import BatchLoader, batch_to_device
from medtool.train.sampler import Step, epoch_keys, epoch_steps

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from medtool.core.task import Task

# Metrics of which less is better, beside all losses; of all others more is.
LESS_IS_BETTER = frozenset({"brier", "ece", "mce"})


@dataclass(frozen=True)
class Job:
    """What a run learns from and on what."""

    task: Task
    fabric: Fabric
    training: Sequence[Case]
    selection: Sequence[Case]
    prepared: Mapping[str, Path]
    workers: int = 0
    start_method: str | None = None
    should_stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True)
class StageBegan:
    """A stage began (or a resumed run went on in it)."""

    epoch: int
    stage: int
    rates: Mapping[str, float]


@dataclass(frozen=True)
class StepDone:
    """The weights moved. ``step`` counts from 1 to ``steps`` in each epoch."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch ended: what was learned, measured and spent."""

    epoch: int
    stage: int
    losses: Mapping[str, float]
    metrics: Mapping[str, float]
    rates: Mapping[str, float]
    seconds: float
    data_wait_share: float
    is_best: bool
    ends_stage: bool


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop, and did before the step that the state names."""

    epoch: int
    step: int


@dataclass(frozen=True)
class Finished:
    """The run is over. ``early`` when the metric had not got better for long enough."""

    epochs: int
    early: bool


Fact = StageBegan | StepDone | EpochDone | Stopped | Finished


def training_loop(job: Job, live: Live) -> Iterator[Fact]:
    """Train ``live`` from where it stands to the end of its plan.

    Raises UnknownNameError where the task does not measure the primary metric, MedtoolError where
    the loss is no number any more.
    """
    settings = job.task.settings
    examples = job.task.examples(job.training, job.prepared, training=True)
    loader = _loader(job, examples, job.training)
    checker = _loader(job, job.task.examples(job.selection, job.prepared, training=False), ())
    stage = -1
    while live.epoch < live.plan.epochs:
        if _early(live):
            yield Finished(live.epoch, early=True)
            return
        if live.plan.stage_index(live.epoch) != stage:
            stage = live.plan.stage_index(live.epoch)
            live.enter_stage()
            yield StageBegan(live.epoch, stage, live.plan.stages[stage].rates)
        for fact in _epoch(job, live, loader):
            yield fact
            if isinstance(fact, Stopped):
                return
        metrics = _validate(job, live, checker)
        yield _close_epoch(live, metrics, settings.metrics.primary)
    yield Finished(live.epoch, early=False)


def _loader(job: Job, examples: Any, cases: Sequence[Case]) -> BatchLoader:
    return BatchLoader(
        examples,
        cases or job.selection,
        workers=job.workers,
        start_method=job.start_method,
        pin_memory=job.fabric.device.type == "cuda",
    )


def steps_of_epoch(job: Job, live: Live) -> list[Step]:
    """The steps of the epoch that comes next, as this process sees them."""
    train = live.train
    keys = epoch_keys(
        [case.label for case in job.training],
        sampling=train.sampling,
        seed=train.seed,
        epoch=live.epoch,
        examples_per_case=train.examples_per_case,
    )
    return epoch_steps(
        keys,
        batch_cases=train.batch_cases,
        accumulate=train.accumulate,
        device=job.fabric.global_rank,
        devices=job.fabric.world_size,
        steps=live.plan.steps_per_epoch,
    )


def _epoch(job: Job, live: Live, loader: BatchLoader) -> Iterator[StepDone | Stopped]:
    steps = steps_of_epoch(job, live)
    ahead = steps[live.step :]
    batches = loader.batches(batch for step in ahead for batch in step.batches)
    live.train_mode()
    if job.fabric.global_rank > 0:
        # What a resumed epoch began with was summed over processes: it counts once.
        live.losses = LossSums()
    for step in ahead:
        if any_process(job.fabric, job.should_stop()):
            live.losses = LossSums(_summed(job, live.losses.values()))
            yield Stopped(live.epoch, live.step)
            return
        began = time.perf_counter()
        live.waiting_s += take_step(job, live, step, batches)
        live.seconds += time.perf_counter() - began
        live.step += 1
        live.cases_seen += step.cases
        yield StepDone(live.epoch, live.step, len(steps))


def take_step(job: Job, live: Live, step: Step, batches: Iterator[Any]) -> float:
    """One step of the optimiser; gives the seconds spent waiting for data."""
    fabric, train, waited_s = job.fabric, live.train, 0.0
    live.set_rates()
    # For networks that draw by themselves; ours draw by case.
    torch.manual_seed(key64("step", train.seed, live.epoch, live.step, fabric.global_rank))
    live.optimiser.zero_grad(set_to_none=True)
    for keys in step.batches:
        if not keys:
            continue
        asked = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked
        batch = replace(
            batch_to_device(batch, fabric.device),
            preset_epochs_per_epoch=train.epochs / live.plan.epochs,
        )
        with fabric.autocast():
            losses = job.task.losses(live.network, batch)
        fabric.backward(losses["loss"] * (len(keys) / step.cases))
        live.losses.add(losses, len(keys))
    learning = [p for p in live.network.parameters() if p.requires_grad]
    sum_gradients(fabric, learning)
    clip(fabric, live.network, live.optimiser, train.gradient_clip)
    fabric.strategy.optimizer_step(live.optimiser)
    share_buffers(fabric, live.network)
    live.update_average()
    return waited_s


def _validate(job: Job, live: Live, loader: BatchLoader) -> dict[str, float]:
    """Metrics of the selection part, from the weights that answer."""
    fabric = job.fabric
    live.losses = LossSums(_summed(job, live.losses.values()))
    mine = range(fabric.global_rank, len(job.selection), fabric.world_size)
    keys = [(ExampleKey(live.train.seed, live.epoch, index),) for index in mine]
    live.swap_average()
    live.network.eval()
    facts = []
    with torch.no_grad(), fabric.autocast():
        for batch in loader.batches(keys):
            facts.append(job.task.validate(live.network, batch_to_device(batch, fabric.device)))
    live.swap_average()
    # By case, so that the order does not depend on the number of processes.
    together = sorted(gather(fabric, facts), key=lambda fact: str(fact.get("case")))
    return job.task.summarise(together) if together else {}


def _summed(job: Job, sums: Mapping[str, float]) -> dict[str, float]:
    parts = gather(job.fabric, [dict(sums)])
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: math.fsum(part.get(name, 0.0) for part in parts) for name in names}


def _close_epoch(live: Live, metrics: Mapping[str, float], primary: str) -> EpochDone:
    """Write the epoch into the history, choose the best, and stand before the next epoch."""
    losses = {name: value / live.cases_seen for name, value in live.losses.values().items()}
    if not math.isfinite(losses["loss"]):
        raise MedtoolError(
            "The loss is no number any more.",
            where=f"epoch {live.epoch}",
            met=f"{losses['loss']}",
            how="lower the learning rates, or use --precision 32; the last checkpoint is good.",
        )
    if metrics and primary not in metrics:
        raise UnknownNameError(
            "This task does not measure the primary metric of its preset.",
            where="metrics.primary",
            met=primary,
            wanted="one of: " + ", ".join(sorted(metrics)),
            nearest=nearest_name(primary, metrics),
        )
    epoch, rates = live.epoch, live.rates(max(0, live.step - 1))
    candidate = Best(epoch, metrics.get(primary, math.nan), metrics.get("loss", losses["loss"]))
    is_best = _is_better(candidate, live.best, primary)
    fact = EpochDone(
        epoch=epoch,
        stage=live.plan.stage_index(epoch),
        losses=losses,
        metrics=dict(metrics),
        rates=rates,
        seconds=live.seconds,
        data_wait_share=live.waiting_s / live.seconds if live.seconds else 0.0,
        is_best=is_best,
        ends_stage=live.plan.ends_stage(epoch),
    )
    live.best = candidate if is_best else live.best
    live.plateau = live.plateau.after_epoch(
        better=is_best,
        patience=live.train.plateau_patience
        if live.train.schedule == "plateau"
        else live.plan.epochs + 1,
        lower_by=live.train.plateau_factor,
    )
    live.history.append(history_row(fact))
    live.epoch, live.step = epoch + 1, 0
    live.losses, live.cases_seen, live.seconds, live.waiting_s = LossSums(), 0, 0.0, 0.0
    return fact


def _is_better(candidate: Best, best: Best | None, primary: str) -> bool:
    """Whether ``candidate`` beats ``best``; what is no number never beats a number."""
    if best is None:
        return True
    if math.isnan(candidate.value) or math.isnan(best.value):
        if math.isnan(candidate.value) and math.isnan(best.value):
            return candidate.loss < best.loss
        return not math.isnan(candidate.value)
    if candidate.value == best.value:
        return candidate.loss < best.loss
    less_is_better = primary in LESS_IS_BETTER or primary.endswith("loss")
    return (candidate.value < best.value) == less_is_better


def _early(live: Live) -> bool:
    patience = live.train.early_stopping_epochs
    best = live.best.epoch if live.best is not None else -1
    return patience > 0 and live.epoch - best > patience


def history_row(fact: EpochDone) -> dict[str, Any]:
    """The epoch as a row of history.csv."""
    others = {name: value for name, value in fact.losses.items() if name != "loss"}
    return {
        "epoch": fact.epoch,
        "stage": fact.stage,
        "seconds": round(fact.seconds, 3),
        "data_wait_share": round(fact.data_wait_share, 4),
        "loss": fact.losses["loss"],
        **others,
        **{f"selection_{name}": value for name, value in fact.metrics.items()},
        **{f"rate_{name}": value for name, value in fact.rates.items()},
    }
