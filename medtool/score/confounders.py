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
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtool.score.delong import DeLong
from medtool.score.intervals import DEFAULT_CONFIDENCE, bootstrap
from medtool.score.ranking import auroc_levels, levels_weighted
from medtool.score.sample import BinarySample, FloatArray, binary_sample

# How a scan was made: facts that must not tell the label by themselves.
SCAN_FACTS = ("manufacturer", "kernel", "thickness_mm", "slices")
# Weight of the overall rate in the rate of a category, in cases.
PRIOR_CASES = 1.0
# Draws for the interval of a number's AUROC.
FACT_DRAWS = 1000
# A fact known for fewer cases than this predicts nothing that can be measured.
FEWEST_CASES = 8
# Pairs (positives x negatives) that are compared at once.
CHUNK_PAIRS = 2_000_000

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
    _, category = np.unique(np.asarray(values), return_inverse=True)
    # (patients, categories): cases and positives of each patient in each category.
    shape = (len(sample.patients), int(category.max()) + 1)
    cases, events = np.zeros(shape), np.zeros(shape)
    np.add.at(cases, (sample.patient, category), 1.0)
    np.add.at(events, (sample.patient, category), sample.labels)
    positive, negative = np.flatnonzero(sample.labels == 1), np.flatnonzero(sample.labels == 0)
    wins = np.concatenate(
        [
            _compare(block, negative, category, sample, cases, events)
            for block in np.array_split(positive, 1 + positive.size * negative.size // CHUNK_PAIRS)
        ]
    )
    v10, v01 = np.nanmean(wins, axis=1), np.nanmean(wins, axis=0)
    auc = float(np.nanmean(wins))
    variance = _variance(v10, sample.patient[positive]) + _variance(v01, sample.patient[negative])
    result = DeLong(np.asarray([auc]), np.asarray([[variance]]))
    return (auc, *result.logit(0, confidence))


def _compare(
    positive: NDArray[np.intp],
    negative: NDArray[np.intp],
    category: NDArray[np.intp],
    sample: BinarySample,
    cases: FloatArray,
    events: FloatArray,
) -> FloatArray:
    """(positives, negatives) 1 where the positive's rate is higher, 0.5 equal, NaN same patient."""
    p, q = sample.patient[positive][:, None], sample.patient[negative][None, :]

    def without_both(counts: FloatArray, column: NDArray[np.intp]) -> FloatArray:
        total: FloatArray = counts.sum(axis=0)[column] - counts[p, column] - counts[q, column]
        return total

    def rest(counts: FloatArray) -> FloatArray:
        each = counts.sum(axis=1)
        left: FloatArray = each.sum() - each[p] - each[q]
        return left

    prior = (rest(events) + 0.5) / (rest(cases) + 1.0)

    def rate(column: NDArray[np.intp]) -> FloatArray:
        above = without_both(events, column) + PRIOR_CASES * prior
        smoothed: FloatArray = above / (without_both(cases, column) + PRIOR_CASES)
        return smoothed

    difference = rate(category[positive][:, None]) - rate(category[negative][None, :])
    tied = (np.abs(difference) < 1e-12) | ~_differ(p, q, cases, events)
    wins = np.where(tied, 0.5, (difference > 0).astype(np.float64))
    return np.where(p == q, np.nan, wins)


def _differ(
    p: NDArray[np.intp], q: NDArray[np.intp], cases: FloatArray, events: FloatArray
) -> NDArray[np.bool_]:
    """Whether rates differ more than by chance without patients p (column) and q (row).

    That is Pearson's chi-square above its degrees of freedom, which is its mean under chance.
    """
    spread, present = np.zeros((p.size, q.size)), np.zeros((p.size, q.size))
    n_all, events_all = np.zeros_like(spread), np.zeros_like(spread)
    for k in range(cases.shape[1]):
        n = cases[:, k].sum() - cases[p, k] - cases[q, k]
        positive = events[:, k].sum() - events[p, k] - events[q, k]
        spread += positive**2 / np.maximum(n, 1.0)
        present += n > 0
        n_all += n
        events_all += positive
    rate = events_all / np.maximum(n_all, 1.0)
    excess = spread - events_all * rate
    enough: NDArray[np.bool_] = excess > (present - 1.0) * rate * (1.0 - rate) + 1e-12
    return enough


def _variance(placements: FloatArray, patient: NDArray[np.intp]) -> float:
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
