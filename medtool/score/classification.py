"""The scores of a two-class question: every metric with n, interval, convention, trivial value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from medtool.core.records import Score, Scores
from medtool.score.calibration import (
    BINNING_RULE,
    equal_mass_bins,
    equal_width_bins,
    expected_gap,
    gaps_weighted,
    reliability_table,
)
from medtool.score.confusion import (
    confusion,
    confusion_weighted,
    trivial_decisions,
)
from medtool.score.curves import precision_recall_curve, roc_curve, threshold_table
from medtool.score.delong import delong
from medtool.score.fixed_specificity import (
    FixedSpecificity,
    FoldSelections,
    SelectionPart,
    fixed_specificities,
)
from medtool.score.intervals import Bootstrap, Metrics, bootstrap, separated_interval, wilson
from medtool.score.ranking import auroc_levels, average_precision_levels, divide, levels_weighted
from medtool.score.sample import BinarySample, FloatArray, binary_sample, check_probabilities
from medtool.score.subgroups import subgroup_table
from medtool.score.threshold import choose_threshold

__all__ = [
    "FoldSelections",
    "MetricDefaults",
    "SelectionPart",
    "binary_scores",
    "choose_threshold",
]

# Repeated cases leave fewer different ones in a bin, which widens gaps: no fault of the model.
RESAMPLED_HIGH = "; resampling raises it, so its interval lies high"
CONVENTIONS = {
    "auroc": "ties count half",
    "auprc": "average precision: steps at each distinct probability, not interpolated",
    "f1": "0 when nothing is positive and nothing is called",
    "mcc": "0 when a row or column of the confusion matrix is empty",
    "brier": "mean squared error of the positive probability, 0 (best) to 1",
    "brier_skill": "1 - Brier / Brier of always saying the prevalence",
    "ece": BINNING_RULE + RESAMPLED_HIGH,
    "mce": BINNING_RULE + "; the largest gap of a bin" + RESAMPLED_HIGH,
    "adaptive_ece": "10 bins of nearly equal numbers of cases, equal probabilities together"
    + RESAMPLED_HIGH,
}
INTERVAL_NAMES = {
    "percentile": "bootstrap by patient",
    "wilson": "Wilson",
    "pairs": "Wilson over disjoint pairs of patients, as every draw gave the same",
    "none": "none, as every bootstrap draw gave the same",
}
ONE_CLASS = "undefined: one class only"
NO_CASES = "undefined: no case in the denominator"


class MetricSettings(Protocol):
    """What is read of a preset's [metrics]."""

    @property
    def bootstrap_draws(self) -> int:
        """Draws of the bootstrap by patient."""

    @property
    def confidence(self) -> float:
        """Level of the intervals."""


@dataclass(frozen=True)
class MetricDefaults:
    """The settings of ``[metrics]`` that are used where no preset is at hand."""

    bootstrap_draws: int = 2000
    confidence: float = 0.95


