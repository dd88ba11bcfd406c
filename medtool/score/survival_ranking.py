"""How well risks order patients: Harrell's and Uno's C, and the AUC at a time.

A pair counts when it is known whose event came first: the earlier time is an event's, or both
times are equal and one of them is an event's. A pair is right when who had the event first has the
higher risk; risks that differ by no more than ``TIE_TOLERANCE`` are tied and count half. Pairs of
two events at one time say nothing and are left out.

Counting pairs takes n log n: the patients are laid out bit by bit of the rank of their risk (a
wavelet tree), where "later than this one, and of lower risk" is a difference of two running sums
a bit. The layout does not depend on weights, so that all bootstrap draws share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medtool.score.ranking import auroc_levels, divide, levels_weighted
from medtool.score.sample import BinarySample, FloatArray, IntArray
from medtool.score.survival import SurvivalSample, check_risks
from medtool.score.survival_curves import SurvivalCurve, survival_weighted

TIE_TOLERANCE = 1e-8
PAIRS_RULE = (
    "pairs whose order of events is known; equal times count where one is censored; tied risks "
    "count half; higher risk is worse"
)


class Pairs(NamedTuple):
    """Sums over pairs, one for each row of weights."""

    concordant: FloatArray
    discordant: FloatArray
    tied_risk: FloatArray

    @property
    def c_index(self) -> FloatArray:
        """(concordant + tied / 2) / all; NaN without any pair."""
        return divide(self.concordant + 0.5 * self.tied_risk, sum(self))


class _Bit(NamedTuple):
    """One bit of the ranks: patients in the order of (higher bits, time), and of each event whose
    bit is set the stretch of that order that holds the later patients with the bit clear.
    """

    order: IntArray
    queries: IntArray
    begins: IntArray
    ends: IntArray

    def sums(self, weights: FloatArray) -> FloatArray:
        """(draws, queries) weight of each stretch."""
        running = np.zeros((weights.shape[0], self.order.size + 1))
        np.cumsum(weights[:, self.order], axis=1, out=running[:, 1:])
        return running[:, self.ends] - running[:, self.begins]


@dataclass(frozen=True)
class PairCounter:
    """Comparable pairs of a sample under one set of risks, ready to be counted for any weights.

    ``first`` are the patients with the earlier event of a pair, ``factor`` what each of their
    pairs counts.
    """

    sample: SurvivalSample
    first: IntArray
    factor: FloatArray
    later: _Bit
    equal: _Bit
    lower: tuple[_Bit, ...]

    def count(self, weights: FloatArray | None = None) -> Pairs:
        """Pairs for each row of ``weights`` (draws, n), a pair weighing the product of its two.

        Without weights each patient weighs 1 and the counts have length 1.
        """
        rows = np.ones((1, self.sample.n)) if weights is None else weights
        outer = rows[:, self.first] * self.factor
        concordant = np.zeros(rows.shape[0])
        for bit in self.lower:
            concordant += (outer[:, bit.queries] * bit.sums(rows)).sum(axis=1)
        tied = (outer * self.equal.sums(rows)).sum(axis=1)
        every = (outer * self.later.sums(rows)).sum(axis=1)
        return Pairs(concordant, every - concordant - tied, tied)

    def c_index(self) -> float:
        """The index of the sample as it is; NaN without any pair."""
        return float(self.count().c_index[0])


def harrell(sample: SurvivalSample, risks: ArrayLike) -> PairCounter:
    """The pairs of Harrell's C (1982), each counting once.

    Raises UsageError where the risks do not fit the patients.
    """
    return _counter(sample, risks, np.where(sample.events > 0, 1.0, 0.0))


def uno(
    sample: SurvivalSample, risks: ArrayLike, censoring: SurvivalCurve, before: float = inf
) -> PairCounter:
    """The pairs of Uno's C (2011): those whose first event is before a time, by 1 / G squared.

    ``censoring`` is the curve G of the training patients, taken at the earlier event of each pair.
    Where G is 0 there, the index is NaN: nobody in training was followed so long. Raises
    UsageError where the risks do not fit the patients.
    """
    used = (sample.events > 0) & (sample.times < before)
    factor = divide(1.0, censoring.at(sample.times) ** 2)
    return _counter(sample, risks, np.where(used, factor, 0.0))


def _counter(sample: SurvivalSample, risks: ArrayLike, factor: FloatArray) -> PairCounter:
    rank = _ranks(check_risks(sample, risks))
    # Events stand before the censored of their time: what follows an event's last equal is later.
    by_time = np.lexsort((1.0 - sample.events, sample.times))
    place = np.empty(sample.n, dtype=np.intp)
    place[by_time] = np.arange(sample.n)
    first = np.flatnonzero(factor != 0.0)
    level = np.unique(sample.times, return_inverse=True)[1]
    events_until = np.cumsum(np.bincount(level, minlength=1))
    events_until -= np.bincount(level, 1.0 - sample.events, events_until.size).astype(np.intp)
    after = events_until[level[first]]
    every = np.arange(first.size)
    lower = []
    for number in range(int(rank.max(initial=0)).bit_length()):
        with_bit = every[(rank[first] >> number) & 1 == 1]
        clear = (rank[first[with_bit]] >> number) - 1
        lower.append(_bit(rank >> number, place, with_bit, clear, after[with_bit]))
    return PairCounter(
        sample=sample,
        first=first,
        factor=factor[first],
        later=_bit(np.zeros_like(rank), place, every, np.zeros_like(every), after),
        equal=_bit(rank, place, every, rank[first], after),
        lower=tuple(lower),
    )


def _bit(
    group: IntArray, place: IntArray, queries: IntArray, wanted: IntArray, after: IntArray
) -> _Bit:
    """Patients by (group, place); of each query those of the ``wanted`` group from ``after`` on."""
    key = group * group.size + place
    order = np.argsort(key)
    begins = np.searchsorted(key[order], wanted * group.size + after)
    ends = np.searchsorted(key[order], (wanted + 1) * group.size)
    return _Bit(order, queries, begins, ends)


def _ranks(risks: FloatArray) -> IntArray:
    """(n,) rank of each risk from 0; neighbours within the tolerance share one."""
    order = np.argsort(risks, kind="stable")
    apart = np.diff(risks[order], prepend=risks[order[:1]]) > TIE_TOLERANCE
    rank = np.empty(risks.size, dtype=np.intp)
    rank[order] = np.cumsum(apart)
    return rank


def equal_time_pairs(sample: SurvivalSample) -> tuple[int, int]:
    """Pairs of equal time: those of an event and a censored patient, which count, and those of
    two events, which do not.
    """
    times, level = np.unique(sample.times, return_inverse=True)
    deaths = np.bincount(level, sample.events, times.size)
    censored = np.bincount(level, minlength=times.size) - deaths
    return int((deaths * censored).sum()), int((deaths * (deaths - 1) / 2).sum())


def auc_weighted(
    sample: SurvivalSample,
    risks: ArrayLike,
    censoring: SurvivalCurve,
    times: ArrayLike,
    weights: FloatArray,
) -> FloatArray:
    """(draws, times) AUC at each time (Uno 2007), for each row of ``weights`` (draws, n).

    Who had the event by then, weighing 1 / G at that event, against who is known to be free of it
    then; the censored before are left out. NaN without both, or where ``censoring``, the curve G
    of the training patients, is 0 at an event that counts.
    """
    values = check_risks(sample, risks)
    ranks = _ranks(values).astype(np.float64)
    inverse = divide(1.0, censoring.at(sample.times))
    found = []
    for time in np.asarray(times, dtype=np.float64).reshape(-1):
        case = (sample.times <= time) & (sample.events > 0)
        used = case | (sample.times > time)
        part = BinarySample(
            sample.patient[used], sample.patients, case[used].astype(np.float64), ranks[used]
        )
        factor = np.where(case, inverse, 1.0)[used]
        if part.both_classes:
            found.append(auroc_levels(levels_weighted(part, weights[:, used] * factor)))
        else:
            found.append(np.full(weights.shape[0], np.nan))
    return np.stack(found, axis=1)


def mean_auc_weighted(
    sample: SurvivalSample, areas: FloatArray, times: ArrayLike, weights: FloatArray
) -> FloatArray:
    """(draws,) mean over times of ``areas`` (draws, times), weighing the fall of survival.

    Each time weighs by how far the sample's Kaplan-Meier curve fell since the time before
    (Lambert and Chevret 2016); NaN where it did not fall or an area is NaN.
    """
    share = survival_weighted(sample, weights, times)
    fall = -np.diff(share, axis=1, prepend=1.0)
    return divide((areas * fall).sum(axis=1), 1.0 - share[:, -1])
