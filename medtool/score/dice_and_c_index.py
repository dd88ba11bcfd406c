"""One number for masks and risks together: the mean of Dice and Harrell's C.

Both run from 0 to 1 and count alike. Where one of them is not defined, as without any mask, the
other stands for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medtool.core.records import Score, Scores
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import bootstrap
from medtool.score.numbers import bootstrap_score
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, IntArray, patient_sample
from medtool.score.segmentation_columns import ScoredCase, columns_of
from medtool.score.survival_ranking import PairCounter

NAME = "dice_and_c_index"
CONVENTION = "mean of dice and harrell_c, each over those that have a mask, or an outcome"


def dice_and_c_index(
    patients: Sequence[str],
    masks: tuple[IntArray, Sequence[ScoredCase]],
    risks: tuple[IntArray, PairCounter],
    halves: Scores,
    *,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> Score:
    """The mean of both with its interval by patient.

    ``patients`` (cases,) are those of all cases; ``masks`` are places among them and what was
    scored there, ``risks`` the places of the patients whose pairs are counted. ``halves`` has
    the scores ``dice`` and ``harrell_c``.
    """
    settings = metrics or MetricDefaults()
    sample = patient_sample(patients)
    with_mask, scored = masks
    with_outcome, pairs = risks
    dices = [column.values for column in columns_of(scored) if column.metric == "dice"]

    def compute(weights: FloatArray) -> dict[str, FloatArray]:
        means = []
        for values in dices:
            valid = np.isfinite(values)
            own = weights[:, with_mask]
            means.append(divide(own @ np.where(valid, values, 0.0), own @ valid))
        both = [_mean(np.stack(means)), pairs.count(weights[:, with_outcome]).c_index]
        return {NAME: _mean(np.stack(both))}

    point = float(compute(np.ones((1, sample.n)))[NAME][0])
    parts = [halves.metrics["dice"], halves.metrics["harrell_c"]]
    return bootstrap_score(
        NAME,
        point,
        bootstrap(sample, compute, draws=settings.bootstrap_draws, seed=seed, jackknife=False),
        settings.confidence,
        n=sample.n,
        convention=CONVENTION,
        trivial=sum(part.trivial for part in parts) / len(parts),
        trivial_by=", ".join(part.trivial_by for part in parts),
    )


def _mean(values: FloatArray) -> FloatArray:
    """(draws,) mean over the first axis of what is defined."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))