def binary_scores(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    threshold: float | Sequence[float],
    metrics: MetricSettings | None = None,
    subgroups: Mapping[str, Sequence[Any]] | None = None,
    selection: SelectionPart | FoldSelections | None = None,
    cases: Sequence[str] | None = None,
    optimistic: str = "",
    seed: int = 0,
) -> Scores:
    """Every metric of one set of predictions; a case is positive when probability >= threshold.

    ``threshold`` is one number, or one a case where folds have their own, which then
    have their own ``selection`` parts too.

    ``labels``, ``probabilities``, ``patients``, ``cases`` and each list of ``subgroups`` have one
    element a case; without ``patients`` each case is a patient. ``optimistic`` names why the
    numbers are (promise 4), when they are. Tables: confusion, intervals, reliability, roc, pr,
    thresholds, fixed_specificity, subgroups, bootstrap, decision.
    Raises UsageError and LabelsError on values that are none.
    """
    settings = metrics or MetricDefaults()
    sample = binary_sample(labels, probabilities, patients)
    check_probabilities(sample.scores)
    at = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (sample.n,))
    decision = _decision(at, threshold)
    if sample.n == 0:
        return Scores({}, (), {"decision": decision}, optimistic, ("No case to score.",))
    fixed = fixed_specificities(sample, selection)
    compute = _all_metrics(sample, at, {target.name: target.at for target in fixed})
    point = {name: float(v[0]) for name, v in compute(np.ones((1, sample.n))).items()}
    resampled = bootstrap(sample, compute, draws=settings.bootstrap_draws, seed=seed)
    intervals = _intervals(sample, point, resampled, at, fixed, settings.confidence)
    scores = _scores(sample, point, intervals, at, fixed)
    counts = confusion(sample, at)
    tables: dict[str, Any] = {
        "decision": decision,
        "confusion": {k: int(v) for k, v in asdict(counts).items()},
        "intervals": [intervals[name] for name in point],
        "reliability": [asdict(row) for row in reliability_table(sample)],
        "roc": roc_curve(sample, settings.bootstrap_draws, settings.confidence, seed),
        "pr": precision_recall_curve(sample, settings.bootstrap_draws, settings.confidence, seed),
        "thresholds": threshold_table(sample),
        "fixed_specificity": [target.as_row() for target in fixed],
        "subgroups": subgroup_table(
            sample, at, subgroups or {}, confidence=settings.confidence, seed=seed
        ),
        "bootstrap": {
            "unit": "patient",
            "patients": resampled.patients,
            "draws": resampled.draws,
            "redrawn_for_one_class": resampled.redrawn,
            "seed": seed,
            "confidence": settings.confidence,
        },
    }
    per_case = _per_case(sample, at, cases) if cases is not None else ()
    return Scores(scores, per_case, tables, optimistic, _notes(sample, resampled))


def _decision(at: FloatArray, threshold: float | Sequence[float]) -> dict[str, Any]:
    """The threshold, or those of several folds (``threshold`` is then None)."""
    several = sorted({float(value) for value in at})
    if len(several) <= 1:
        one = several[0] if several else float(np.mean(threshold))
        return {"threshold": one, "rule": "probability >= threshold"}
    return {"threshold": None, "thresholds": several, "rule": "probability >= its fold's threshold"}


def _all_metrics(
    sample: BinarySample, threshold: FloatArray, fixed: Mapping[str, FloatArray]
) -> Metrics:
    """A function from (draws, cases) weights to (draws,) values of every metric."""
    squared = (sample.scores - sample.labels) ** 2
    even_width, even_mass = equal_width_bins(sample.scores), equal_mass_bins(sample.scores)

    def compute(weights: FloatArray) -> dict[str, FloatArray]:
        levels = levels_weighted(sample, weights)
        total = weights.sum(axis=1)
        brier = divide(weights @ squared, total)
        prevalence = divide(weights @ sample.labels, total)
        share, gap = gaps_weighted(sample, weights, even_width)
        values = {
            "auroc": auroc_levels(levels),
            "auprc": average_precision_levels(levels),
            **confusion_weighted(sample, weights, threshold).metrics(),
            "brier": brier,
            "brier_skill": 1.0 - divide(brier, prevalence * (1.0 - prevalence)),
            "ece": expected_gap(share, gap),
            "mce": gap.max(axis=1),
            "adaptive_ece": expected_gap(*gaps_weighted(sample, weights, even_mass)),
        }
        for name, at in fixed.items():
            values[name] = confusion_weighted(sample, weights, at).metrics()["sensitivity"]
        return values

    return compute


