"""Preparing a cohort of head CT: seconds a case, two workers over one, and whether memory is flat.

    python benchmarks/prepare_cohort.py [--cases 10] [--many 100] [--slices 40]

A few synthetic studies of 512 x 512 are written once and stand for all cases (each case is prepared
anew, under an id of its own). One and two workers take turns; of each the best round counts. The
time that starting the workers takes is left out: a cohort is larger than a few cases.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cohort import SYNTAXES, write_series
from results import Row, begin, work_folder

from medtool.config import resolve
from medtool.core.records import Case, Source
from medtool.core.registry import load_task
from medtool.core.task import Task
from medtool.data.cache import Cache
from medtool.data.preparation import prepare_cases, prepare_stream

TASK = "brainmet"
STUDIES = 4
ROUNDS = 3
# What two workers should give over one, and how much more memory many cases may need than few.
LEAST_SPEEDUP = 1.8
MOST_MEMORY = 1.1


def cases_of(task: Task, folder: Path, count: int, slices: int, side_px: int) -> list[Case]:
    """``count`` cases over a few studies on disk."""
    for number in range(STUDIES):
        study = folder / "CTs" / f"P{number}"
        write_series(study, SYNTAXES["uncompressed"], slices=slices, rows=side_px, columns=side_px)
    found = task.find(Source((folder,))).cases
    return [
        replace(found[n % len(found)], case_id=f"case-{n:04d}", patient_id=f"P{n}")
        for n in range(count)
    ]


def case_seconds(task: Task, cases: Sequence[Case], folder: Path, workers: int) -> float:
    """Seconds a case, from when every worker has done its first one to the end."""
    stream = prepare_stream(task, cases, Cache(folder, task), workers=workers, ahead=len(cases))
    began = 0.0
    for number, done in enumerate(stream):
        if done.path is None:
            raise SystemExit(f"{done.case.case_id}: {done.message}")
        if number + 1 == workers:
            began = time.perf_counter()
    return (time.perf_counter() - began) / (len(cases) - workers)


def peak_bytes(task: Task, cases: Sequence[Case], folder: Path) -> int:
    """The most memory that one of two workers held."""
    report = prepare_cases(task, cases, Cache(folder, task), workers=2)
    if report.failures:
        raise SystemExit(f"{report.failures[0].case_id}: {report.failures[0].message}")
    return report.peak_worker_bytes


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--many", type=int, default=100)
    parser.add_argument("--slices", type=int, default=40)


def main() -> int:
    """Measure, print, keep."""
    run = begin("prepare_cohort", __doc__, ("numpy", "scipy", "blosc2"), add_options)
    options, quick = run.options, run.options.quick
    count, many, slices, side_px = options.cases, options.many, options.slices, 512
    if quick:
        count, many, slices, side_px = 4, 6, 12, 128
    task_class = load_task(TASK)
    task = task_class(resolve(task_class, None).settings)
    seconds = {1: float("inf"), 2: float("inf")}
    with work_folder() as folder:
        cases = cases_of(task, folder, many, slices, side_px)
        for turn in range(1 if quick else ROUNDS):
            for workers, best in seconds.items():
                cache = folder / f"cache-{workers}-{turn}"
                seconds[workers] = min(best, case_seconds(task, cases[:count], cache, workers))
        few = peak_bytes(task, cases[:count], folder / "few")
        more = peak_bytes(task, cases, folder / "many")
    size = f"{slices} slices of {side_px} x {side_px}"
    rows = [
        Row(f"seconds a case of {size}, 1 worker", seconds[1], "s"),
        Row(f"seconds a case of {size}, 2 workers", seconds[2], "s"),
        Row("throughput of 2 workers over 1", seconds[1] / seconds[2], least=LEAST_SPEEDUP),
        Row(
            f"peak memory of a worker, {many} cases over {count}",
            more / few,
            most=MOST_MEMORY,
            detail={"megabytes": [few / 1e6, more / 1e6]},
        ),
    ]
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
