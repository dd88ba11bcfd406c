"""How long the command ``medtool demo TASK`` takes, step by step, and what its model learned.

    python benchmarks/demo_minutes.py [--only TASK ...]

Every task, each in a process of its own, as a user types it. What was learned is the metric on the
patients that the demo's own run held out. A quick run takes a few cases and an epoch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from results import Row, begin, work_folder

from medtool.core.progress import Reporter
from medtool.core.registry import load_task
from medtool.verbs.demo import DemoOptions, demo
from medtool.verbs.options import RunOptions


class Goal(NamedTuple):
    """What the demo of a task has to keep; ``few`` is how many cases a quick run takes."""

    most_minutes: float
    metric: str
    least: float | None
    few: int


GOALS = {
    "brainmet": Goal(4.0, "auroc", 0.9, 24),
    "heart": Goal(4.0, "dice", 0.9, 12),
    "segment": Goal(4.0, "dice", 0.8, 10),
    "pancreas": Goal(4.0, "dice", 0.8, 16),
    # What it learns is judged on more patients: petct_quality.
    "petct": Goal(5.0, "dice", None, 20),
}
METRICS = {"auroc": "AUROC", "dice": "Dice"}
QUICK = "[train]\nepochs = 1\n[metrics]\nbootstrap_draws = 100\n"


def whole_demo(task: str, work: Path) -> dict[str, Any]:
    """What ``medtool demo TASK DIR --json`` prints, with the minutes that it took."""
    medtool = Path(sys.executable).parent / "medtool"
    command = [medtool, "demo", task, work / task, "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    minutes = (time.perf_counter() - began) / 60
    if done.returncode != 0:
        raise SystemExit(f"demo {task} ends with {done.returncode}: {done.stderr[-500:]}")
    return {**json.loads(done.stdout), "minutes": minutes}


def small_demo(task: str, work: Path) -> dict[str, Any]:
    """The same steps in this process, on a few cases."""
    task_class = load_task(task)

    def write(self: Any, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        module = import_module(f"medtool_{task}.demo")
        few: Any = GOALS[task].few
        if hasattr(module, "DemoOptions"):
            few = module.DemoOptions(patients=few, size_px=64, workers=1)
        getattr(module, "write_cohort" if hasattr(module, "write_cohort") else "write_dataset")(
            folder, seed, few
        )
        (folder / "medtool.toml").write_text(QUICK, encoding="utf-8")

    own = task_class.write_demo
    task_class.write_demo = write  # type: ignore[method-assign]
    began = time.perf_counter()
    try:
        done = demo(DemoOptions(task, work / task, run=RunOptions(workers=0)))
    finally:
        task_class.write_demo = own  # type: ignore[method-assign]
    return {**done.as_dict(), "minutes": (time.perf_counter() - began) / 60}


def rows_of(task: str, found: dict[str, Any]) -> list[Row]:
    """Minutes, with the seconds of each verb; and the metric on held-out patients."""
    most, metric, least, _ = GOALS[task]
    name = METRICS[metric]
    steps = {
        step["command"].split()[1] if step["command"] else "cohort": step["seconds"]
        for step in found["steps"]
    }
    one = found["scores"]["test"]["metrics"][metric]
    detail = {key: one.get(key) for key in ("low", "high", "n")}
    return [
        Row(f"minutes of the demo of {task}", found["minutes"], "min", most=most, detail=steps),
        Row(f"held-out {name} of the demo of {task}", one["value"], "", least=least, detail=detail),
    ]


def main() -> int:
    """Measure, print, keep."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS))

    run = begin("demo_minutes", __doc__, ("torch", "numpy"), add)
    measure = small_demo if run.options.quick else whole_demo
    rows: list[Row] = []
    with work_folder() as work:
        for task in run.options.only:
            rows += rows_of(task, measure(task, work))
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
