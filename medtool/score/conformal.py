"""Split conformal prediction: sets and intervals that hold the truth as often as promised.

The promise is 1 - ``risk`` over patients like those of the calibration part, on average over such
parts (Vovk 2005); it needs no model of the errors, only that patients are exchangeable. Patients
are the unit: of several cases of a patient the worst counts, so that the promise holds for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtool.core.errors import UsageError
from medtool.score.sample import FloatArray, PatientSample, check_probabilities

# Added to volumes before their logarithm, so that a missed lesion is an error of finite size.
VOLUME_OFFSET_ML = 1.0
# Of a volume's spread over passes, as a share: below it an interval would not be wider.
LEAST_SPREAD = 0.05


def conformal_quantile(scores: ArrayLike, risk: float) -> float:
    """The k-th smallest of n scores, k = ceil((n + 1) (1 - risk)); infinite where k is over n.

    Raises UsageError where ``risk`` is not between 0 and 1, or a score is no number.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64).reshape(-1))
    if not 0.0 < risk < 1.0 or np.isnan(values).any():
        raise UsageError(
            "There is no conformal quantile of this.",
            met=f"a risk of {risk:g}, {int(np.isnan(values).sum())} scores that are no numbers",
            wanted="a risk between 0 and 1, and a number for each score",
        )
    # 20 * 0.9 must be 18 and not a little more.
    rank = ceil(round((values.size + 1) * (1.0 - risk), 9))
    return float(values[rank - 1]) if rank <= values.size else inf


def worst_of_patients(sample: PatientSample, scores: ArrayLike) -> FloatArray:
    """(patients,) the largest score of each patient's cases (n,)."""
    worst = np.full(len(sample.patients), -inf)
    np.maximum.at(worst, sample.patient, np.asarray(scores, dtype=np.float64))
    return worst


@dataclass(frozen=True)
class PresenceSets:
    """Which of the answers "absent" and "present" cannot be ruled out, by probability.

    An answer stays in the set while 1 less its probability is at most its quantile;
    ``quantiles`` are of absent and present, equal unless each has its own promise.
    """

    quantiles: tuple[float, float]
    risk: float

    def sets(self, probability: ArrayLike) -> NDArray[np.bool_]:
        """(n, 2) whether "absent" and "present" stay, for the probability of presence (n,).

        Both: not to be told; none: unlike anything in the calibration part.
        """
        present = check_probabilities(probability)
        scores = np.stack([present, 1.0 - present], axis=-1)
        return scores <= np.asarray(self.quantiles)


def calibrate_presence(
    sample: PatientSample,
    probability: ArrayLike,
    present: ArrayLike,
    risk: float,
    *,
    by_class: bool = False,
) -> PresenceSets:
    """Sets from cases with known answer: ``probability`` and ``present`` (n,).

    ``by_class`` promises the coverage for the absent and for the present alone (Mondrian); it
    needs enough patients of both, or the sets hold everything.
    """
    chance, truth = check_probabilities(probability), np.asarray(present, dtype=np.bool_)
    scores = np.where(truth, 1.0 - chance, chance)
    if not by_class:
        quantile = conformal_quantile(worst_of_patients(sample, scores), risk)
        return PresenceSets((quantile, quantile), risk)
    quantiles = []
    for answer in (False, True):
        # A patient without a case of this answer has no score here.
        worst = worst_of_patients(sample, np.where(truth == answer, scores, -inf))
        quantiles.append(conformal_quantile(worst[worst > -inf], risk))
    return PresenceSets((quantiles[0], quantiles[1]), risk)


@dataclass(frozen=True)
class VolumeIntervals:
    """Intervals of volumes: log(volume + 1 mL) within ``quantile`` times the spread.

    On that scale errors of large and small lesions are alike; the spread of a volume over passes,
    as a share, makes the interval of a case wider where the passes disagree.
    """

    quantile: float
    risk: float

    def interval_ml(
        self, volume_ml: ArrayLike, spread: ArrayLike | float = 1.0
    ) -> tuple[FloatArray, FloatArray]:
        """Low and high (n,) for predicted volumes (n,) in mL; low is not under 0."""
        middle, wide = _scaled(volume_ml), self.quantile * _spread(spread)
        low, high = np.exp(middle - wide), np.exp(middle + wide)
        return np.maximum(low - VOLUME_OFFSET_ML, 0.0), high - VOLUME_OFFSET_ML


def calibrate_volumes(
    sample: PatientSample,
    predicted_ml: ArrayLike,
    reference_ml: ArrayLike,
    risk: float,
    spread: ArrayLike | float = 1.0,
) -> VolumeIntervals:
    """Intervals from cases with known volume, all (n,); ``spread`` as it will be given later.

    Without a spread the interval is equally wide, as a factor, for all.
    """
    apart = np.abs(_scaled(predicted_ml) - _scaled(reference_ml)) / _spread(spread)
    return VolumeIntervals(conformal_quantile(worst_of_patients(sample, apart), risk), risk)


def _scaled(volume_ml: ArrayLike) -> FloatArray:
    volumes = np.asarray(volume_ml, dtype=np.float64)
    if not (np.isfinite(volumes) & (volumes >= 0.0)).all():
        raise UsageError(
            "A volume is no volume.",
            met=f"{int((~(np.isfinite(volumes) & (volumes >= 0.0))).sum())} of {volumes.size}",
            wanted="numbers of mL, 0 or more",
        )
    return np.log(volumes + VOLUME_OFFSET_ML)


def _spread(spread: ArrayLike | float) -> FloatArray:
    return np.maximum(np.asarray(spread, dtype=np.float64), LEAST_SPREAD)
