"""A tiny run in memory: cohort, cache, job and live state for tests of the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_task import TinySettings, TinyTask, write_tiny_cohort

from medtool.core.randomness import key64
from medtool.core.records import Case, Source
from medtool.data.cache import Cache
from medtool.train.devices import make_fabric
from medtool.train.live import Live
from medtool.train.loop import Job
from medtool.train.plan import make_plan


def tiny_task(**train: Any) -> TinyTask:
    """The tiny task with these values of [train]."""
    settings = TinySettings()
    changed = settings.train.model_copy(update={"epochs": 4, **train})
    return TinyTask(settings.model_copy(update={"train": changed}))


def tiny_cases(folder: Path, task: TinyTask, patients: int = 12) -> list[Case]:
    """Labelled cases of a tiny cohort, prepared into ``folder/cache``."""
    if not (folder / "labels.csv").exists():
        write_tiny_cohort(folder, patients=patients)
    rows = (line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:])
    labels = {name: float(label) for name, label in rows}
    cohort = task.find(Source((folder,)))
    cases = [replace(case, label=labels[case.case_id]) for case in cohort.cases]
    cache = Cache(folder / "cache", task)
    for case in cases:
        if not cache.has(case):
            cache.store(case, task.prepare(case))
    return cases


def tiny_job(folder: Path, task: TinyTask, fabric: Any = None, **changes: Any) -> Job:
    """A job on eight training and the other cases for selection."""
    cases = tiny_cases(folder, task)
    cache = Cache(folder / "cache", task)
    if fabric is None:
        fabric = make_fabric("cpu")
        fabric.launch()
    job = Job(
        task=task,
        fabric=fabric,
        training=cases[:8],
        selection=cases[8:],
        prepared={case.case_id: cache.path(case) for case in cases},
    )
    return replace(job, **changes)


def tiny_live(job: Job, network: torch.nn.Module | None = None) -> Live:
    """A live state at its begin, with weights drawn from the seed."""
    task = job.task
    train = task.settings.train
    if network is None:
        with torch.random.fork_rng():
            torch.manual_seed(key64("weights", train.seed))
            network = task.network()
    groups = task.groups(network)
    plan = make_plan(train, list(groups), cases=len(job.training), devices=job.fabric.world_size)
    return Live(network, groups, train, plan)
