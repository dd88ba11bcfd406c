"""DeLong's variance of AUROCs by midranks (Sun and Xu 2014), one interval, one comparison.

Assumes independent cases: where patients have several, the bootstrap by patient answers instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from medtool.core.errors import LabelsError
from medtool.score.intervals import DEFAULT_CONFIDENCE
from medtool.score.sample import FloatArray, binary_sample


@dataclass(frozen=True)
class DeLong:
    """``aucs`` (models,) and their ``covariance`` (models, models)."""

    aucs: FloatArray
    covariance: FloatArray

    def standard_error(self, model: int = 0) -> float:
        """Standard error of one AUROC."""
        return sqrt(max(float(self.covariance[model, model]), 0.0))

    def wald(self, model: int = 0, confidence: float = DEFAULT_CONFIDENCE) -> tuple[float, float]:
        """AUROC plus and minus z standard errors, not clipped: it may pass 1."""
        half = float(ndtri(0.5 + confidence / 2.0)) * self.standard_error(model)
        return float(self.aucs[model]) - half, float(self.aucs[model]) + half

    def logit(self, model: int = 0, confidence: float = DEFAULT_CONFIDENCE) -> tuple[float, float]:
        """Interval on the logit scale, which stays inside 0..1.

        At an AUROC of 0 or 1 the logit is not defined: the clipped Wald interval is given.
        """
        auc, error = float(self.aucs[model]), self.standard_error(model)
        if not isfinite(auc) or not isfinite(error):
            return float("nan"), float("nan")
        if auc in (0.0, 1.0):
            low, high = self.wald(model, confidence)
            return max(low, 0.0), min(high, 1.0)
        half = float(ndtri(0.5 + confidence / 2.0)) * error / (auc * (1.0 - auc))
        centre = log(auc / (1.0 - auc))
        return 1.0 / (1.0 + exp(half - centre)), 1.0 / (1.0 + exp(-half - centre))


@dataclass(frozen=True)
class Difference:
    """Two AUROCs on the same cases; ``p`` is two-sided."""

    difference: float
    standard_error: float
    z: float
    p: float


def delong(labels: ArrayLike, scores: Sequence[ArrayLike]) -> DeLong:
    """AUROCs of several models on the same cases, with their covariance.

    Raises LabelsError when a class is missing. With one case of a class its variance component
    is undefined and the covariance NaN.
    """
    samples = [binary_sample(labels, column) for column in scores]
    first = samples[0]
    if not first.both_classes:
        raise LabelsError(
            "An AUROC needs both classes.",
            met=f"{first.positives} positives and {first.negatives} negatives",
        )
    positive = first.labels == 1.0
    m, n = first.positives, first.negatives
    placements = []
    for sample in samples:
        pooled = rankdata(sample.scores)
        above = (pooled[positive] - rankdata(sample.scores[positive])) / n
        below = 1.0 - (pooled[~positive] - rankdata(sample.scores[~positive])) / m
        placements.append((above, below))
    v10 = np.stack([above for above, _ in placements])
    v01 = np.stack([below for _, below in placements])
    covariance = _covariance(v10) / m + _covariance(v01) / n
    return DeLong(v10.mean(axis=1), covariance)


def _covariance(rows: FloatArray) -> FloatArray:
    if rows.shape[1] < 2:
        return np.full((rows.shape[0], rows.shape[0]), np.nan)
    return np.atleast_2d(np.cov(rows, ddof=1))


def compare_aurocs(result: DeLong, first: int = 0, second: int = 1) -> Difference:
    """z and p of the difference of two AUROCs; p is 1 for identical rankings.

    p is NaN when the variance is 0 or undefined although the AUROCs differ.
    """
    difference = float(result.aucs[first] - result.aucs[second])
    c = result.covariance
    variance = float(c[first, first] + c[second, second] - 2.0 * c[first, second])
    if not isfinite(variance) or variance <= 1e-16:
        p = 1.0 if difference == 0.0 else float("nan")
        return Difference(difference, 0.0 if isfinite(variance) else variance, float("nan"), p)
    error = sqrt(variance)
    z = difference / error
    return Difference(difference, error, z, 2.0 * float(ndtr(-abs(z))))
