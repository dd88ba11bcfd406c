"""From a probability to a decision: rules that choose a threshold on the selection part.

Candidates are the observed scores and "nothing is positive"; among equal optima the middle one
(the lower of two). A chosen threshold is stored and never refitted on cases that score.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from medtool.core.errors import LabelsError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.score.ranking import Operating, operating_points
from medtool.score.sample import BinarySample, FloatArray, binary_sample

ThresholdRule = Literal["youden", "f1", "sensitivity", "specificity", "cost", "fixed"]

# Sums of a few thousand counts divided once: equal optima differ by less than this.
EQUAL = 1e-12
# How far a stored threshold stays from the score that set it: far more than arithmetic differs,
# far less than probabilities mean.
MARGIN = 1e-4


def choose_threshold(
    labels: ArrayLike,
    probabilities: ArrayLike,
    rule: str = "f1",
    target: float = 0.9,
    cost_fp: float = 1.0,
    cost_fn: float = 1.0,
) -> float:
    """The threshold t ("probability >= t is positive") that ``rule`` asks for.

    youden: largest sensitivity + specificity - 1. f1: largest F1. sensitivity: the largest t that
    reaches ``target``. specificity: the smallest t that reaches it, raised while no further
    positive is missed. cost: smallest ``cost_fp`` FP + ``cost_fn`` FN, counted, so that no
    calibration is assumed. fixed: ``target``.
    Raises UnknownNameError (no such rule), LabelsError (both classes are needed).
    """
    if rule not in get_args(ThresholdRule):
        raise UnknownNameError(
            f"There is no threshold rule '{rule}'.",
            met=rule,
            wanted="one of: " + ", ".join(get_args(ThresholdRule)),
            nearest=nearest_name(rule, get_args(ThresholdRule)),
        )
    if rule == "fixed":
        return float(target)
    sample = binary_sample(labels, probabilities)
    if not sample.both_classes:
        raise LabelsError(
            "A threshold cannot be chosen from one class only.",
            met=f"{sample.positives} positives and {sample.negatives} negatives",
            wanted="at least one case of each class in the selection part",
            how="give more labelled cases, or set metrics.threshold_rule = 'fixed' with "
            "metrics.threshold_target.",
        )
    points = operating_points(sample)
    if rule == "sensitivity":
        return float(points.thresholds[points.sensitivity >= target - EQUAL].max())
    if rule == "specificity":
        return threshold_for_specificity(sample, target)
    return _middle_of_best(points, _merit(points, rule, cost_fp, cost_fn))


def with_margin(threshold: float, probabilities: ArrayLike) -> float:
    """``threshold`` moved off the score that set it, no decision on ``probabilities`` changed.

    A score computed with other numbers of threads, or on another machine, differs in its last
    digits, and the very case that set the threshold would change sides. It goes below that score,
    by MARGIN, but at most half way to the next one; above all scores where nothing is positive.
    """
    scores = np.unique(np.asarray(probabilities, dtype=np.float64))
    if scores.size == 0 or threshold not in scores:
        above = scores.size > 0 and threshold > scores[-1]
        return max(threshold, float(scores[-1]) + MARGIN) if above else threshold
    below = scores[scores < threshold]
    room = threshold - float(below[-1]) if below.size else np.inf
    return max(0.0, threshold - min(MARGIN, room / 2))


def threshold_for_specificity(sample: BinarySample, target: float) -> float:
    """The smallest candidate whose specificity reaches ``target``, raised while that is free.

    Of the candidates that reach the target the lowest has the largest sensitivity; a higher one
    that misses no further positive has more specificity, and is taken.
    """
    points = operating_points(sample)
    reaching = points.specificity >= target - EQUAL
    caught = points.true_positive
    return float(points.thresholds[reaching & (caught == caught[reaching].max())].max())


def _merit(points: Operating, rule: str, cost_fp: float, cost_fn: float) -> FloatArray:
    if rule == "youden":
        return points.sensitivity + points.specificity - 1.0
    if rule == "f1":
        return points.f1
    missed = points.positives - points.true_positive
    return -(cost_fp * points.false_positive + cost_fn * missed)


def _middle_of_best(points: Operating, merit: FloatArray) -> float:
    best = np.flatnonzero(merit >= merit.max() - EQUAL)
    return float(points.thresholds[best[(best.size - 1) // 2]])