def _intervals(
    sample: BinarySample,
    point: Mapping[str, float],
    resampled: Bootstrap,
    threshold: FloatArray,
    fixed: Sequence[FixedSpecificity],
    confidence: float,
) -> dict[str, dict[str, Any]]:
    """All intervals of each metric, and which one stands beside the number."""
    shares = confusion(sample, threshold).shares()
    for target in fixed:
        shares[target.name] = confusion(sample, target.at).shares()["sensitivity"]
    rows: dict[str, dict[str, Any]] = {}
    for name, value in point.items():
        percentile = resampled.percentile(name, confidence)
        row: dict[str, Any] = {
            "name": name,
            "percentile": percentile,
            "bca": resampled.bca(name, value, confidence),
            "wilson": wilson(*shares[name], confidence) if name in shares else (nan, nan),
            "chosen": "percentile",
        }
        stuck = percentile[0] == percentile[1]
        if name in shares and (sample.one_case_per_patient or stuck):
            row["chosen"] = "wilson"
        elif stuck and name == "auroc":
            row.update(chosen="pairs", pairs=separated_interval(sample, value, confidence))
        elif stuck:
            row.update(chosen="none", none=(nan, nan))
        rows[name] = row
    if sample.both_classes and sample.one_case_per_patient:
        rows["auroc"]["delong_logit"] = delong(sample.labels, [sample.scores]).logit(0, confidence)
    return rows


def _denominators(sample: BinarySample, threshold: FloatArray) -> dict[str, int]:
    counts = confusion(sample, threshold).shares()
    return {name: int(n) for name, (_, n) in counts.items()}


def _trivial(sample: BinarySample, threshold: FloatArray) -> dict[str, tuple[float, str]]:
    prevalence = sample.positives / sample.n
    called = float(np.mean(sample.scores >= threshold))
    constant = "the prevalence"
    return {
        "auroc": (0.5, "any constant answer"),
        "auprc": (prevalence, "any constant answer"),
        "brier": (prevalence * (1.0 - prevalence), constant),
        "brier_skill": (0.0, constant),
        "ece": (0.0, constant),
        "mce": (0.0, constant),
        "adaptive_ece": (0.0, constant),
        **trivial_decisions(prevalence, called),
    }


def _scores(
    sample: BinarySample,
    point: Mapping[str, float],
    intervals: Mapping[str, Mapping[str, Any]],
    threshold: FloatArray,
    fixed: Sequence[FixedSpecificity],
) -> dict[str, Score]:
    trivial, n_of = _trivial(sample, threshold), _denominators(sample, threshold)
    conventions = dict(CONVENTIONS)
    for target in fixed:
        conventions[target.name] = target.convention
        n_of[target.name] = sample.positives
        called = float(np.mean(sample.scores >= target.at))
        trivial[target.name] = (called, "random, as many calls")
    scores = {}
    for name, value in point.items():
        low, high = intervals[name][intervals[name]["chosen"]] if isfinite(value) else (nan, nan)
        why = ONE_CLASS if not sample.both_classes else NO_CASES
        baseline, who = trivial.get(name, (nan, ""))
        scores[name] = Score(
            name=name,
            value=value,
            n=n_of.get(name, sample.n),
            low=low,
            high=high,
            interval=INTERVAL_NAMES[intervals[name]["chosen"]] if isfinite(value) else "",
            convention=conventions.get(name, "") if isfinite(value) else why,
            trivial=baseline,
            trivial_by=who,
        )
    return scores


def _per_case(
    sample: BinarySample, threshold: FloatArray, cases: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """One row a case; ``error`` is the distance of probability and label, 1 the worst."""
    rows = []
    for number, case in enumerate(cases):
        label, score = int(sample.labels[number]), float(sample.scores[number])
        called = score >= threshold[number]
        outcome = ("TP" if label else "FP") if called else ("FN" if label else "TN")
        rows.append(
            {
                "case": str(case),
                "patient": sample.patients[sample.patient[number]],
                "label": label,
                "probability": score,
                "threshold": float(threshold[number]),
                "outcome": outcome,
                "error": abs(score - label),
            }
        )
    return tuple(rows)


def _notes(sample: BinarySample, resampled: Bootstrap) -> tuple[str, ...]:
    notes = [
        f"{sample.n} cases of {len(sample.patients)} patients, {sample.positives} positive; "
        f"intervals from {resampled.draws} bootstrap draws of patients"
        + (
            f", {resampled.redrawn} of them redrawn for want of a class."
            if resampled.redrawn
            else "."
        )
    ]
    if not sample.both_classes:
        notes.append("Only one class is present: what compares the classes is undefined.")
    if not sample.one_case_per_patient:
        notes.append("Some patients have several cases: no interval assumes independent cases.")
    return tuple(notes)
