"""What optimising did to the answers of one part: metrics, the worst case, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from medtool.predict.answers import Answers
from medtool.score.falls import Fall, ScoredModel, falls_of, judged_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.records import Prediction
    from medtool.score.classification import MetricSettings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Agreement:
    """How alike the answers before and after are in one thing.

    ``kind`` is "mask" (Dice between the masks; ``mean``, and the least as ``worst``), "number"
    (differences; the largest as ``worst``; ``correlation`` is Spearman's), "word" (share alike as
    ``mean``) or "map" (Spearman's correlation over voxels; the least as ``worst``).
    """

    name: str
    kind: str
    mean: float
    worst: float
    worst_case: str
    n: int
    correlation: float = nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Accuracy:
    """One model file beside the model it was made of, on one part.

    ``silent`` are cases that had an answer before and have none after, each with why.
    """

    part: str
    optimistic: str
    falls: tuple[Fall, ...]
    worst: Mapping[str, Any]
    agreement: tuple[Agreement, ...]
    silent: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "part": self.part,
            "optimistic": self.optimistic,
            "metrics": [one.as_dict() for one in self.falls],
            "worst_case": dict(self.worst),
            "agreement": [one.as_dict() for one in self.agreement],
            "without_answer": dict(self.silent),
        }


def scored(answers: Answers) -> ScoredModel:
    """The answers scored by their task."""
    rows = [
        {**answers.rows[case.case_id], "case": case.case_id, "label": case.label}
        for case in answers.cases
    ]
    return ScoredModel(answers.task.score(answers.predictions, answers.truths), rows)


def metric_falls(
    before: ScoredModel,
    after: ScoredModel,
    tolerances: Mapping[str, float],
    *,
    primary: str,
    metrics: MetricSettings,
    seed: int = 0,
) -> list[Fall]:
    """How far each metric that says how good the answers are fell."""
    names = judged_metrics(primary, before.scores)
    return falls_of(before, after, names, tolerances, metrics=metrics, seed=seed)


def worst_case(before: ScoredModel, after: ScoredModel) -> dict[str, Any]:
    """The case that lost most by the error of its row; {} without rows."""
    errors = [
        {str(row["case"]): float(row.get("error", nan)) for row in model.scores.per_case}
        for model in (before, after)
    ]
    lost = {
        case: errors[1][case] - error
        for case, error in errors[0].items()
        if case in errors[1] and isfinite(errors[1][case] - error)
    }
    if not lost:
        return {}
    worst = max(lost, key=lambda case: lost[case])
    return {
        "case": worst,
        "error_before": errors[0][worst],
        "error_after": errors[1][worst],
        "lost": lost[worst],
    }


def agreement_of(before: Answers, after: Answers) -> list[Agreement]:
    """How alike both answer, in every column, mask and map; masks are read one case at a time."""
    cases = [case for case in before.cases if case.case_id in after.rows]
    by_array: dict[str, list[tuple[str, float]]] = {}
    whole: set[str] = set()
    for case in cases:
        one, two = before.prediction(case), after.prediction(case)
        for name, value, is_mask in _arrays_alike(one, two):
            by_array.setdefault(name, []).append((case.case_id, value))
            whole |= {name} if is_mask else set()
    found = [
        _least(name, "mask" if name in whole else "map", values)
        for name, values in by_array.items()
        if values
    ]
    for name, (kind, _, _) in before.task.columns.items():
        pairs = [
            (case.case_id, before.rows[case.case_id].get(name), after.rows[case.case_id].get(name))
            for case in cases
        ]
        known = [pair for pair in pairs if None not in pair[1:]]
        if known and kind == "float":
            found.append(_numbers(name, known))
        elif known and kind == "text":
            alike = [(case, float(one == two)) for case, one, two in known]
            found.append(_least(name, "word", alike))
    return found


def _arrays_alike(one: Prediction, two: Prediction) -> list[tuple[str, float, bool]]:
    found = []
    for name, first in one.arrays.items():
        second = two.arrays.get(name)
        if second is None or second.shape != first.shape:
            continue
        if np.issubdtype(first.dtype, np.floating):
            value = _rank_correlation(first.reshape(-1), second.reshape(-1))
            if isfinite(value):
                found.append((name, value, False))
        else:
            found.append((name, mask_agreement(first, second), True))
    return found


def mask_agreement(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Dice between two masks of ids, of all labels together; 1 where both are empty."""
    marked = int((one > 0).sum()) + int((two > 0).sum())
    if not marked:
        return 1.0
    return 2.0 * int(((one == two) & (one > 0)).sum()) / marked


def _rank_correlation(one: NDArray[Any], two: NDArray[Any]) -> float:
    if one.size < 2 or not np.ptp(one) or not np.ptp(two):
        return nan
    return float(stats.spearmanr(one, two).statistic)


def _least(name: str, kind: str, values: Sequence[tuple[str, float]]) -> Agreement:
    worst_case, worst = min(values, key=lambda pair: pair[1])
    mean = float(np.mean([value for _, value in values]))
    return Agreement(name, kind, mean, worst, worst_case, len(values))


def _numbers(name: str, pairs: Sequence[tuple[str, Any, Any]]) -> Agreement:
    one = np.array([float(pair[1]) for pair in pairs])
    two = np.array([float(pair[2]) for pair in pairs])
    apart = np.abs(one - two)
    apart = np.where(np.isfinite(apart), apart, 0.0)
    worst = int(apart.argmax())
    return Agreement(
        name,
        "number",
        float(apart.mean()),
        float(apart[worst]),
        pairs[worst][0],
        len(pairs),
        _rank_correlation(one, two),
    )
