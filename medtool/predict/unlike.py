"""What about a case is unlike anything that the model learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medtool.core.records import Case, Finding, Prepared

UNLIKE_TRAINING = "unlike-training"
# Numbers this share outside the range of the training are still like it: headers are rounded.
TOLERANCE = 0.02
NAMES_SHOWN = 4


def unlike_training(
    training_range: Mapping[str, Any], case: Case, prepared: Prepared
) -> list[Finding]:
    """A warning for each fact of ``case`` that no training case had.

    ``training_range`` is the checkpoint's: counts of words, quantiles of numbers (first the
    smallest, last the largest). What either side does not know is not judged.
    """
    findings = []
    for name, known in training_range.items():
        value = case.facts.get(name)
        if value in (None, ""):
            continue
        if isinstance(known, Mapping) and str(value) not in known:
            shown = ", ".join(sorted(known)[:NAMES_SHOWN])
            findings.append(_finding(name, f"'{value}'", f"{shown}"))
        elif _is_range(known) and isinstance(value, int | float):
            findings += _outside(name, float(value), known)
    spacing = prepared.facts.get("spacing_mm")
    known_spacing = training_range.get("spacing_mm")
    if spacing and isinstance(known_spacing, Sequence) and len(known_spacing) == len(spacing):
        for axis, (value, known) in enumerate(zip(spacing, known_spacing, strict=True)):
            if _is_range(known):
                findings += _outside(f"spacing along axis {axis} (mm)", float(value), known)
    return findings


def _is_range(known: object) -> bool:
    return (
        isinstance(known, Sequence)
        and not isinstance(known, str)
        and len(known) >= 2
        and all(isinstance(number, int | float) for number in known)
    )


def _outside(name: str, value: float, quantiles: Sequence[float]) -> list[Finding]:
    low, high = float(quantiles[0]), float(quantiles[-1])
    if low - abs(low) * TOLERANCE <= value <= high + abs(high) * TOLERANCE:
        return []
    return [_finding(name, f"{value:g}", f"{low:g} to {high:g}")]


def _finding(name: str, met: str, known: str) -> Finding:
    text = f"Unlike the training: {name.replace('_', ' ')} is {met}, there it was {known}."
    return Finding(UNLIKE_TRAINING, text, "warning")
