"""The learning itself: the loop's facts become checkpoints, tables, events and progress.

``learn`` runs once in each process of a run; only the first one writes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.checkpoint import RawTensor, write_checkpoint
from medtool.core.progress import Advance, Reporter, Silent
from medtool.core.randomness import key64
from medtool.core.records import Case
from medtool.data.run_folder import RunFolder
from medtool.nets.widths import PRUNED, Widths, narrow
from medtool.train.devices import make_deterministic, make_fabric
from medtool.train.events import Events
from medtool.train.keeper import Keeper
from medtool.train.live import Live
from medtool.train.loop import (
    EpochDone,
    Finished,
    Job,
    StageBegan,
    StepDone,
    Stopped,
    history_row,
    training_loop,
)
from medtool.train.plan import Plan
from medtool.train.probe import make_probe
from medtool.train.stages import learning_batch_norms
from medtool.train.state import restore, training_document, training_tensors
from medtool.verbs.stage_text import rates_text

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from medtool.core.task import Task
    from medtool.verbs.train_options import TrainOptions


# An epoch that waits longer for data than this has too few workers, or a slow disk.
NOTABLE_WAIT_SHARE = 0.1


@dataclass(frozen=True)
class Order:
    """Everything that a process needs to learn; travels to spawned processes.

    ``weights`` are those that the network starts from, ``base`` the part of a checkpoint's
    document that stays the same during the run.
    """

    task: Task
    training: tuple[Case, ...]
    selection: tuple[Case, ...]
    prepared: Mapping[str, Path]
    plan: Plan
    run: Path
    base: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    resume: Path | None = None
    workers: int = 0


@dataclass(frozen=True)
class Learned:
    """How the learning ended. ``stopped`` when it was asked to, and can go on.

    ``second_names`` are those of the run's tables that other programs held open at the end.
    """

    epochs: int
    stopped: bool
    early: bool
    second_names: Mapping[Path, Path] = field(default_factory=dict)


def new_network(task: Task, pruned: Widths | None = None) -> nn.Module:
    """The task's network with weights drawn from the seed of its preset.

    With ``pruned`` as narrow as that says.
    """
    with torch.random.fork_rng():
        torch.manual_seed(key64("weights", task.settings.train.seed))
        network = task.network()
    narrow(network, pruned or {})
    return network


def fabric_of(task: Task, options: TrainOptions, *, single: bool = False) -> Fabric:
    """The Fabric that the options ask for; ``single``: one process on one device."""
    return make_fabric(
        options.run.device,
        devices=1 if single else options.run.devices,
        nodes=1 if single else options.run.nodes,
        precision=task.settings.train.precision,
    )


def learn(fabric: Fabric, order: Order, reporter: Reporter | None = None) -> Learned:
    """Train from ``order.weights``, or from ``order.resume``, to the end of the plan.

    SIGTERM and Ctrl-C end it before the next step, with everything saved.
    """
    make_deterministic()
    first = fabric.global_rank == 0
    reporter = reporter if first and reporter is not None else Silent()
    with stop_signals() as asked:
        job, live = _begin(fabric, order, asked)
        writer = _Writer(order, job, live) if first else None
        with reporter.progress("Training", order.plan.steps) as advance:
            advance(live.epoch * live.plan.steps_per_epoch + live.step)
            end = _follow(job, live, writer, reporter, advance)
        if writer is not None:
            writer.close()
            writer.run.tell_second_names(reporter.warn)
    return Learned(
        epochs=live.epoch,
        stopped=isinstance(end, Stopped),
        early=isinstance(end, Finished) and end.early,
        second_names=writer.run.second_names.names if writer is not None else {},
    )


def _begin(fabric: Fabric, order: Order, asked: Callable[[], bool]) -> tuple[Job, Live]:
    task = order.task
    network = new_network(task, order.base.get(PRUNED))
    network.load_state_dict(dict(order.weights))
    network.to(fabric.device)
    live = Live(network, task.groups(network), task.settings.train, order.plan)
    if order.resume is not None:
        header = restore(order.resume, live)
        scaler = getattr(fabric.strategy.precision, "scaler", None)
        if scaler is not None and header.document["live"]["scaler"]:
            scaler.load_state_dict(header.document["live"]["scaler"])
    job = Job(
        task=task,
        fabric=fabric,
        training=order.training,
        selection=order.selection,
        prepared=order.prepared,
        workers=order.workers,
        should_stop=asked,
    )
    return job, live


def _follow(
    job: Job, live: Live, writer: _Writer | None, reporter: Reporter, advance: Advance
) -> Finished | Stopped:
    """Consume the loop's facts; gives the last one."""
    end: Finished | Stopped = Finished(live.epoch, early=False)
    primary = job.task.settings.metrics.primary
    for fact in training_loop(job, live):
        if isinstance(fact, StepDone):
            advance(1, f"epoch {fact.epoch + 1} of {live.plan.epochs}")
        elif isinstance(fact, StageBegan):
            _tell(reporter, writer, _stage_text(fact, job, live))
        elif isinstance(fact, EpochDone):
            if writer is not None:
                writer.epoch(fact)
                writer.run.tell_second_names(reporter.warn)
            _tell(reporter, writer, epoch_text(fact, live.plan.epochs, primary))
        else:
            end = fact
            if isinstance(fact, Stopped) and writer is not None:
                writer.stopped()
        job.fabric.barrier()
    return end


