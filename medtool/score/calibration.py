"""Whether probabilities mean what they say: Brier, calibration errors, reliability.

The rule of the binned errors, stated because they are no numbers without it: bins of the
probability of the positive class, equal width, left-closed, the last closed at 1; a case's bin is
min(floor(round(p * bins, 9)), bins - 1), so that 0.7 * 10 = 7.000000000000001 moves no case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtool.score.intervals import wilson
from medtool.score.ranking import divide
from medtool.score.sample import BinarySample, FloatArray, IntArray

CALIBRATION_BINS = 10
BINNING_DECIMALS = 9
BINNING_RULE = "10 equal bins of the positive probability, left-closed, last closed at 1"


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin: how many, what was said, what was seen (with its Wilson interval)."""

    low: float
    high: float
    n: int
    mean_probability: float
    observed_rate: float
    observed_low: float
    observed_high: float


def equal_width_bins(scores: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """(n,) index of each probability's bin."""
    index = np.floor(np.round(scores * bins, BINNING_DECIMALS)).astype(np.intp)
    return np.minimum(index, bins - 1)


def equal_mass_bins(scores: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """(n,) index of bins of nearly equal numbers of cases; equal scores share the lower bin."""
    order = np.argsort(scores, kind="stable")
    rank = np.empty(scores.size, dtype=np.intp)
    rank[order] = np.arange(scores.size)
    _, level = np.unique(scores, return_inverse=True)
    first = np.full(level.max(initial=-1) + 1, scores.size, dtype=np.intp)
    np.minimum.at(first, level, rank)
    cases = max(scores.size, 1)
    index: IntArray = first[level] * min(bins, cases) // cases
    return index


@dataclass(frozen=True)
class BinSums:
    """Sums within bins, each (cases, bins): of a case one value or, of its voxels, many."""

    count: FloatArray
    probability: FloatArray
    positive: FloatArray

    def gaps(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(share, gap) of each bin, both (draws, bins), for ``weights`` (draws, cases).

        gap = |observed rate - mean probability|. Empty bins have share 0 and gap 0.
        """
        mass = weights @ self.count
        surplus = weights @ (self.positive - self.probability)
        gap = np.nan_to_num(np.abs(divide(surplus, mass)), nan=0.0)
        return divide(mass, mass.sum(axis=1, keepdims=True)), gap


def bin_sums(scores: FloatArray, positive: NDArray[Any], bins: int = CALIBRATION_BINS) -> BinSums:
    """The sums of one case's ``scores`` (n,) and whether each is ``positive``, shape (1, bins)."""
    index = equal_width_bins(scores, bins)
    sums = [
        np.bincount(index, values, bins).astype(np.float64)[None, :]
        for values in (np.ones(index.size), scores, positive)
    ]
    return BinSums(*sums)


def joined_sums(parts: Sequence[BinSums]) -> BinSums:
    """The sums of several cases, one row after the other."""
    names = ("count", "probability", "positive")
    return BinSums(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def gaps_weighted(
    sample: BinarySample, weights: FloatArray, index: IntArray
) -> tuple[FloatArray, FloatArray]:
    """``BinSums.gaps`` of cases with one probability each, in the bins of ``index`` (n,)."""
    member = np.zeros((sample.n, int(index.max(initial=0)) + 1))
    member[np.arange(sample.n), index] = 1.0
    sums = BinSums(member, member * sample.scores[:, None], member * sample.labels[:, None])
    return sums.gaps(weights)


def expected_gap(share: FloatArray, gap: FloatArray) -> FloatArray:
    """(draws,) expected calibration error from ``gaps_weighted``."""
    expected: FloatArray = (share * gap).sum(axis=1)
    return expected


def calibration_errors(sample: BinarySample, bins: int = CALIBRATION_BINS) -> dict[str, float]:
    """ece, mce (the largest gap of a bin) and adaptive_ece (bins of equal numbers of cases)."""
    ones = np.ones((1, sample.n))
    share, gap = gaps_weighted(sample, ones, equal_width_bins(sample.scores, bins))
    even = gaps_weighted(sample, ones, equal_mass_bins(sample.scores, bins))
    return {
        "ece": float(expected_gap(share, gap)[0]),
        "mce": float(gap.max()),
        "adaptive_ece": float(expected_gap(*even)[0]),
    }


def brier(sample: BinarySample) -> float:
    """Mean squared difference of probability and label, 0 to 1."""
    return float(np.mean((sample.scores - sample.labels) ** 2)) if sample.n else float("nan")


def reliability_table(
    sample: BinarySample, bins: int = CALIBRATION_BINS, confidence: float = 0.95
) -> list[ReliabilityBin]:
    """One row a bin that holds a case, ascending."""
    index = equal_width_bins(sample.scores, bins)
    rows = []
    for number in np.unique(index):
        inside = index == number
        n, events = int(inside.sum()), int(sample.labels[inside].sum())
        low, high = wilson(events, n, confidence)
        rows.append(
            ReliabilityBin(
                low=float(number) / bins,
                high=float(number + 1) / bins,
                n=n,
                mean_probability=float(sample.scores[inside].mean()),
                observed_rate=events / n,
                observed_low=low,
                observed_high=high,
            )
        )
    return rows
