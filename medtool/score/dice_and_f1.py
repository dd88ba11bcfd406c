"""One number for masks and classes together: the mean of Dice and macro F1.

Both run from 0 to 1 and count alike, so that neither a good mask with a guessed class nor the
opposite can win.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from medtool.core.records import Score, Scores
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import Metrics, bootstrap
from medtool.score.multiclass import class_metrics
from medtool.score.numbers import bootstrap_score
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, IntArray, patient_sample
from medtool.score.segmentation_columns import ScoredCase, columns_of

NAME = "dice_and_f1"
CONVENTION = "mean of dice and macro_f1, each over the cases that have a mask, or a class"


def dice_and_f1(
    cases: Sequence[ScoredCase],
    masks: Scores,
    labels: Sequence[int | None],
    answers: Sequence[int],
    classes: Scores,
    names: Sequence[str],
    *,
    apart: Collection[str] = (),
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> Score:
    """The mean of the Dice of ``cases`` and the macro F1 of their classes, with its interval.

    ``labels`` (cases,) are numbers of ``names``, None where none is known; ``masks`` and
    ``classes`` are the scores that each half has by itself. Structures in ``apart`` do not count.
    """
    settings = metrics or MetricDefaults()
    known = np.array([label is not None for label in labels])
    truth = np.array([label for label in labels if label is not None], dtype=np.intp)
    said = np.asarray(answers, dtype=np.intp)[known]
    sample = patient_sample([case.patient for case in cases])
    compute = _both(_dices(cases, apart), known, truth, said, names)
    point = float(compute(np.ones((1, sample.n)))[NAME][0])
    halves = [masks.metrics["dice"], classes.metrics["macro_f1"]]
    return bootstrap_score(
        NAME,
        point,
        bootstrap(sample, compute, draws=settings.bootstrap_draws, seed=seed),
        settings.confidence,
        n=len(cases),
        convention=CONVENTION,
        trivial=sum(half.trivial for half in halves) / len(halves),
        trivial_by=", ".join(half.trivial_by for half in halves),
    )


def _dices(cases: Sequence[ScoredCase], apart: Collection[str]) -> list[FloatArray]:
    """Dice (cases,) of each structure that counts."""
    return [
        column.values
        for column in columns_of(cases)
        if column.metric == "dice" and column.structure not in apart
    ]


def _both(
    dices: Sequence[FloatArray],
    known: np.ndarray[tuple[int], np.dtype[np.bool_]],
    truth: IntArray,
    said: IntArray,
    names: Sequence[str],
) -> Metrics:
    classes = class_metrics(truth, said, names)

    def compute(weights: FloatArray) -> dict[str, FloatArray]:
        means = []
        for values in dices:
            valid = np.isfinite(values)
            means.append(divide(weights @ np.where(valid, values, 0.0), weights @ valid))
        stacked = np.stack(means)
        defined = np.isfinite(stacked)
        dice = divide(np.where(defined, stacked, 0.0).sum(axis=0), defined.sum(axis=0))
        return {NAME: (dice + classes(weights[:, known])["macro_f1"]) / 2.0}

    return compute
