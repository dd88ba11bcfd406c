"""What optimising did to the answers of one part: metrics, the worst case, agreement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from medtool.predict.answers import Answers
from medtool.score.falls import Fall, ScoredModel, falls_of, judged_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.records import Prediction
    from medtool.optimize.passes import PassesBeside
    from medtool.score.classification import MetricSettings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Agreement:
    """How alike the answers before and after are in one thing.

    ``kind`` is "mask" (Dice between the masks; ``mean``, and the least as ``worst``), "number"
    (differences; the largest as ``worst``; ``correlation`` is Spearman's), "word" (share alike as
    ``mean``) or "map" (Spearman's correlation over voxels; the least as ``worst``). ``by_case`` are
    the numbers of masks and maps by themselves, ``lost`` the cases that had a number before and
    have none after: their difference is infinite.
    """

    name: str
    kind: str
    mean: float
    worst: float
    worst_case: str
    n: int
    correlation: float = nan
    by_case: Mapping[str, float] = field(default_factory=dict)
    lost: int = 0

    def as_dict(self, row_of: Mapping[str, int]) -> dict[str, Any]:
        """Plain values, for JSON; ``row_of`` says where each case stands in cases.csv."""
        return {
            "name": self.name,
            "kind": self.kind,
            "mean": self.mean,
            "worst": self.worst,
            "worst_row": row_of[self.worst_case],
            "n": self.n,
            "lost": self.lost,
            "correlation": self.correlation,
        }


@dataclass(frozen=True)
class Accuracy:
    """One model file beside the model it was made of, on one part.

    ``errors`` are those of each case before and after; ``silent`` are cases that had an answer
    before and have none after, each with why. ``others`` are (before, after) of every other metric
    of the task, which nothing depends on. ``passes`` is None of a model without them.
    """

    part: str
    optimistic: str
    falls: tuple[Fall, ...]
    errors: Mapping[str, tuple[float, float]]
    agreement: tuple[Agreement, ...]
    silent: Mapping[str, str]
    others: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    passes: PassesBeside | None = None

    def as_dict(self, row_of: Mapping[str, int]) -> dict[str, Any]:
        """Plain values, for JSON; ``row_of`` says where each case stands in cases.csv."""
        worst = worst_case(self.errors)
        return {
            "part": self.part,
            "optimistic": self.optimistic,
            "metrics": [one.as_dict() for one in self.falls],
            "other_metrics": [
                {"metric": name, "before": before, "after": after}
                for name, (before, after) in self.others.items()
            ],
            "worst_case": {"row": row_of.get(worst.pop("case")), **worst} if worst else {},
            "agreement": [one.as_dict(row_of) for one in self.agreement],
            "without_answer": [row_of[case] for case in self.silent],
            **({} if self.passes is None else {"passes": self.passes.as_dict()}),
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


def errors_of(before: ScoredModel, after: ScoredModel) -> dict[str, tuple[float, float]]:
    """The error of each case before and after, as its row of the scores says; of those in both."""
    first, second = (
        {str(row["case"]): float(row.get("error", nan)) for row in model.scores.per_case}
        for model in (before, after)
    )
    return {case: (error, second[case]) for case, error in first.items() if case in second}


def other_metrics(
    before: ScoredModel, after: ScoredModel, judged: Collection[str]
) -> dict[str, tuple[float, float]]:
    """Every metric that both have and that is not ``judged``, before and after."""
    return {
        name: (one.value, two.value)
        for name, one in before.scores.metrics.items()
        if name not in judged and (two := after.scores.metrics.get(name)) is not None
    }


def worst_case(errors: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The case that lost most; {} without numbers."""
    lost = {case: two - one for case, (one, two) in errors.items() if isfinite(two - one)}
    if not lost:
        return {}
    worst = max(lost, key=lambda case: lost[case])
    before, after = errors[worst]
    return {"case": worst, "error_before": before, "error_after": after, "lost": lost[worst]}


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
    return Agreement(name, kind, mean, worst, worst_case, len(values), by_case=dict(values))


def _numbers(name: str, pairs: Sequence[tuple[str, Any, Any]]) -> Agreement:
    one = np.array([float(pair[1]) for pair in pairs])
    two = np.array([float(pair[2]) for pair in pairs])
    # Where there was no number before none is missed; where there is none now all is lost.
    apart = np.where(np.isfinite(two), np.abs(one - two), inf)
    apart = np.where(np.isfinite(one), apart, 0.0)
    worst = int(apart.argmax())
    return Agreement(
        name,
        "number",
        float(apart.mean()),
        float(apart[worst]),
        pairs[worst][0],
        len(pairs),
        _rank_correlation(one, two),
        lost=int(np.isinf(apart).sum()),
    )
