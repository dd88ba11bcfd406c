"""How far a model fell when it was made smaller: each metric on the same patients, paired.

Both models' numbers are made of the same draws of patients, so that the interval is that of the
difference and not of two samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from medtool.core.records import Scores
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.compare import compare_models
from medtool.score.dice_and_c_index import NAME as DICE_AND_C
from medtool.score.dice_and_f1 import NAME as DICE_AND_F1
from medtool.score.intervals import bootstrap
from medtool.score.multiclass import class_metrics
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, patient_sample
from medtool.score.segmentation_columns import APART, BY_CASE
from medtool.score.survival_paired import compare_risks
from medtool.score.survival_summary import PATIENTS, SURVIVAL

Row = Mapping[str, Any]

AUROC, DICE, MACRO_F1, HARRELL_C = "auroc", "dice", "macro_f1", "harrell_c"
# Numbers that are the mean of two: each half is judged by itself.
HALVES: Mapping[str, tuple[str, ...]] = {
    DICE_AND_F1: (DICE, MACRO_F1),
    DICE_AND_C: (DICE, HARRELL_C),
}
# Metrics that are judged; of all of them more is better.
JUDGED = (DICE, AUROC, MACRO_F1, HARRELL_C)


@dataclass(frozen=True)
class ScoredModel:
    """One model on a part: its scores, and of each case ``case``, ``patient``, ``label`` and what
    the columns of its answer say.
    """

    scores: Scores
    rows: Sequence[Row]


@dataclass(frozen=True)
class Fall:
    """A metric before and after; ``low`` to ``high`` is the interval of the fall, NaN for none."""

    metric: str
    before: float
    after: float
    low: float
    high: float
    n: int
    patients: int
    tolerance: float

    @property
    def fall(self) -> float:
        """By how much it is worse; negative where it is better."""
        return self.before - self.after

    @property
    def kept(self) -> bool:
        """Whether it fell by no more than the tolerance; what is undefined is not kept."""
        # A sum of many numbers rounds: what is equal to nine digits is no fall.
        return isfinite(self.fall) and self.fall <= self.tolerance + 1e-9

    @property
    def proved(self) -> bool:
        """Whether a larger fall is unlikely too: the whole interval is within the tolerance.

        Where there is no interval nothing is proved.
        """
        return self.kept and isfinite(self.high) and self.high <= self.tolerance + 1e-9

    def line(self) -> str:
        """The comparison as a sentence."""
        interval = ", no paired interval"
        if isfinite(self.low):
            interval = f", paired interval {change_text(self.high)} to {change_text(self.low)}"
        return (
            f"{self.metric}: {self.before:.4f} before, {self.after:.4f} after "
            f"({change_text(self.fall)}{interval}; {self.n} cases of {self.patients} patients; "
            f"may fall by {self.tolerance:g})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "fall": self.fall, "kept": self.kept, "proved": self.proved}


def change_text(fall: float) -> str:
    """A fall as a change, with its sign; nothing is +0."""
    return f"{0.0 - round(fall, 4):+.4f}"


def judged_metrics(primary: str, scores: Scores) -> tuple[str, ...]:
    """Which metrics say how good the answers are: the primary one, or its halves.

    Those that ``scores`` do not have are left out; where the primary one says nothing of answers,
    as a loss, all that are there.
    """
    wanted = HALVES.get(primary, (primary,) if primary in JUDGED else JUDGED)
    return tuple(name for name in wanted if _defined(scores, name))


def unjudged_metrics(primary: str, scores: Scores) -> tuple[str, ...]:
    """Halves of the primary metric that ``scores`` do not have, so that nothing judges them."""
    return tuple(name for name in HALVES.get(primary, ()) if not _defined(scores, name))


def _defined(scores: Scores, name: str) -> bool:
    return name in scores.metrics and isfinite(scores.metrics[name].value)


def falls_of(
    before: ScoredModel,
    after: ScoredModel,
    names: Sequence[str],
    tolerances: Mapping[str, float],
    *,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> list[Fall]:
    """How far each of ``names`` fell. Raises as the comparison of each metric does."""
    settings = metrics or MetricDefaults()
    made: Mapping[str, Callable[[ScoredModel, ScoredModel, MetricSettings, int], _Pair]] = {
        DICE: _dice,
        AUROC: _auroc,
        MACRO_F1: _macro_f1,
        HARRELL_C: _harrell,
    }
    found = []
    for name in names:
        pair = made[name](before, after, settings, seed)
        one, two = (model.scores.metrics.get(name) for model in (before, after))
        found.append(
            Fall(
                metric=name,
                before=one.value if one else nan,
                after=two.value if two else nan,
                low=pair.low,
                high=pair.high,
                n=pair.n,
                patients=pair.patients,
                tolerance=tolerances[name],
            )
        )
    return found


@dataclass(frozen=True)
class _Pair:
    low: float
    high: float
    n: int
    patients: int


def _dice(before: ScoredModel, after: ScoredModel, settings: MetricSettings, seed: int) -> _Pair:
    """The mean over structures of the mean over cases, as it is scored."""
    rows = [_by_case(model.scores) for model in (before, after)]
    cases = sorted(rows[0].keys() & rows[1].keys())
    counted = _counted_structures(before.scores)
    structures = sorted({name for case in cases for name in rows[0][case] if name in counted})
    sample = patient_sample([next(iter(rows[0][case].values()))["patient"] for case in cases])
    values = [
        [np.array([_number(own[case][name]) for case in cases]) for name in structures]
        for own in rows
    ]

    def apart(weights: FloatArray) -> dict[str, FloatArray]:
        one, two = (_mean_of_means(weights, columns) for columns in values)
        return {DICE: one - two}

    return _resampled(sample, apart, DICE, settings, seed)


def _by_case(scores: Scores) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in scores.tables.get(BY_CASE) or ():
        found.setdefault(str(row["case"]), {})[str(row["structure"])] = row
    return found


def _counted_structures(scores: Scores) -> set[str]:
    """Structures in the mean over structures: all but those that are unions of others."""
    every = {str(row["structure"]) for row in scores.tables.get(BY_CASE) or ()}
    return every - set(scores.tables.get(APART) or ())


def _number(row: Row) -> float:
    value = row["dice"]
    return nan if value is None else float(value)


def _mean_of_means(weights: FloatArray, columns: Sequence[FloatArray]) -> FloatArray:
    means = []
    for values in columns:
        valid = np.isfinite(values)
        means.append(divide(weights @ np.where(valid, values, 0.0), weights @ valid))
    stacked = np.stack(means)
    defined = np.isfinite(stacked)
    return divide(np.where(defined, stacked, 0.0).sum(axis=0), defined.sum(axis=0))


def _auroc(before: ScoredModel, after: ScoredModel, settings: MetricSettings, seed: int) -> _Pair:
    pairs = _paired_rows(before, after)
    found = compare_models(
        [float(one["label"]) for one, _ in pairs],
        [float(one["probability"]) for one, _ in pairs],
        [float(two["probability"]) for _, two in pairs],
        [str(one["patient"]) for one, _ in pairs],
        draws=settings.bootstrap_draws,
        confidence=settings.confidence,
        seed=seed,
    )
    return _Pair(*found.interval, found.n, found.patients)


def _macro_f1(
    before: ScoredModel, after: ScoredModel, settings: MetricSettings, seed: int
) -> _Pair:
    pairs = _paired_rows(before, after)
    # The answers are words, the labels numbers: the rows of the scores name both.
    named = {str(row["case"]): str(row["label"]) for row in before.scores.tables["classes"]}
    pairs = [pair for pair in pairs if str(pair[0]["case"]) in named]
    said_names = {str(row["class"]) for pair in pairs for row in pair}
    classes = sorted({*said_names, *named.values()})
    truth = np.array([classes.index(named[str(one["case"])]) for one, _ in pairs])
    said = [
        np.array([classes.index(str(pair[which]["class"])) for pair in pairs]) for which in (0, 1)
    ]
    both = [class_metrics(truth, answers, classes) for answers in said]

    def apart(weights: FloatArray) -> dict[str, FloatArray]:
        one, two = (compute(weights)[MACRO_F1] for compute in both)
        return {MACRO_F1: one - two}

    sample = patient_sample([str(one["patient"]) for one, _ in pairs])
    return _resampled(sample, apart, MACRO_F1, settings, seed)


def _harrell(before: ScoredModel, after: ScoredModel, settings: MetricSettings, seed: int) -> _Pair:
    tables = [
        list((model.scores.tables.get(SURVIVAL) or {}).get(PATIENTS) or ())
        for model in (before, after)
    ]
    found = compare_risks(*tables, metrics=settings, seed=seed)
    return _Pair(nan, nan, 0, 0) if found is None else _Pair(*found.interval, found.n, found.n)


def _paired_rows(before: ScoredModel, after: ScoredModel) -> list[tuple[Row, Row]]:
    """Rows with a label of the cases that both answered."""
    others = {str(row["case"]): row for row in after.rows}
    return [
        (row, others[str(row["case"])])
        for row in before.rows
        if row.get("label") is not None and str(row["case"]) in others
    ]


def _resampled(
    sample: Any,
    apart: Callable[[FloatArray], dict[str, FloatArray]],
    name: str,
    settings: MetricSettings,
    seed: int,
) -> _Pair:
    drawn = bootstrap(sample, apart, draws=settings.bootstrap_draws, seed=seed, jackknife=False)
    low, high = drawn.percentile(name, settings.confidence)
    return _Pair(low, high, sample.n, len(sample.patients))
