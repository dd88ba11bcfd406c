"""``optimize`` of a small model of the task heart, as several tests ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.options import RunOptions

QUICK = ("optimize.measure_runs=0", "optimize.calibration_inputs=8")


def run_of(place: Path) -> Path:
    return place / "runs" / "heart" / "a"


def small(place: Path, output: Path, *assignments: str, **options: Any) -> OptimizeResult:
    given = {"checkpoint": run_of(place), **options}
    return optimize(
        OptimizeOptions(
            output=output,
            assignments=(*QUICK, *assignments),
            run=RunOptions(workers=0, device="cpu", cache=place / "cache"),
            **given,
        )
    )
