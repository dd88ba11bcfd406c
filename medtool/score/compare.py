"""Two models on the same cases: DeLong's test and the paired bootstrap by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike

from medtool.score.delong import Difference, compare_aurocs, delong
from medtool.score.intervals import (
    DEFAULT_CONFIDENCE,
    DEFAULT_DRAWS,
    draw_patients,
    percentile_interval,
    row_weights,
    two_sided_p,
)
from medtool.score.ranking import auroc, auroc_levels, levels_weighted
from medtool.score.sample import binary_sample

__all__ = ["Comparison", "compare_models"]


@dataclass(frozen=True)
class Comparison:
    """AUROCs of two models on the same cases, and their difference (first minus second).

    ``interval`` and ``p`` are from the paired bootstrap by patient (percentiles; 2 min(tails)
    with one added to each count); ``delong`` is None where patients have several cases.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p: float
    n: int
    patients: int
    draws: int
    redrawn: int
    confidence: float
    delong: Difference | None

    def lines(self) -> list[str]:
        """The comparison as sentences."""
        low, high = self.interval
        said = [
            f"AUROC {self.first:.3f} and {self.second:.3f}: difference {self.difference:.3f} "
            f"({self.confidence:.0%} interval {low:.3f} to {high:.3f}; paired bootstrap of "
            f"{self.patients} patients, {self.draws} draws), p {self.p:.3g}."
        ]
        if self.delong is not None:
            z = f"{self.delong.z:.3f}" if isfinite(self.delong.z) else "undefined (no difference)"
            said.append(f"DeLong: z {z}, p {self.delong.p:.3g}.")
        else:
            said.append("DeLong is left out: it assumes one case a patient.")
        return said


def compare_models(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    draws: int = DEFAULT_DRAWS,
    confidence: float = DEFAULT_CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """Compare two models by AUROC; the same patients are drawn for both.

    Raises LabelsError when a class is missing, UsageError when lengths differ.
    """
    one = binary_sample(labels, first, patients)
    two = binary_sample(labels, second, patients)
    variance = delong(labels, [first, second])
    counts, redrawn = draw_patients(one, draws, seed)
    differences = [
        auroc_levels(levels_weighted(one, w)) - auroc_levels(levels_weighted(two, w))
        for w in row_weights(one, counts)
    ]
    replicates = np.concatenate(differences)
    return Comparison(
        first=auroc(one),
        second=auroc(two),
        difference=auroc(one) - auroc(two),
        interval=percentile_interval(replicates, confidence),
        p=two_sided_p(replicates),
        n=one.n,
        patients=len(one.patients),
        draws=draws,
        redrawn=redrawn,
        confidence=confidence,
        delong=compare_aurocs(variance) if one.one_case_per_patient else None,
    )
