"""How far predicted survival is from what happened: Brier score, its integral, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from medtool.core.errors import UsageError
from medtool.score.intervals import DEFAULT_CONFIDENCE
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray
from medtool.score.survival import SurvivalSample
from medtool.score.survival_curves import SurvivalCurve, kaplan_meier

DEFAULT_GROUPS = 5


def brier_terms(
    sample: SurvivalSample, survival: ArrayLike, censoring: SurvivalCurve, times: ArrayLike
) -> FloatArray:
    """(n, times) what each patient adds to the Brier score of each time (Graf 1999).

    ``survival`` (n, times) is the predicted share without event at each time. Squared errors of
    those with the event by then weigh 1 / G at their event, of those free of it 1 / G at the time;
    the censored before add 0. ``censoring`` is G, the curve of the training patients; where it is
    0 for somebody who counts, the term is NaN. Raises UsageError where shapes differ.
    """
    at = np.asarray(times, dtype=np.float64).reshape(-1)
    predicted = _check_survival(sample, survival, at)
    had = (sample.times[:, None] <= at) & (sample.events[:, None] > 0)
    free = sample.times[:, None] > at
    of_event = divide(1.0, censoring.at(sample.times))[:, None]
    of_time = divide(1.0, censoring.at(at))[None, :]
    lost = np.where(had, predicted**2 * of_event, 0.0)
    return np.where(free, (1.0 - predicted) ** 2 * of_time, lost)


def _check_survival(sample: SurvivalSample, survival: ArrayLike, times: FloatArray) -> FloatArray:
    predicted = np.asarray(survival, dtype=np.float64)
    if predicted.shape != (sample.n, times.size):
        raise UsageError(
            "Predicted survival does not fit the patients and times.",
            met=" x ".join(map(str, predicted.shape)),
            wanted=f"{sample.n} patients x {times.size} times",
        )
    return predicted


def brier_weighted(terms: FloatArray, weights: FloatArray) -> FloatArray:
    """(draws, times) Brier scores from ``brier_terms``, for each row of ``weights`` (draws, n)."""
    return divide(weights @ terms, weights.sum(axis=1, keepdims=True))


def integrated_brier(scores: FloatArray, times: ArrayLike) -> FloatArray:
    """(draws,) mean over time of Brier ``scores`` (draws, times), by the trapezoid rule.

    ``times`` ascend; NaN with one time only.
    """
    at = np.asarray(times, dtype=np.float64)
    if at.size < 2:
        return np.full(scores.shape[0], nan)
    area: FloatArray = np.trapezoid(scores, at, axis=1) / (at[-1] - at[0])
    return area


@dataclass(frozen=True)
class CalibrationGroup:
    """Patients of neighbouring risk: what was said of them at a time, and what was seen.

    ``predicted`` is the mean probability of the event by then, ``observed`` 1 - Kaplan-Meier with
    its log(-log) interval; ``followed`` is how many were still followed at that time.
    """

    n: int
    events: int
    followed: int
    predicted: float
    observed: float
    low: float
    high: float


def calibration_at(
    sample: SurvivalSample,
    survival: ArrayLike,
    time: float,
    *,
    groups: int = DEFAULT_GROUPS,
    confidence: float = DEFAULT_CONFIDENCE,
) -> list[CalibrationGroup]:
    """Groups of nearly equal size by predicted ``survival`` (n,) at ``time``, lowest risk first.

    Patients of equal prediction stay together, so that there may be fewer groups. Raises
    UsageError where predictions and patients differ in number.
    """
    predicted = _check_survival(sample, np.reshape(survival, (-1, 1)), np.asarray([time]))[:, 0]
    _, level, counts = np.unique(-predicted, return_inverse=True, return_counts=True)
    group = (np.cumsum(counts) - counts)[level] * groups // max(sample.n, 1)
    rows = []
    for number in np.unique(group):
        inside = group == number
        part = sample.take(inside)
        curve = kaplan_meier(part)
        low, high = curve.interval_at([time], confidence)
        rows.append(
            CalibrationGroup(
                n=part.n,
                events=int(part.events[part.times <= time].sum()),
                followed=int(curve.at_risk_at([time])[0]),
                predicted=float(1.0 - predicted[inside].mean()),
                observed=float(1.0 - curve.at([time])[0]),
                low=float(1.0 - high[0]),
                high=float(1.0 - low[0]),
            )
        )
    return rows
