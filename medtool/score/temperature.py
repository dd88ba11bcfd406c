"""Temperature scaling (Guo 2017): one number that makes logits as sure as they are right.

The order of cases and the largest class never change. To be fitted on cases that neither trained
the network nor score it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax

from medtool.core.errors import UsageError
from medtool.score.sample import FloatArray, IntArray

COLDEST, HOTTEST = 0.05, 20.0
MOST_STEPS = 100
SMALLEST_STEP = 1e-12


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, and the mean negative log-likelihood before and after.

    ``at_limit`` where the best value lies outside of what is allowed, as with cases that are all
    told apart: then the value is the limit.
    """

    value: float
    before: float
    after: float
    at_limit: bool

    def scale(self, logits: ArrayLike) -> FloatArray:
        """The logits at this temperature, of any shape."""
        return np.asarray(logits, dtype=np.float64) / self.value


def fit_temperature(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> Temperature:
    """The temperature of greatest likelihood, by Newton's method.

    ``logits`` are (n, classes) of one class each, or (n,) of a positive class; ``labels`` (n,)
    integers; ``weights`` (n,) what each counts, such as 1 / voxels of its case. In 1 / T the
    likelihood has one maximum only. Raises UsageError without cases, or where shapes differ.
    """
    values = np.asarray(logits, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.intp)
    if values.ndim == 1:
        values = np.stack([np.zeros_like(values), values], axis=1)
    share = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(values, truth, share)
    share = share / share.sum()
    own = np.take_along_axis(values, truth[:, None], axis=1)[:, 0]
    inverse, at_limit = _steepest(_Slope(values, own, share))
    return Temperature(
        value=1.0 / inverse,
        before=_loss(values, own, share, 1.0),
        after=_loss(values, own, share, inverse),
        at_limit=at_limit,
    )


@dataclass(frozen=True)
class _Slope:
    """First and second derivative of the mean loss by 1 / T; the second is never negative."""

    values: FloatArray
    own: FloatArray
    share: FloatArray

    def at(self, inverse: float) -> tuple[float, float]:
        chances = softmax(inverse * self.values, axis=1)
        mean = (chances * self.values).sum(axis=1)
        square = (chances * self.values**2).sum(axis=1)
        return float(self.share @ (mean - self.own)), float(self.share @ (square - mean**2))


def _steepest(slope: _Slope) -> tuple[float, bool]:
    """1 / T where the slope is 0, and whether that is beyond a limit.

    Newton's steps within a bracket; what leaps out of it is halved on the scale of logarithms.
    """
    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    if slope.at(low)[0] > 0.0:
        return low, True
    if slope.at(high)[0] < 0.0:
        return high, True
    inverse = 1.0
    for _ in range(MOST_STEPS):
        rise, bend = slope.at(inverse)
        low, high = (low, inverse) if rise > 0.0 else (inverse, high)
        further = inverse - rise / bend if bend > 0.0 else inverse
        if rise != 0.0 and not low < further < high:
            further = float(np.sqrt(low * high))
        if abs(further - inverse) <= SMALLEST_STEP * inverse:
            break
        inverse = further
    return inverse, False


def _check(values: FloatArray, truth: IntArray, share: FloatArray) -> None:
    cases = len(values)
    fits = values.ndim == 2 and truth.shape == share.shape == (cases,)
    if not cases or not fits or not np.isfinite(values).all():
        raise UsageError(
            "A temperature cannot be fitted to this.",
            met=f"logits of shape {values.shape}, {truth.size} labels, {share.size} weights",
            wanted="finite logits, one label and one weight a case",
        )
    if truth.min() < 0 or truth.max() >= values.shape[1]:
        raise UsageError(
            "A label is no class of the logits.",
            met=f"labels from {truth.min()} to {truth.max()}",
            wanted=f"0 to {values.shape[1] - 1}",
        )


def _loss(values: FloatArray, own: FloatArray, share: FloatArray, inverse: float) -> float:
    return float(share @ (logsumexp(inverse * values, axis=1) - inverse * own))
