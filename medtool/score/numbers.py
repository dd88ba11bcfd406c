"""A number with its interval by patient, and how the intervals of a set of numbers were made."""

from __future__ import annotations

from math import isfinite, nan
from typing import Any

from medtool.core.records import Score
from medtool.score.classification import INTERVAL_NAMES
from medtool.score.intervals import Bootstrap


def bootstrap_score(
    name: str,
    value: float,
    resampled: Bootstrap,
    confidence: float,
    *,
    n: int,
    convention: str,
    trivial: float = nan,
    trivial_by: str = "",
) -> Score:
    """The score of that name with the percentiles of its replicates.

    There is no interval where every draw gave the same, or most gave nothing.
    """
    low, high = resampled.percentile(name, confidence)
    kind = "none" if low == high or not isfinite(low) else "percentile"
    return Score(
        name=name,
        value=value,
        n=n,
        low=nan if kind == "none" else low,
        high=nan if kind == "none" else high,
        interval=INTERVAL_NAMES[kind] if isfinite(value) else "",
        convention=convention if isfinite(value) else f"undefined in every case; {convention}",
        trivial=trivial,
        trivial_by=trivial_by,
    )


def bootstrap_table(resampled: Bootstrap, confidence: float) -> dict[str, Any]:
    """How the intervals were made."""
    return {
        "unit": "patient",
        "patients": resampled.patients,
        "draws": resampled.draws,
        "seed": resampled.seed,
        "confidence": confidence,
    }