def _tell(reporter: Reporter, writer: _Writer | None, text: str) -> None:
    reporter.say(text)
    if writer is not None:
        writer.run.log(text)


def _stage_text(fact: StageBegan, job: Job, live: Live) -> str:
    text = f"Stage {fact.stage + 1} of {len(live.plan.stages)}: {rates_text(fact.rates)}"
    live.train_mode()
    moving = learning_batch_norms(live.groups, live.learning())
    if moving and job.fabric.world_size > 1:
        text += (
            f". Batch norms of {', '.join(moving)} see the cases of one device at a time: "
            "results differ from those of one device"
        )
    return text


def epoch_text(fact: EpochDone, epochs: int, primary: str) -> str:
    """One line on an epoch for a person, that fits a terminal; history.csv holds the rest."""
    shown = {name: fact.metrics[name] for name in ("loss", primary) if name in fact.metrics}
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
    mark = " (best)" if fact.is_best else ""
    waiting = fact.data_wait_share
    waited = f", {waiting:.0%} waiting for data" if waiting >= NOTABLE_WAIT_SHARE else ""
    return (
        f"Epoch {fact.epoch + 1} of {epochs}: loss {fact.losses['loss']:.3f}; "
        f"selection set, optimistic: {metrics}{mark}; {fact.seconds:.1f} s{waited}"
    )


class _Writer:
    """What one process writes of a run while it learns."""

    def __init__(self, order: Order, job: Job, live: Live) -> None:
        train = live.train
        self.run = RunFolder(order.run)
        self.order = order
        self.job = job
        self.live = live
        self.primary = job.task.settings.metrics.primary
        self.keeper = Keeper(
            self.run,
            self.save,
            metric=self.primary,
            every_epochs=train.checkpoint_every_epochs,
            keep=train.keep,
        )
        # The checkpoint is the truth: rows that a kill left behind, or took away, are set right.
        if order.resume is not None:
            self.keeper.resume(live.epoch)
        self.run.write_history(live.history)
        self.events = Events(self.run.events_folder, next_epoch=live.epoch)

    def epoch(self, fact: EpochDone) -> None:
        """Write an epoch: checkpoints first, since the other files follow from them."""
        self.keeper.after_epoch(fact)
        self.run.write_history(self.live.history)
        self.events.write(history_row(fact))

    def stopped(self) -> None:
        """Save the state between two steps."""
        metrics = _last_metrics(self.live.history)
        self.keeper.save_last(self.live.epoch - 1, metrics)
        self.keeper.refresh({})

    def close(self) -> None:
        """End the files."""
        self.events.close()

    def save(self, path: Path) -> None:
        """Write the state as a checkpoint."""
        live = self.live
        scaler = getattr(self.job.fabric.strategy.precision, "scaler", None)
        metrics = _last_metrics(live.history)
        document = {
            **self.order.base,
            **training_document(live, scaler.state_dict() if scaler is not None else None),
            "stage": live.plan.stage_index(max(0, live.epoch - 1)),
            "metrics": {"primary": self.primary, "selection": metrics},
            "threshold": metrics.get("threshold", 0.5),
        }
        write_checkpoint(path, document, [*training_tensors(live), *self._probe()])

    def _probe(self) -> Iterator[RawTensor]:
        live = self.live
        live.swap_average()
        try:
            yield from list(make_probe(live.network, self.job.task.deployment()))
        finally:
            live.swap_average()


def _last_metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    """The selection metrics of the last epoch, by their own names."""
    row = history[-1] if history else {}
    return {
        name.removeprefix("selection_"): value
        for name, value in row.items()
        if name.startswith("selection_")
    }


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or Ctrl-C asked to stop; a second Ctrl-C interrupts at once.

    Outside the main thread signals cannot be taken: nothing then asks to stop.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
