"""Kaplan-Meier curves with Greenwood's intervals, the curve of censoring, and the log-rank test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, ndtri

from medtool.core.errors import UsageError
from medtool.score.intervals import DEFAULT_CONFIDENCE
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray
from medtool.score.survival import SurvivalSample


@dataclass(frozen=True)
class SurvivalCurve:
    """A step function that falls from 1: Kaplan and Meier 1958.

    All (k,), at the distinct times of the sample, ascending: how many were at risk just before,
    how many left by what the curve is about, the share left after it, and Greenwood's sum of
    d / (n (n - d)), which is the variance of the logarithm.
    """

    times: FloatArray
    at_risk: FloatArray
    events: FloatArray
    share: FloatArray
    greenwood: FloatArray

    def at(self, times: ArrayLike) -> FloatArray:
        """The share left after each of ``times``; beyond the last time it stays the last."""
        return _step(self.times, self.share, times, before=1.0)

    def at_risk_at(self, times: ArrayLike) -> FloatArray:
        """How many are followed up to each of ``times`` at least."""
        place = np.searchsorted(self.times, np.asarray(times, dtype=np.float64), side="left")
        return np.append(self.at_risk, 0.0)[place]

    def interval_at(
        self, times: ArrayLike, confidence: float = DEFAULT_CONFIDENCE
    ) -> tuple[FloatArray, FloatArray]:
        """Low and high by log(-log), which stays within 0 to 1; NaN where the share is 0 or 1."""
        share = self.at(times)
        greenwood = _step(self.times, self.greenwood, times, before=0.0)
        inside = (share > 0.0) & (share < 1.0)
        safe = np.where(inside, share, 0.5)
        error = np.sqrt(np.where(inside, greenwood, 0.0)) / np.abs(np.log(safe))
        z = float(ndtri(0.5 + confidence / 2.0))
        low, high = (safe ** np.exp(sign * z * error) for sign in (1.0, -1.0))
        return np.where(inside, low, nan), np.where(inside, high, nan)

    def median(self) -> float:
        """The first time at which no more than half are left; infinite where that never is."""
        # A product of fractions may miss one half by a rounding error.
        reached = np.flatnonzero(self.share <= 0.5 + 1e-12)
        return float(self.times[reached[0]]) if reached.size else inf


def _step(times: FloatArray, values: FloatArray, wanted: ArrayLike, *, before: float) -> FloatArray:
    place = np.searchsorted(times, np.asarray(wanted, dtype=np.float64), side="right")
    return np.append(before, values)[place]


def kaplan_meier(sample: SurvivalSample) -> SurvivalCurve:
    """The share without event over time."""
    times, deaths, leaving = _counts(sample)
    at_risk = leaving[::-1].cumsum()[::-1]
    return _curve(times, at_risk, deaths)


def censoring_curve(sample: SurvivalSample) -> SurvivalCurve:
    """The share still followed over time, events being what ends the wait for censoring.

    Of those with one time, events leave before the censored do.
    """
    times, deaths, leaving = _counts(sample)
    at_risk = leaving[::-1].cumsum()[::-1] - deaths
    return _curve(times, at_risk, leaving - deaths)


def _counts(sample: SurvivalSample) -> tuple[FloatArray, FloatArray, FloatArray]:
    times, level = np.unique(sample.times, return_inverse=True)
    deaths = np.bincount(level, sample.events, times.size).astype(np.float64)
    leaving = np.bincount(level, minlength=times.size).astype(np.float64)
    return times, deaths, leaving


def _curve(times: FloatArray, at_risk: FloatArray, leaving: FloatArray) -> SurvivalCurve:
    # Where nobody is at risk nobody leaves, and the curve stays where it is.
    left = np.nan_to_num(divide(at_risk - leaving, at_risk), nan=1.0)
    lost = np.where(leaving > 0.0, divide(leaving, at_risk * (at_risk - leaving)), 0.0)
    greenwood = np.nan_to_num(lost, nan=inf).cumsum()
    return SurvivalCurve(times, at_risk, leaving, left.cumprod(), greenwood)


def survival_weighted(sample: SurvivalSample, weights: FloatArray, times: ArrayLike) -> FloatArray:
    """(draws, times) Kaplan-Meier shares for each row of ``weights`` (draws, n)."""
    order = np.argsort(sample.times, kind="stable")
    distinct, starts = np.unique(sample.times[order], return_index=True)
    ordered = weights[:, order]
    deaths = np.add.reduceat(ordered * sample.events[order], starts, axis=1)
    leaving = np.add.reduceat(ordered, starts, axis=1)
    at_risk = leaving[:, ::-1].cumsum(axis=1)[:, ::-1]
    left = np.nan_to_num(divide(at_risk - deaths, at_risk), nan=1.0).cumprod(axis=1)
    place = np.searchsorted(distinct, np.asarray(times, dtype=np.float64), side="right")
    first = np.ones((weights.shape[0], 1))
    return np.concatenate((first, left), axis=1)[:, place]


@dataclass(frozen=True)
class LogRank:
    """Whether groups have one survival: chi-square, its degrees of freedom and p.

    ``observed`` and ``expected`` events are by group, in the order of ``groups``.
    """

    groups: tuple[str, ...]
    observed: tuple[float, ...]
    expected: tuple[float, ...]
    chi_square: float
    degrees: int
    p: float


def log_rank(sample: SurvivalSample, groups: Sequence[str]) -> LogRank:
    """The log-rank test (Mantel 1966) over two or more groups, with hypergeometric variances.

    NaN where there is no event. Raises UsageError with one group only, or lengths that differ.
    """
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if index.size != sample.n or names.size < 2:
        raise UsageError(
            "The log-rank test compares groups of patients.",
            met=f"{names.size} groups of {index.size} patients",
            wanted=f"two groups at least, one for each of {sample.n} patients",
        )
    times, level = np.unique(sample.times, return_inverse=True)
    shape = (times.size, names.size)
    deaths, leaving = np.zeros(shape), np.zeros(shape)
    np.add.at(deaths, (level, index), sample.events)
    np.add.at(leaving, (level, index), 1.0)
    at_risk = leaving[::-1].cumsum(axis=0)[::-1]
    died, all_at_risk = deaths.sum(axis=1), at_risk.sum(axis=1)
    share = at_risk / all_at_risk[:, None]
    expected = (share * died[:, None]).sum(axis=0)
    # Of a single patient at risk the event is no draw: no variance.
    spread = died * np.nan_to_num(divide(all_at_risk - died, all_at_risk - 1.0), nan=0.0)
    covariance = (
        np.diag((spread[:, None] * share).sum(axis=0)) - (spread[:, None] * share).T @ share
    )
    apart = deaths.sum(axis=0) - expected
    degrees = int(np.count_nonzero(expected > 0.0)) - 1
    chi_square = float(apart @ np.linalg.pinv(covariance) @ apart) if died.any() else nan
    return LogRank(
        groups=tuple(str(name) for name in names),
        observed=tuple(deaths.sum(axis=0).tolist()),
        expected=tuple(expected.tolist()),
        chi_square=chi_square,
        degrees=degrees,
        p=float(chdtrc(degrees, chi_square)) if degrees > 0 else nan,
    )
