"""Decisions against labels: the four counts and everything computed from them.

Every function takes arrays (or numbers), one element per bootstrap draw, and says what it gives
where a denominator is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np

from medtool.score.ranking import divide
from medtool.score.sample import BinarySample, FloatArray


@dataclass(frozen=True)
class Confusion:
    """True and false positives and negatives; weights, so a bootstrap draw fits too."""

    tp: FloatArray
    fp: FloatArray
    tn: FloatArray
    fn: FloatArray

    def metrics(self) -> dict[str, FloatArray]:
        """Sensitivity, specificity, PPV, NPV, F1, accuracy, balanced accuracy, MCC.

        NaN where undefined, but MCC is 0 when any of its four factors is 0, and F1 is 0 when
        there is neither a positive case nor a positive call.
        """
        tp, fp, tn, fn = self.tp, self.fp, self.tn, self.fn
        sensitivity, specificity = divide(tp, tp + fn), divide(tn, tn + fp)
        factors = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": divide(tp, tp + fp),
            "npv": divide(tn, tn + fn),
            "f1": np.nan_to_num(divide(2.0 * tp, 2.0 * tp + fp + fn), nan=0.0),
            "accuracy": divide(tp + tn, tp + fp + tn + fn),
            "balanced_accuracy": 0.5 * (sensitivity + specificity),
            "mcc": np.nan_to_num(divide(tp * tn - fp * fn, np.sqrt(factors)), nan=0.0),
        }

    def shares(self) -> dict[str, tuple[float, float]]:
        """(events, n) of the metrics that are a share of cases, for Wilson's interval."""
        tp, fp, tn, fn = (float(v) for v in (self.tp, self.fp, self.tn, self.fn))
        return {
            "sensitivity": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "ppv": (tp, tp + fp),
            "npv": (tn, tn + fn),
            "accuracy": (tp + tn, tp + fp + tn + fn),
        }


def confusion_weighted(
    sample: BinarySample, weights: FloatArray, threshold: float | FloatArray
) -> Confusion:
    """The four counts of each draw; ``weights`` (draws, cases), ``threshold`` one or (cases,)."""
    positive, called = sample.labels, (sample.scores >= threshold).astype(np.float64)
    tp, fp = weights @ (positive * called), weights @ ((1.0 - positive) * called)
    fn, tn = weights @ (positive * (1.0 - called)), weights @ ((1.0 - positive) * (1.0 - called))
    return Confusion(tp, fp, tn, fn)


def confusion(sample: BinarySample, threshold: float | FloatArray) -> Confusion:
    """The four counts at "score >= threshold is positive"."""
    counts = confusion_weighted(sample, np.ones((1, sample.n)), threshold)
    return Confusion(counts.tp[0], counts.fp[0], counts.tn[0], counts.fn[0])


def trivial_decisions(prevalence: float, share_called: float) -> dict[str, tuple[float, str]]:
    """What someone who knows nothing of the case would score, and who that is.

    ``share_called`` is the model's own share of positive calls: whoever calls as many positives
    at random reaches that sensitivity.
    """
    if not isfinite(prevalence):
        return {}
    random = "random, as many calls"
    both = prevalence + 1.0
    return {
        "sensitivity": (share_called, random),
        "specificity": (1.0 - share_called, random),
        "ppv": (prevalence, random),
        "npv": (1.0 - prevalence, random),
        "f1": (2.0 * prevalence / both, "every case positive"),
        "accuracy": (max(prevalence, 1.0 - prevalence), "the commoner class"),
        "balanced_accuracy": (0.5, "any constant answer"),
        "mcc": (0.0, "any constant answer"),
    }
