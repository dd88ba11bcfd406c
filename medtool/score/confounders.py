"""Does the way a scan was made tell the label? Each fact of the cases alone, as a predictor.

Numbers (slices, thickness, mean HU) are ranked as they are, in the better of the two directions:
above 0.5 by construction, and said so. Categories (scanner, kernel) are scored by the rate of
positives among other patients of the same category, with both patients of each compared pair left
out: a category that appears once, or the same one everywhere, gives 0.5. (Leaving out only the
patient itself would punish each positive for its own absence.) Where the categories of those others
differ no more than chance lets them, the pair is a tie: leaving out a positive makes its category
look poorer by itself, and a sample that is balanced to the last case would read far below 0.5.
Both rules look at other patients only, so that without an association the mean stays 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medtool.score.delong import DeLong
from medtool.score.intervals import DEFAULT_CONFIDENCE, bootstrap
from medtool.score.ranking import auroc_levels, divide, levels_weighted
from medtool.score.sample import BinarySample, FloatArray, IntArray, binary_sample

# How a scan was made: facts that must not tell the label by themselves.
SCAN_FACTS = ("manufacturer", "kernel", "thickness_mm", "slices")
# Weight of the overall rate in the rate of a category, in cases.
PRIOR_CASES = 1.0
# Draws for the interval of a number's AUROC.
FACT_DRAWS = 1000
# A fact known for fewer cases than this predicts nothing that can be measured.
FEWEST_CASES = 8
# Pairs (positives x negatives) that are compared at once: about 20 arrays of 4 MB.
CHUNK_PAIRS = 500_000
# Sums over categories that differ by less are equal: they are added in another order each time.
ROUNDING = 1e-9

NUMBER_RULE = "number, better of the two directions"
CATEGORY_RULE = "category, rate of positives among other patients, ties where all are alike"
CONSTANT_RULE = "the same in every case"


def confounder_aurocs(
    facts: Sequence[Mapping[str, Any]],
    labels: ArrayLike,
    patients: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    confidence: float = DEFAULT_CONFIDENCE,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How well each fact alone predicts the label; highest first.

    ``facts`` has one mapping a case; lists and tables among the facts are left out, or everything
    but ``names``. Rows: fact, auroc, low, high, n (cases where it is known), how,
    confidence (level of low and high). AUROC is NaN with one class or fewer than 8 cases.
    """
    truth = np.asarray(labels, dtype=np.float64)
    rows = []
    for name in names if names is not None else _fact_names(facts):
        values = [fact.get(name) for fact in facts]
        known = np.asarray([_given(value) for value in values], dtype=np.bool_)
        ids = [patient for patient, is_known in zip(patients, known, strict=True) if is_known]
        given = [value for value in values if _given(value)]
        row = _row(given, truth[known], ids, confidence, seed)
        rows.append({"fact": name, **row, "confidence": confidence})
    return sorted(rows, key=lambda row: -row["auroc"] if isfinite(row["auroc"]) else 1.0)


