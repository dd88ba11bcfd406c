"""A training step beside the same network and batch in a bare PyTorch loop, and waiting for data.

    python benchmarks/training_step.py [--slices 16] [--rounds 40]

Network, groups and rates are those of the preset ``default`` (ResNet-50; two layers and the head
learn), with random weights. Ours is the product's own step; the bare loop is what one writes by
hand: forward, loss, backward, clipping, optimiser. Both are long runs of the same kernels whose
seconds scatter by a tenth up and down: the middle of the rounds' ratios counts, since the best of
each would compare two strokes of luck. The share of time waiting for data is that of a whole epoch
with loader workers, the first left out.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from prepare_cohort import cases_of
from results import Row, begin, seconds_in_turn, work_folder
from torch import nn

from medtool.config import resolve
from medtool.core.records import Batch, Case, ExampleKey
from medtool.core.registry import load_task
from medtool.core.task import Task
from medtool.data.cache import Cache
from medtool.data.preparation import prepare_cases
from medtool.train.devices import make_deterministic, make_fabric
from medtool.train.live import Live
from medtool.train.loader import BatchLoader
from medtool.train.loop import EpochDone, Job, take_step, training_loop
from medtool.train.plan import make_plan
from medtool.train.sampler import Step

TASK = "brainmet"
MOST_OVER_BARE = 1.05
MOST_WAITING = 0.05
LOADERS = 2
EPOCHS = 2


def task_of(slices: int, *, quick: bool) -> Task:
    """The task of the preset ``default``, a case a step, so many slices of it."""
    assignments = [
        f"train.max_slices={slices}",
        "train.accumulate=1",
        "train.warmup_epochs=0",
        f"train.epochs={EPOCHS}",
        "model.from_scratch=true",
    ]
    if quick:
        assignments += ["model.backbone=test_resnet", "data.preparation.size_px=48"]
        assignments += ["train.stages=[]"]
    task_class = load_task(TASK)
    return task_class(resolve(task_class, None, assignments=assignments).settings)


def labelled_cases(task: Task, folder: Path, count: int, slices: int, side_px: int) -> list[Case]:
    """Cases of both classes."""
    cases = cases_of(task, folder, count, slices, side_px)
    return [replace(case, label=float(n % 2)) for n, case in enumerate(cases)]


def job_of(task: Task, cases: list[Case], folder: Path, workers: int) -> Job:
    """All but two cases to learn from."""
    cache = Cache(folder / "cache", task)
    report = prepare_cases(task, cases, cache, workers=0)
    if report.failures:
        raise SystemExit(f"{report.failures[0].case_id}: {report.failures[0].message}")
    fabric = make_fabric("cpu")
    fabric.launch()
    return Job(task, fabric, cases[:-2], cases[-2:], report.paths, workers=workers)


def live_of(job: Job, network: nn.Module) -> Live:
    """A run at its begin; with stages of the preset."""
    groups = job.task.groups(network)
    train = job.task.settings.train
    return Live(network, groups, train, make_plan(train, list(groups), cases=len(job.training)))


def product_step(job: Job, network: nn.Module, batch: Batch) -> Callable[[], None]:
    """One step as the product takes it."""
    live = live_of(job, network)
    live.enter_stage()
    live.train_mode()
    keys = tuple(ExampleKey(batch.seed, batch.epoch, n) for n in range(len(batch.cases)))
    step = Step((keys,), len(keys))

    def take() -> None:
        take_step(job, live, step, iter([batch]))

    return take


def bare_step(job: Job, network: nn.Module, batch: Batch) -> Callable[[], None]:
    """The same step written by hand; what is frozen and how rates differ is taken over."""
    live = live_of(job, network)
    live.enter_stage()
    live.train_mode()
    tensors, optimiser = batch.tensors, live.optimiser
    live.set_rates()
    learning = [p for p in network.parameters() if p.requires_grad]
    clip = job.task.settings.train.gradient_clip

    def take() -> None:
        optimiser.zero_grad(set_to_none=True)
        found = network(tensors["inputs"], tensors["sizes"], tensors["keys"], tensors["bag_keys"])
        loss = nn.functional.binary_cross_entropy_with_logits(
            found["logits"], tensors["labels"], weight=tensors["weights"]
        )
        loss.backward()
        nn.utils.clip_grad_norm_(learning, clip)
        optimiser.step()

    return take


def over_bare(seconds: Mapping[str, Sequence[float]]) -> float:
    """The middle of the rounds' ratios: both steps of a round met the same machine."""
    pairs = zip(seconds["medtool"], seconds["bare"], strict=True)
    return statistics.median(ours / bare for ours, bare in pairs)


def waiting_share(job: Job, network: nn.Module) -> tuple[float, float]:
    """Share of an epoch's time waiting for data, and seconds of the epoch; the last of a few."""
    shares = [
        (fact.data_wait_share, fact.seconds)
        for fact in training_loop(job, live_of(job, network))
        if isinstance(fact, EpochDone)
    ]
    return shares[-1]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=40)


def main() -> int:
    """Measure, print, keep."""
    run = begin("training_step", __doc__, ("torch", "timm", "lightning-fabric"), add_options)
    options, quick = run.options, run.options.quick
    slices, side_px = (4, 128) if quick else (options.slices, 512)
    make_deterministic()
    torch.manual_seed(0)
    task = task_of(slices, quick=quick)
    with work_folder() as folder:
        cases = labelled_cases(task, folder, 4 if quick else 14, max(slices, 12), side_px)
        job = job_of(task, cases, folder, 0 if quick else LOADERS)
        network = task.network()
        examples = task.examples(job.training, job.prepared, training=True)
        key = (ExampleKey(0, 0, 0),)
        batch = next(BatchLoader(examples, job.training).batches([key]))
        seconds = seconds_in_turn(
            {
                "medtool": product_step(job, copy.deepcopy(network), batch),
                "bare": bare_step(job, copy.deepcopy(network), batch),
            },
            rounds=1 if quick else options.rounds,
        )
        share, epoch_s = waiting_share(job, network)
    rows = [
        Row(
            f"a step of {len(batch.tensors['inputs'])} slices over a bare PyTorch loop",
            over_bare(seconds),
            most=MOST_OVER_BARE,
            detail={
                "middle_seconds": {name: statistics.median(s) for name, s in seconds.items()},
                "best_seconds": {name: min(s) for name, s in seconds.items()},
                "rounds": len(seconds["bare"]),
            },
        ),
        Row(
            "share of an epoch spent waiting for data",
            share,
            "",
            most=MOST_WAITING,
            detail={"loaders": job.workers, "epoch_seconds": epoch_s},
        ),
    ]
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
