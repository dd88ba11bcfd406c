"""Probabilities of the outputs of a network, and how unsure they are.

With ``regions`` each output is a yes or no of its own, else they share a softmax, the background
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logit, xlogy

from medtool.score.uncertainty import mean_within, region_near

# Probabilities of 0 and 1 have no logit.
_LEAST_CHANCE = 1e-6
# Where nothing is outlined, so much of what is least sure stands for the case.
DOUBT_ML = 1.0


def with_background(chances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (structures, ...) with that of the background before them."""
    rest = np.maximum(1 - chances.sum(axis=0, keepdims=True), 0)
    return np.concatenate([rest, chances])


def logits_of(chances: NDArray[np.float32], *, regions: bool) -> NDArray[np.float64]:
    """What gives these probabilities (outputs, ...) by a sigmoid, or by a softmax."""
    inside = chances.astype(np.float64).clip(_LEAST_CHANCE, 1 - _LEAST_CHANCE)
    return np.asarray(logit(inside) if regions else np.log(inside))


def calibrated(
    chances: NDArray[np.float32], temperature: float, *, regions: bool
) -> NDArray[np.float32]:
    """Probabilities (outputs, ...) whose logits are divided by ``temperature``."""
    if temperature == 1.0:
        return chances
    cooled = logits_of(chances, regions=regions) / temperature
    found: Any = expit(cooled) if regions else np.exp(log_softmax(cooled, axis=0))
    return np.asarray(found, dtype=np.float32)


def entropy_of(chances: NDArray[np.float32], *, regions: bool) -> NDArray[np.float32]:
    """The entropy (...) in nats of probabilities (outputs, ...); of several regions the largest."""
    if regions:
        other = 1 - chances
        each = -xlogy(chances, chances) - xlogy(other, other)
        return np.asarray(each.max(axis=0), dtype=np.float32)
    return np.asarray(-xlogy(chances, chances).sum(axis=0), dtype=np.float32)


def disagreement(
    mean: NDArray[np.float32],
    tumour_square: NDArray[np.float32],
    expected_entropy: NDArray[np.float32],
    *,
    regions: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What passes disagree about: mutual information (BALD, in nats: the entropy of their ``mean``
    (outputs, ...) less the mean of their entropies), and the variance of the tumour's probability,
    from its mean square. Neither is ever negative.
    """
    tumour = mean.max(axis=0) if regions else 1 - mean[0]
    information = np.maximum(entropy_of(mean, regions=regions) - expected_entropy, 0)
    return information, np.maximum(tumour_square - tumour**2, 0)


def doubt_beside_volume(
    entropy: NDArray[np.float32],
    tumour: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    voxel_ml: float,
) -> float:
    """The doubt of a case: entropy summed within 5 mm of what is outlined, by its voxels.

    As 1 - Dice counts wrong voxels beside outlined ones, on both sides of the outline. Where
    nothing is outlined, the mean over the millilitre that is least sure.
    """
    if not tumour.any():
        return mean_or_most_doubtful(entropy, tumour, voxel_ml)
    near = region_near([tumour], spacing_mm)
    return float(entropy[near].sum(dtype=np.float64) / np.count_nonzero(tumour))


def mean_or_most_doubtful(
    values: NDArray[np.float32], tumour: NDArray[np.bool_], voxel_ml: float
) -> float:
    """The mean of a map of uncertainty over the tumour; where nothing is outlined, over the
    millilitre that is least sure.
    """
    if tumour.any():
        return mean_within(values, tumour)
    count = min(values.size, max(1, round(DOUBT_ML / voxel_ml)))
    return float(np.partition(values.reshape(-1), values.size - count)[-count:].mean())