def confounders_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of ``confounder_aurocs`` as one line for a person; "" where none was measured."""
    known = [
        f"{row['fact']} {row['auroc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        for row in rows
        if isfinite(row["auroc"])
    ]
    return f"AUROC of facts of the scan alone: {', '.join(known)}" if known else ""


def _row(
    values: Sequence[Any], labels: FloatArray, patients: Sequence[str], confidence: float, seed: int
) -> dict[str, Any]:
    n = len(values)
    positives = int(labels.sum())
    if n < FEWEST_CASES or not 0 < positives < n:
        return {"auroc": nan, "low": nan, "high": nan, "n": n, "how": "too few cases"}
    numbers = _numbers(values)
    if len(set(map(str, values))) == 1:
        return {"auroc": 0.5, "low": 0.5, "high": 0.5, "n": n, "how": CONSTANT_RULE}
    if numbers is not None:
        auc, low, high = _of_number(binary_sample(labels, numbers, patients), confidence, seed)
        return {"auroc": auc, "low": low, "high": high, "n": n, "how": NUMBER_RULE}
    order = binary_sample(labels, np.zeros(n), patients)
    auc, low, high = _of_category([str(value) for value in values], order, confidence)
    return {"auroc": auc, "low": low, "high": high, "n": n, "how": CATEGORY_RULE}


def _of_number(sample: BinarySample, confidence: float, seed: int) -> tuple[float, float, float]:
    def area(weights: FloatArray) -> dict[str, FloatArray]:
        return {"auroc": auroc_levels(levels_weighted(sample, weights))}

    auc = float(area(np.ones((1, sample.n)))["auroc"][0])
    low, high = bootstrap(sample, area, draws=FACT_DRAWS, seed=seed).percentile("auroc", confidence)
    return (auc, low, high) if auc >= 0.5 else (1.0 - auc, 1.0 - high, 1.0 - low)


def _of_category(
    values: Sequence[str], sample: BinarySample, confidence: float
) -> tuple[float, float, float]:
    """AUROC over all pairs of a positive and a negative case of different patients."""
    counts = _counted(values, sample)
    positive, negative = np.flatnonzero(sample.labels == 1), np.flatnonzero(sample.labels == 0)
    # Pairs that each case has, and how many of them have the positive above. Sums of ones and
    # halves are exact in any order: blocks of pairs do, and memory does not grow with all pairs.
    pairs, above = np.zeros(sample.n), np.zeros(sample.n)
    blocks = 1 + positive.size * negative.size // CHUNK_PAIRS
    for block in np.array_split(positive, min(blocks, positive.size)):
        wins = _compare(block, negative, sample, counts)
        other = sample.patient[block][:, None] != sample.patient[negative]
        wins[~other] = 0.0
        pairs[block], above[block] = other.sum(axis=1), wins.sum(axis=1)
        pairs[negative] += other.sum(axis=0)
        above[negative] += wins.sum(axis=0)
    placements = divide(above, pairs)
    auc = float(divide(above[positive].sum(), pairs[positive].sum()))
    variance = sum(_variance(placements[of], sample.patient[of]) for of in (positive, negative))
    result = DeLong(np.asarray([auc]), np.asarray([[variance]]))
    return (auc, *result.logit(0, confidence))


@dataclass(frozen=True)
class _Counts:
    """Cases and positives (``events``) of a fact: memory in proportion to the cases.

    ``cases`` and ``events`` (categories,). The entries, sorted by category, are the pairs of a
    category and a patient with cases in it: those of category k are ``first[k] : first[k + 1]`` of
    ``entry_patient``, ``entry_cases``, ``entry_events``. ``own_cases`` and ``own_events`` (n,) are
    of each case's patient in that case's category.
    """

    category: IntArray
    cases: FloatArray
    events: FloatArray
    first: IntArray
    entry_category: IntArray
    entry_patient: IntArray
    entry_cases: FloatArray
    entry_events: FloatArray
    own_cases: FloatArray
    own_events: FloatArray

    def of(self, k: int, patients: int) -> tuple[FloatArray, FloatArray]:
        """(patients,) cases and positives of each patient in category ``k``."""
        cases, events = np.zeros(patients), np.zeros(patients)
        these = slice(self.first[k], self.first[k + 1])
        cases[self.entry_patient[these]] = self.entry_cases[these]
        events[self.entry_patient[these]] = self.entry_events[these]
        return cases, events

    def changes(self, patients: int) -> tuple[FloatArray, FloatArray]:
        """(patients,) what ``_spread`` and the number of categories lose without each patient."""
        n, e = self.cases[self.entry_category], self.events[self.entry_category]
        left_n, left_e = n - self.entry_cases, e - self.entry_events
        gone = (left_n <= 0).astype(np.float64)
        lost = _spread(n, e) - _spread(left_n, left_e)
        return _sums(self.entry_patient, lost, patients), _sums(self.entry_patient, gone, patients)


def _counted(values: Sequence[str], sample: BinarySample) -> _Counts:
    _, category = np.unique(np.asarray(values), return_inverse=True)
    patients = len(sample.patients)
    entries, which = np.unique(category * patients + sample.patient, return_inverse=True)
    entry_category, entry_patient = np.divmod(entries, patients)
    entry_cases = np.bincount(which).astype(np.float64)
    entry_events = _sums(which, sample.labels, entries.size)
    cases = np.bincount(category).astype(np.float64)
    return _Counts(
        category=category,
        cases=cases,
        events=_sums(category, sample.labels, cases.size),
        first=np.searchsorted(entry_category, np.arange(cases.size + 1)),
        entry_category=entry_category,
        entry_patient=entry_patient,
        entry_cases=entry_cases,
        entry_events=entry_events,
        own_cases=entry_cases[which],
        own_events=entry_events[which],
    )


def _sums(of: IntArray, values: FloatArray, size: int) -> FloatArray:
    """(size,) the sum of the ``values`` that belong to each number of ``of``."""
    return np.bincount(of, values, size).astype(np.float64)


def _spread(n: FloatArray, events: FloatArray) -> FloatArray:
    """What a category adds to the sum over squares of positives by cases."""
    part: FloatArray = events**2 / np.maximum(n, 1.0)
    return part


@dataclass
class _Pairs:
    """Of a block of pairs, each array (positives, negatives): what is left without both patients.

    ``row_*`` and ``column_*`` are of the category of the positive and of the negative; the others
    of all categories.
    """

    row_cases: FloatArray
    row_events: FloatArray
    column_cases: FloatArray
    column_events: FloatArray
    cases: FloatArray
    events: FloatArray
    spread: FloatArray
    present: FloatArray


def _compare(
    positive: IntArray, negative: IntArray, sample: BinarySample, counts: _Counts
) -> FloatArray:
    """(positives, negatives) 1 where the positive's rate is higher, 0.5 equal; where both are of
    one patient it means nothing.
    """
    left = _without_both(positive, negative, sample, counts)
    # A patient that is taken off twice may leave nothing to divide by.
    with np.errstate(divide="ignore", invalid="ignore"):
        prior = PRIOR_CASES * (left.events + 0.5) / (left.cases + 1.0)
        difference = (left.row_events + prior) / (left.row_cases + PRIOR_CASES)
        difference -= (left.column_events + prior) / (left.column_cases + PRIOR_CASES)
    # Pearson's chi-square above its degrees of freedom, which is its mean under chance.
    rate = left.events / np.maximum(left.cases, 1.0)
    excess = left.spread - left.events * rate
    differ = excess > (left.present - 1.0) * rate * (1.0 - rate) + ROUNDING
    tied = (np.abs(difference) < 1e-12) | ~differ
    return np.where(tied, 0.5, (difference > 0).astype(np.float64))


def _without_both(
    positive: IntArray, negative: IntArray, sample: BinarySample, counts: _Counts
) -> _Pairs:
    """Everything without the patient of the row and that of the column.

    Each patient's part is taken off by itself; where both have cases in one category, that
    category is then set right: these are few pairs where there are many categories.
    """
    patients = len(sample.patients)
    p, q = sample.patient[positive], sample.patient[negative]

    def without(all_of_them: float, each: FloatArray) -> FloatArray:
        return all_of_them - each[p][:, None] - each[q]

    def of_row(totals: FloatArray, own: FloatArray) -> FloatArray:
        column = (totals[counts.category[positive]] - own[positive])[:, None]
        return np.repeat(column, q.size, axis=1)

    def of_column(totals: FloatArray, own: FloatArray) -> FloatArray:
        row = (totals[counts.category[negative]] - own[negative])[None, :]
        return np.repeat(row, p.size, axis=0)

    lost, gone = counts.changes(patients)
    left = _Pairs(
        row_cases=of_row(counts.cases, counts.own_cases),
        row_events=of_row(counts.events, counts.own_events),
        column_cases=of_column(counts.cases, counts.own_cases),
        column_events=of_column(counts.events, counts.own_events),
        cases=without(sample.n, _sums(sample.patient, np.ones(sample.n), patients)),
        events=without(sample.positives, _sums(sample.patient, sample.labels, patients)),
        spread=without(float(_spread(counts.cases, counts.events).sum()), lost),
        present=without(counts.cases.size, gone),
    )
    in_block = np.zeros(patients, dtype=np.bool_)
    in_block[p] = True
    for k in np.unique(counts.entry_category[in_block[counts.entry_patient]]):
        _set_right(left, int(k), positive, negative, sample, counts)
    return left


def _set_right(
    left: _Pairs,
    k: int,
    positive: IntArray,
    negative: IntArray,
    sample: BinarySample,
    counts: _Counts,
) -> None:
    """The pairs whose two patients both have cases in category ``k``."""
    cases, events = counts.of(k, len(sample.patients))
    p, q = sample.patient[positive], sample.patient[negative]
    rows, columns = np.flatnonzero(cases[p]), np.flatnonzero(cases[q])
    own_rows = rows[counts.category[positive[rows]] == k]
    own_columns = columns[counts.category[negative[columns]] == k]
    left.row_cases[np.ix_(own_rows, columns)] -= cases[q[columns]]
    left.row_events[np.ix_(own_rows, columns)] -= events[q[columns]]
    left.column_cases[np.ix_(rows, own_columns)] -= cases[p[rows]][:, None]
    left.column_events[np.ix_(rows, own_columns)] -= events[p[rows]][:, None]
    n, e = counts.cases[k], counts.events[k]
    without_p = n - cases[p[rows]][:, None], e - events[p[rows]][:, None]
    without_q = n - cases[q[columns]], e - events[q[columns]]
    both = without_p[0] + without_q[0] - n, without_p[1] + without_q[1] - e
    at = np.ix_(rows, columns)
    left.spread[at] += _spread(*both) - _spread(*without_p) - _spread(*without_q) + _spread(n, e)
    here = (both[0] > 0).astype(np.float64)
    left.present[at] += here - (without_p[0] > 0) - (without_q[0] > 0) + 1.0


def _variance(placements: FloatArray, patient: IntArray) -> float:
    """Variance of the mean placement, cases of one patient counted as one cluster."""
    _, cluster = np.unique(patient, return_inverse=True)
    k = int(cluster.max()) + 1
    if k < 2:
        return nan
    deviations = np.bincount(cluster, placements - placements.mean(), k)
    return float((deviations**2).sum() / placements.size**2 * k / (k - 1))


def _fact_names(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for fact in facts:
        for name, value in fact.items():
            if _given(value):
                names.setdefault(name)
    return [n for n in names if all(_plain(fact.get(n)) for fact in facts)]


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, np.generic))


def _given(value: object) -> bool:
    return value is not None and str(value).strip() not in ("", "nan", "None")


def _numbers(values: Sequence[Any]) -> FloatArray | None:
    """The values as numbers, or None when one is a text or a yes and no."""
    if any(isinstance(value, (bool, np.bool_)) for value in values):
        return None
    try:
        numbers = np.asarray([float(str(value)) for value in values])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
