"""Whether uncertainty finds errors, and whether voxels' probabilities mean what they say.

Within a case voxels are not independent: what is computed over voxels is one number a case, and
intervals come from the bootstrap by patient over cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from medtool.core.errors import UsageError
from medtool.score.calibration import BinSums, bin_sums, expected_gap
from medtool.score.overlap import Mask
from medtool.score.ranking import auroc, average_precision, divide
from medtool.score.sample import BinarySample, FloatArray, check_probabilities
from medtool.score.uncertainty import AnyFloats, region_near

VOXEL_RULE = (
    "voxels within 5 mm of truth or prediction; 10 equal bins of the foreground's probability, "
    "left-closed, last closed at 1"
)


@dataclass(frozen=True)
class VoxelQuality:
    """One case: how probabilities and uncertainty fit the errors near truth and prediction.

    ``auroc`` and ``average_precision`` are of uncertainty against error, ``correlation`` is
    Spearman's of the two; NaN where there is no error, or nothing else. ``bins`` are the sums that
    the calibration error of many cases is made of.
    """

    voxels: int
    errors: int
    auroc: float
    average_precision: float
    correlation: float
    bins: BinSums


def voxel_quality(
    probability: AnyFloats,
    uncertainty: AnyFloats,
    prediction: Mask,
    reference: Mask,
    spacing_mm: Sequence[float],
) -> VoxelQuality:
    """Judge one foreground's ``probability`` and ``uncertainty``; all arrays on one grid."""
    near = region_near([prediction, reference], spacing_mm)
    wrong = (prediction != reference)[near].astype(np.float64)
    doubt = uncertainty[near].astype(np.float64)
    sample = BinarySample(
        np.zeros(wrong.size, dtype=np.intp), ("case",), labels=wrong, scores=doubt
    )
    return VoxelQuality(
        voxels=int(wrong.size),
        errors=int(wrong.sum()),
        auroc=auroc(sample),
        average_precision=average_precision(sample) if sample.positives else float("nan"),
        correlation=spearman(doubt, wrong),
        bins=bin_sums(check_probabilities(probability[near]), reference[near]),
    )


def calibration_error_weighted(bins: BinSums, weights: FloatArray) -> FloatArray:
    """(draws,) expected calibration error over the voxels of all cases, each voxel counting once,
    for ``weights`` (draws, cases).
    """
    return expected_gap(*bins.gaps(weights))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's correlation of two lists; ties share their mean rank, NaN for a constant."""
    one = np.asarray(first, dtype=np.float64)
    return float(spearman_weighted(one, second, np.ones((1, one.size)))[0])


def spearman_weighted(first: ArrayLike, second: ArrayLike, weights: FloatArray) -> FloatArray:
    """(draws,) Spearman's correlation of lists (n,), each value counting ``weights`` (draws, n)."""
    one, two = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if one.shape != two.shape or one.ndim != 1:
        raise UsageError(
            "Lists that are correlated differ in length.",
            met=f"{one.shape} and {two.shape}",
            wanted="two lists of one value a case",
        )
    if not one.size:
        return np.full(weights.shape[0], np.nan)
    ranks = [_ranks_weighted(values, weights) for values in (one, two)]
    mass = weights.sum(axis=1, keepdims=True)
    apart = [rank - divide((weights * rank).sum(axis=1, keepdims=True), mass) for rank in ranks]
    together, *own = (
        (weights * left * right).sum(axis=1)
        for left, right in (apart, (apart[0], apart[0]), (apart[1], apart[1]))
    )
    # A list without spread leaves rounding errors instead of zero.
    spread = np.sqrt(own[0] * own[1])
    flat = spread <= 1e-12 * mass[:, 0] ** 3
    return divide(together, np.where(flat, 0.0, spread))


def _ranks_weighted(values: FloatArray, weights: FloatArray) -> FloatArray:
    """(draws, n) middle rank of each value where values count by their weights."""
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    of_level = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(of_level, axis=1) - 0.5 * of_level
    found: FloatArray = middle[:, level]
    return found


@dataclass(frozen=True)
class RiskCoverage:
    """What the error is when only the most confident cases are answered.

    ``coverage`` and ``risk`` (n,): the share answered, and the mean loss of those. ``area`` is the
    mean of the risks (AURC), ``best`` that of a confidence which knew the losses.
    """

    coverage: FloatArray
    risk: FloatArray
    area: float
    best: float

    @property
    def excess(self) -> float:
        """The area less the best that these losses allow."""
        return self.area - self.best


def risk_coverage(confidence: ArrayLike, losses: ArrayLike) -> RiskCoverage:
    """The curve of ``losses`` (n,) by falling ``confidence`` (n,).

    Cases of equal confidence come in no order: each counts with their mean loss. NaN without any
    case; raises UsageError where the lists differ in length.
    """
    sure, loss = (np.asarray(values, dtype=np.float64) for values in (confidence, losses))
    if sure.shape != loss.shape or sure.ndim != 1:
        raise UsageError(
            "Confidence and losses differ in number.",
            met=f"{sure.size} and {loss.size}",
            wanted="one of each per case",
        )
    _, level = np.unique(-sure, return_inverse=True)
    sums, cases = (
        np.bincount(level, values).astype(np.float64) for values in (loss, np.ones(loss.size))
    )
    shared = divide(sums, cases)[level]
    number = np.arange(1, sure.size + 1)
    risk, least = (
        np.cumsum(values) / number
        for values in (shared[np.argsort(level, kind="stable")], np.sort(loss))
    )
    means = [float(values.mean()) if sure.size else float("nan") for values in (risk, least)]
    return RiskCoverage(number / max(sure.size, 1), risk, *means)


def risk_area_weighted(confidence: ArrayLike, losses: ArrayLike, weights: FloatArray) -> FloatArray:
    """(draws,) area under the risk-coverage curve (AURC) where each case counts ``weights``
    (draws, n), whole numbers as a bootstrap draws them.

    As ``risk_coverage`` of the cases repeated so often: within a level of confidence with mean
    loss m, after cases of weight A and loss S, the mean loss at A + j is m + (S - A m) / (A + j),
    whose sum over j is a difference of digamma functions.
    """
    sure, loss = (np.asarray(values, dtype=np.float64) for values in (confidence, losses))
    if not sure.size:
        return np.full(weights.shape[0], np.nan)
    order = np.argsort(-sure, kind="stable")
    starts = np.flatnonzero(np.diff(-sure[order], prepend=-np.inf))
    mass, lost = (
        np.add.reduceat(weights[:, order] * values, starts, axis=1)
        for values in (np.ones(sure.size), loss[order])
    )
    before, lost_before = (np.cumsum(part, axis=1) - part for part in (mass, lost))
    mean = np.nan_to_num(divide(lost, mass), nan=0.0)
    harmonic = digamma(before + mass + 1.0) - digamma(before + 1.0)
    sums = mass * mean + (lost_before - before * mean) * harmonic
    return divide(sums.sum(axis=1), mass.sum(axis=1))


def review_order(uncertainty: ArrayLike) -> NDArray[np.intp]:
    """Cases in the order in which a person should look at them: unknown first, then most unsure."""
    doubt = np.asarray(uncertainty, dtype=np.float64)
    return np.argsort(-np.where(np.isnan(doubt), np.inf, doubt), kind="stable")
