"""What about a case is unlike anything that the model learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from medtool.core.records import Case, Finding, Prepared

UNLIKE_TRAINING = "unlike-training"
# Numbers this share outside the range of the training are still like it: headers are rounded.
TOLERANCE = 0.02
NAMES_SHOWN = 4
AXES = ("x", "y", "z")
UNITS = ("mm", "degrees", "s")


def unlike_training(
    training_range: Mapping[str, Any], case: Case, prepared: Prepared
) -> list[Finding]:
    """A warning that names each fact of ``case`` that no training case had; else nothing.

    ``training_range`` is the checkpoint's: counts of words, quantiles of numbers (first the
    smallest, last the largest). What either side does not know is not judged.
    """
    differences = []
    for name, known in training_range.items():
        value = case.facts.get(name)
        if value not in (None, ""):
            differences += _difference(name, value, known)
    spacing = prepared.facts.get("spacing_mm") or ()
    known_spacing = training_range.get("spacing_mm") or ()
    if len(known_spacing) == len(spacing) == len(AXES):
        for axis, value, known in zip(_axes(prepared), spacing, known_spacing, strict=True):
            differences += _difference(f"spacing_{axis}_mm", value, known)
    if not differences:
        return []
    text = f"Unlike anything in the training: {'; '.join(differences)}."
    return [Finding(UNLIKE_TRAINING, text, "warning")]


def _axes(prepared: Prepared) -> Sequence[str]:
    """Which axes the prepared spacings belong to: turned as the image was, where it was turned."""
    turned = prepared.facts.get("axes_forward")
    return AXES if turned is None else [AXES[::-1][axis] for axis in turned]


def _difference(name: str, value: object, known: object) -> list[str]:
    """What is other about one fact, or nothing; the end of its name is its unit."""
    unit = next((f" {end}" for end in UNITS if name.endswith(f"_{end}")), "")
    words = name.removesuffix(unit.replace(" ", "_")).replace("_", " ")
    if isinstance(known, Mapping):
        shown = ", ".join(sorted(known)[:NAMES_SHOWN])
        return [] if str(value) in known else [f"{words} {value} (in training {shown})"]
    if not (_is_range(known) and isinstance(value, int | float)):
        return []
    low, high = float(known[0]), float(known[-1])
    if low - abs(low) * TOLERANCE <= value <= high + abs(high) * TOLERANCE:
        return []
    there = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return [f"{words} {value:g}{unit} (in training {there}{unit})"]


def _is_range(known: object) -> TypeGuard[Sequence[float]]:
    return (
        isinstance(known, Sequence)
        and not isinstance(known, str)
        and len(known) >= 2
        and all(isinstance(number, int | float) for number in known)
    )
