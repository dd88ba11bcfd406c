"""Which scored cases a person looks at first: the best, the one in the middle, and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def worst_cases(rows: Sequence[Row], count: int) -> list[Row]:
    """The ``count`` rows with the largest ``error``, worst first."""
    return sorted(rows, key=lambda row: -float(row.get("error", 0.0)))[:count]


def best_and_median(rows: Sequence[Row]) -> dict[str, Row]:
    """``best`` and ``median`` by ``error``; nothing of fewer than three cases."""
    ordered = sorted(rows, key=lambda row: float(row.get("error", 0.0)))
    if len(ordered) < 3:
        return {}
    return {"best": ordered[0], "median": ordered[len(ordered) // 2]}
