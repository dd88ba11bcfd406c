"""Hours and disk of a run, measured on a few of its own cases before they are spent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.clock import about
from medtool.core.errors import InputError
from medtool.core.progress import Reporter
from medtool.core.records import Case, Part
from medtool.data.cache import Cache
from medtool.data.machine import free_disk_bytes, require_disk, sensible_workers
from medtool.data.preparation import prepare_stream
from medtool.train.live import Live
from medtool.train.loop import Job
from medtool.train.pace import fit_to_minutes, measure_pace
from medtool.train.plan import Plan
from medtool.verbs.options import timeout_of
from medtool.verbs.train_data import TrainingData
from medtool.verbs.train_precompute import precompute
from medtool.verbs.train_run import fabric_of, new_network

if TYPE_CHECKING:
    import torch

    from medtool.verbs.train_options import TrainOptions

# Cases that are prepared for the estimate; they stay in the cache.
SAMPLE_TRAINING = 3
SAMPLE_SELECTION = 1
# Adam keeps two numbers for each weight, beside the weight itself.
BYTES_OF_STATE = 3
# Best, last and the one that is being written.
UNBOUNDED_CHECKPOINTS = 3


def estimate_run(
    data: TrainingData,
    cache: Cache,
    weights: Mapping[str, torch.Tensor],
    plan: Plan,
    options: TrainOptions,
    reporter: Reporter,
    *,
    loaders: int,
    run: Path,
) -> tuple[dict[str, Any], Plan]:
    """Measure, say, and fit the plan to ``--minutes``; gives the estimate and the plan.

    Raises MachineError where the disk will not do.
    """
    began = time.perf_counter()
    sample, paths, case_s, case_bytes = _sample(data, cache, options, reporter)
    missing = [case for case in data.cases if not cache.has(case)]
    workers = options.run.workers if options.run.workers is not None else sensible_workers()
    preparing_s = len(missing) * case_s / max(1, min(workers, len(missing) or 1))
    job, live = _trial(data, sample, paths, weights, plan, options, loaders)
    once = precompute(
        data.task, weights, plan, job.training, job.selection, paths, run, device=job.fabric.device
    )
    job = replace(job, prepared=once.paths)
    learners = len(data.part("train")) + len(data.part("selection"))
    preparing_s += learners * once.case_s
    pace = measure_pace(job, live, selection_cases=len(data.part("selection")))
    minutes = options.run.minutes
    if minutes is not None:
        plan = fit_to_minutes(plan, pace, minutes)
        reporter.say(
            f"--minutes {minutes:g}: {plan.epochs} epochs of {plan.steps_per_epoch} steps "
            "fit, and stay fixed."
        )
    scored = 2 * len(data.part("selection")) + len(data.part("test"))
    training_s = pace.run_s(plan) + scored * pace.validate_case_s
    new_bytes = len(missing) * case_bytes + learners * once.case_bytes
    disk = _disk_bytes(new_bytes, weights, plan, options, data)
    _say(reporter, preparing_s, training_s, disk, cache.root)
    require_disk(
        disk,
        cache.root,
        what="this run",
        how="free some space, lower --keep, or name another folder with --cache and [paths].",
    )
    document = {
        "preparing_s": round(preparing_s, 1),
        "training_s": round(training_s, 1),
        "disk_bytes": disk,
        "pace": pace.as_document(),
        "measured_in_s": round(time.perf_counter() - began, 1),
    }
    return document, plan


def _sample(
    data: TrainingData, cache: Cache, options: TrainOptions, reporter: Reporter
) -> tuple[list[Case], dict[str, Path], float, int]:
    """A few prepared cases of each learning part, seconds a missing case took, bytes of a case."""
    # One worker, which a case that hangs cannot outlive; none where none are wanted.
    workers = 1 if options.run.workers is None else min(1, options.run.workers)
    timeout_s = timeout_of(options.case_timeout_s, data.task)
    chosen: list[Case] = []
    paths: dict[str, Path] = {}
    seconds: list[float] = []
    parts: tuple[tuple[Part, int], ...] = (
        ("train", SAMPLE_TRAINING),
        ("selection", SAMPLE_SELECTION),
    )
    for part, wanted in parts:
        done = prepare_stream(
            data.task, data.part(part), cache, workers=workers, case_timeout_s=timeout_s, ahead=1
        )
        with closing(done):
            # What fails is told when all cases are prepared.
            found = list(islice((one for one in done if one.path is not None), wanted))
        if not found:
            raise InputError(
                f"No case of the part {part} can be prepared.",
                how="'medtool check' tells of every series what is wrong.",
            )
        seconds += [one.seconds for one in found if not one.reused]
        paths |= {one.case.case_id: one.path for one in found if one.path is not None}
        chosen += [one.case for one in found]
    case_bytes = max(path.stat().st_size for path in paths.values())
    # The first one also paid for the worker's imports.
    return chosen, paths, max(seconds[1:] or seconds, default=0.0), case_bytes


def _trial(
    data: TrainingData,
    sample: Sequence[Case],
    paths: Mapping[str, Path],
    weights: Mapping[str, torch.Tensor],
    plan: Plan,
    options: TrainOptions,
    loaders: int,
) -> tuple[Job, Live]:
    task = data.task
    fabric = fabric_of(task, options, single=True)
    fabric.launch()
    network = new_network(task)
    network.load_state_dict(dict(weights))
    network.to(fabric.device)
    live = Live(network, task.groups(network), task.settings.train, plan)
    parts = data.split.parts
    job = Job(
        task=task,
        fabric=fabric,
        training=[case for case in sample if parts[case.case_id] == "train"],
        selection=[case for case in sample if parts[case.case_id] == "selection"],
        prepared=paths,
        workers=loaders,
    )
    return job, replace(live)


def _disk_bytes(
    new_bytes: int,
    weights: Mapping[str, torch.Tensor],
    plan: Plan,
    options: TrainOptions,
    data: TrainingData,
) -> int:
    model = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    train = data.task.settings.train
    bounded = len(plan.stages)
    if train.checkpoint_every_epochs:
        bounded += plan.epochs // train.checkpoint_every_epochs
    checkpoints = UNBOUNDED_CHECKPOINTS + min(train.keep, bounded)
    return new_bytes + checkpoints * model * BYTES_OF_STATE


def _say(
    reporter: Reporter, preparing_s: float, training_s: float, disk: int, folder: Path
) -> None:
    reporter.say(
        f"Estimate: {about(preparing_s + training_s)} "
        f"(preparing {about(preparing_s)}, training and scoring {about(training_s)}), "
        f"{disk / 1e9:.2f} GB of disk ({free_disk_bytes(folder) / 1e9:.1f} GB free)."
    )
