"""How well scores order the cases: ROC, precision and recall, AUROC, average precision.

A threshold t means "score >= t is positive" everywhere. Functions that end in ``_weighted`` take
weights of shape (draws, cases), one row per bootstrap draw, and give one value per draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtool.score.sample import BinarySample, FloatArray


@dataclass(frozen=True)
class Levels:
    """Weights of positives and negatives at each distinct score, ascending.

    ``values`` (levels,); ``positive`` and ``negative`` (draws, levels).
    """

    values: FloatArray
    positive: FloatArray
    negative: FloatArray

    @property
    def true_positive(self) -> FloatArray:
        """(draws, levels): weight of positives at or above each level."""
        return np.cumsum(self.positive[:, ::-1], axis=1)[:, ::-1]

    @property
    def false_positive(self) -> FloatArray:
        """(draws, levels): weight of negatives at or above each level."""
        return np.cumsum(self.negative[:, ::-1], axis=1)[:, ::-1]


@dataclass(frozen=True)
class Operating:
    """Counts at every candidate threshold, ascending; each array (thresholds,)."""

    thresholds: FloatArray
    true_positive: FloatArray
    false_positive: FloatArray
    positives: float
    negatives: float

    @property
    def sensitivity(self) -> FloatArray:
        """Share of the positives called positive; NaN without positives."""
        return divide(self.true_positive, self.positives)

    @property
    def specificity(self) -> FloatArray:
        """Share of the negatives called negative; NaN without negatives."""
        return divide(self.negatives - self.false_positive, self.negatives)

    @property
    def precision(self) -> FloatArray:
        """Share of the positive calls that are right; NaN without calls."""
        return divide(self.true_positive, self.true_positive + self.false_positive)

    @property
    def f1(self) -> FloatArray:
        """2 TP / (2 TP + FP + FN), 0 where nothing is positive and nothing is called."""
        total = self.true_positive + self.false_positive + self.positives
        return np.nan_to_num(divide(2.0 * self.true_positive, total), nan=0.0)


def divide(above: FloatArray | float, below: FloatArray | float) -> FloatArray:
    """above / below, NaN where below is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    )
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator != 0)
    return ratio


def levels_weighted(sample: BinarySample, weights: FloatArray) -> Levels:
    """The weight of each class at each distinct score, for each row of ``weights``."""
    order = np.argsort(sample.scores, kind="stable")
    values, starts = np.unique(sample.scores[order], return_index=True)
    ordered = weights[:, order]
    truth = sample.labels[order]
    positive = np.add.reduceat(ordered * truth, starts, axis=1)
    negative = np.add.reduceat(ordered * (1.0 - truth), starts, axis=1)
    return Levels(values, positive, negative)


def auroc_levels(levels: Levels) -> FloatArray:
    """(draws,) share of pairs in the right order, ties counting half; NaN with one class."""
    below = np.cumsum(levels.negative, axis=1) - 0.5 * levels.negative
    pairs = levels.positive.sum(axis=1) * levels.negative.sum(axis=1)
    return divide((levels.positive * below).sum(axis=1), pairs)


def average_precision_levels(levels: Levels) -> FloatArray:
    """(draws,) sum of precision times the gain in recall at each level; NaN without positives."""
    called = levels.true_positive + levels.false_positive
    precision = np.nan_to_num(divide(levels.true_positive, called), nan=0.0)
    gained = (levels.positive * precision).sum(axis=1)
    return divide(gained, levels.positive.sum(axis=1))


def _single(sample: BinarySample) -> Levels:
    return levels_weighted(sample, np.ones((1, sample.n)))


def auroc(sample: BinarySample) -> float:
    """Area under the ROC curve; ties count half, NaN with one class only."""
    return float(auroc_levels(_single(sample))[0]) if sample.n else float("nan")


def average_precision(sample: BinarySample) -> float:
    """Average precision (the step-wise area under precision and recall); NaN without positives."""
    return float(average_precision_levels(_single(sample))[0]) if sample.n else float("nan")


def operating_points(sample: BinarySample) -> Operating:
    """Counts at every observed score, ascending, and last at "nothing is positive"."""
    levels = _single(sample)
    nothing = np.nextafter(levels.values[-1], np.inf)
    return Operating(
        thresholds=np.append(levels.values, nothing),
        true_positive=np.append(levels.true_positive[0], 0.0),
        false_positive=np.append(levels.false_positive[0], 0.0),
        positives=float(sample.positives),
        negatives=float(sample.negatives),
    )
