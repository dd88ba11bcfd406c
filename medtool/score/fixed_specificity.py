"""Sensitivity at a fixed specificity: the threshold is chosen on the selection part, never here.

Where several models answered (folds), each model's threshold comes from its own selection part and
applies to its own cases. Reading the curve of the cases that are scored would flatter: it is done
only where there is no selection part, and labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medtool.score.confusion import confusion
from medtool.score.sample import BinarySample, FloatArray, binary_sample
from medtool.score.threshold import threshold_for_specificity

# Specificities at which the sensitivity is reported.
SPECIFICITY_TARGETS = (0.8, 0.9)
OWN_CASES = "these cases (optimistic)"
ONE_SELECTION = "the selection part"
SEVERAL_SELECTIONS = "each fold's selection part"


@dataclass(frozen=True)
class SelectionPart:
    """The cases that chose the threshold: thresholds for fixed specificities come from them."""

    labels: ArrayLike
    probabilities: ArrayLike


@dataclass(frozen=True)
class FoldSelections:
    """The selection part of each fold, by its name, and the fold of each case that is scored."""

    parts: Mapping[str, SelectionPart]
    folds: Sequence[str]


@dataclass(frozen=True)
class FixedSpecificity:
    """One target: its thresholds, one a case (n,), and what they reach on these cases."""

    target: float
    at: FloatArray
    threshold_from: str
    sensitivity: float
    specificity: float

    @property
    def name(self) -> str:
        """The metric's name."""
        return f"sensitivity_at_specificity_{self.target:g}"

    @property
    def threshold(self) -> float | None:
        """The threshold, None where folds have their own."""
        return float(self.at[0]) if np.ptp(self.at) == 0.0 else None

    @property
    def convention(self) -> str:
        """How the number is to be read."""
        lowest, highest = float(self.at.min()), float(self.at.max())
        shown = f"{lowest:.4g}" if lowest == highest else f"{lowest:.4g} to {highest:.4g}"
        return (
            f"threshold {shown} from {self.threshold_from}; "
            f"specificity reached here {self.specificity:.3f}"
        )

    def as_row(self) -> dict[str, Any]:
        """Plain values for scores.json."""
        return {
            "name": self.name,
            "target": self.target,
            "threshold": self.threshold,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "threshold_from": self.threshold_from,
        }


def fixed_specificities(
    sample: BinarySample,
    selection: SelectionPart | FoldSelections | None,
) -> list[FixedSpecificity]:
    """Every target of SPECIFICITY_TARGETS; nothing where no negative can set a threshold."""
    parts, names, source = _parts_of(sample, selection)
    if any(part.negatives == 0 for part in parts.values()):
        return []
    found = []
    for target in SPECIFICITY_TARGETS:
        chosen = {name: threshold_for_specificity(part, target) for name, part in parts.items()}
        at = np.asarray([chosen[name] for name in names], dtype=np.float64)
        reached = confusion(sample, at).metrics()
        found.append(
            FixedSpecificity(
                target, at, source, float(reached["sensitivity"]), float(reached["specificity"])
            )
        )
    return found


def _parts_of(
    sample: BinarySample, selection: SelectionPart | FoldSelections | None
) -> tuple[dict[str, BinarySample], list[str], str]:
    """Who sets thresholds, by name; the name that applies to each case; what to call them."""
    if isinstance(selection, SelectionPart):
        return {"": _sample(selection)}, [""] * sample.n, ONE_SELECTION
    if selection is not None and set(selection.folds) <= selection.parts.keys():
        names = list(selection.folds)
        source = SEVERAL_SELECTIONS if len(set(names)) > 1 else ONE_SELECTION
        return {name: _sample(selection.parts[name]) for name in set(names)}, names, source
    return {"": sample}, [""] * sample.n, OWN_CASES


def _sample(part: SelectionPart) -> BinarySample:
    return binary_sample(part.labels, part.probabilities)
