"""The same metrics within groups of cases: scanners, kernels, thicknesses, ages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtool.score.confusion import confusion
from medtool.score.intervals import DEFAULT_CONFIDENCE, bootstrap, separated_interval, wilson
from medtool.score.ranking import auroc, auroc_levels, levels_weighted
from medtool.score.sample import BinarySample, FloatArray

# A number with more distinct values than this is shown in thirds.
MOST_DISTINCT_NUMBERS = 6
# Rows of one table; rarer groups are put together as "other".
MOST_GROUPS = 12
# Draws for the AUROC of a group: fewer than for the headline.
GROUP_DRAWS = 1000
MISSING = "not known"


def subgroup_table(
    sample: BinarySample,
    threshold: float | FloatArray,
    groups: Mapping[str, Sequence[Any]],
    *,
    confidence: float = DEFAULT_CONFIDENCE,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each group of each fact: n, patients, positives, AUROC, sensitivity, specificity.

    Each of the three has its interval: bootstrap by patient, Wilson, Wilson.
    """
    rows = []
    at = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (sample.n,))
    for fact, values in groups.items():
        for name, inside in members(values):
            rows.append({"by": fact, "group": name, **_row(sample, inside, at, confidence, seed)})
    return rows


def members(values: Sequence[Any]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Each group that ``values`` of cases make, in order, and which cases (n,) are in it."""
    names = group_names(values)
    return [
        (name, np.asarray([other == name for other in names], dtype=np.bool_))
        for name in sorted(set(names), key=_group_order)
    ]


def _row(
    sample: BinarySample,
    inside: NDArray[np.bool_],
    threshold: FloatArray,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    part = sample.take(inside)
    counts = confusion(part, threshold[inside])
    shares, values = counts.shares(), counts.metrics()
    low, high = nan, nan
    if part.both_classes:

        def area(weights: FloatArray) -> dict[str, FloatArray]:
            return {"auroc": auroc_levels(levels_weighted(part, weights))}

        drawn = bootstrap(part, area, draws=GROUP_DRAWS, seed=seed)
        low, high = drawn.percentile("auroc", confidence)
        if low == high:
            low, high = separated_interval(part, auroc(part), confidence)
    row: dict[str, Any] = {
        "n": part.n,
        "patients": len(part.patients),
        "positives": part.positives,
        "auroc": auroc(part),
        "auroc_low": low,
        "auroc_high": high,
    }
    for name in ("sensitivity", "specificity"):
        row[name] = float(values[name])
        row[f"{name}_low"], row[f"{name}_high"] = wilson(*shares[name], confidence)
    return row


def group_names(values: Sequence[Any]) -> list[str]:
    """The group of each case: the value itself, or its third where numbers are many."""
    numbers = [_number(value) for value in values]
    known = [n for n in numbers if n is not None]
    if known and len(set(known)) > MOST_DISTINCT_NUMBERS and len(known) == sum(map(_given, values)):
        low, high = np.quantile(known, (1 / 3, 2 / 3))
        return [_third(n, float(low), float(high)) for n in numbers]
    names = [_text(value) if _given(value) else MISSING for value in values]
    by_count = sorted(set(names), key=lambda name: (-names.count(name), name))
    rare = set(by_count[MOST_GROUPS:])
    return ["other" if name in rare else name for name in names]


def _third(value: float | None, low: float, high: float) -> str:
    if value is None:
        return MISSING
    if value < low:
        return f"below {low:.4g}"
    return f"{low:.4g} to {high:.4g}" if value <= high else f"above {high:.4g}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _given(value: object) -> bool:
    return value is not None and str(value).strip() not in ("", "nan", "None")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not _given(value):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if isfinite(number) else None


def _group_order(name: str) -> tuple[int, float, str]:
    rank = {"below": 0, "above": 2}.get(name.split(" ")[0], 1)
    if name in (MISSING, "other"):
        return (3, 0.0, name)
    number = _number(name)
    return (rank, number if number is not None else 0.0, name)
