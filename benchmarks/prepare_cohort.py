"""Preparing a cohort of head CT: seconds a case, two workers over one, and whether memory is flat.

    python benchmarks/prepare_cohort.py [--task brainmet] [--cases 10] [--many 100] [--slices 40]

A few synthetic studies are written once and stand for all cases (each case is prepared anew, under
an id of its own). Ends with 1 when a limit is passed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cohort import SYNTAXES, write_series
from results import write_results

from medtool.config import resolve
from medtool.core.records import Case, Source
from medtool.core.registry import load_task
from medtool.core.task import Task
from medtool.data.cache import Cache
from medtool.data.preparation import PreparationReport, prepare_cases

STUDIES = 4
# What two workers should give over one, and how much more memory many cases may need than few.
LEAST_SPEEDUP = 1.8
MOST_MEMORY = 1.1


def cases_of(task: Task, folder: Path, count: int, slices: int) -> list[Case]:
    """``count`` cases over a few studies on disk."""
    for number in range(STUDIES):
        study = folder / "CTs" / f"P{number}"
        if not study.exists():
            write_series(study, SYNTAXES["uncompressed"], slices=slices)
    found = task.find(Source((folder,))).cases
    return [
        replace(found[n % len(found)], case_id=f"case-{n:04d}", patient_id=f"P{n}")
        for n in range(count)
    ]


def prepared(
    task: Task, cases: Sequence[Case], folder: Path, workers: int
) -> tuple[float, PreparationReport]:
    """Seconds for all cases, without those that starting the workers costs, and the report."""
    warm, rest = cases[: 2 * workers], cases
    cache = Cache(folder / f"cache-{workers}-{len(cases)}", task)
    began = time.perf_counter()
    prepare_cases(task, warm, Cache(folder / f"warm-{workers}-{len(cases)}", task), workers=workers)
    start_s = time.perf_counter() - began
    began = time.perf_counter()
    report = prepare_cases(task, rest, cache, workers=workers)
    taken_s = time.perf_counter() - began
    if report.failures:
        sys.exit(f"{report.failures[0].case_id}: {report.failures[0].message}")
    # Two runs, one of them longer by len(rest) - len(warm) cases: the difference has no start-up.
    return (taken_s - start_s) / (len(rest) - len(warm)), report


def measure(task_name: str, count: int, many: int, slices: int) -> list[dict[str, Any]]:
    """Rows with their ratios and limits."""
    task_class = load_task(task_name)
    task = task_class(resolve(task_class, None).settings)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases = cases_of(task, root, many, slices)
        one_s, _ = prepared(task, cases[:count], root, 1)
        two_s, few = prepared(task, cases[:count], root, 2)
        _, more = prepared(task, cases, root, 2)
    speedup = one_s / two_s
    memory = more.peak_worker_bytes / few.peak_worker_bytes
    return [
        {
            "what": "two workers over one",
            "seconds_a_case": {"1 worker": one_s, "2 workers": two_s},
            "ratio": speedup,
            "least_ratio": LEAST_SPEEDUP,
            "kept": speedup >= LEAST_SPEEDUP,
        },
        {
            "what": f"peak memory of a worker, {many} cases over {count}",
            "megabytes": [few.peak_worker_bytes / 1e6, more.peak_worker_bytes / 1e6],
            "ratio": memory,
            "most_ratio": MOST_MEMORY,
            "kept": memory <= MOST_MEMORY,
        },
    ]


def main() -> int:
    """Measure, print, keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="brainmet")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--many", type=int, default=100)
    parser.add_argument("--slices", type=int, default=40)
    options = parser.parse_args()
    rows = measure(options.task, options.cases, options.many, options.slices)
    for row in rows:
        print(f"{row['what']}: {row['ratio']:.2f} ({'kept' if row['kept'] else 'NOT KEPT'})", row)
    command = "python benchmarks/prepare_cohort.py " + " ".join(sys.argv[1:])
    write_results("prepare_cohort", command.strip(), rows, ["numpy", "scipy", "blosc2"])
    return 0 if all(row["kept"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
