"""What many passes or members say together: mean, entropy, mutual information, variance.

Passes are taken one after the other and never lie in memory together. Entropies are in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import xlogy

from medtool.core.errors import UsageError
from medtool.score.overlap import Mask
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray

AnyFloats = NDArray[np.floating[Any]]

# Around truth and prediction: voxels further away are background that nobody doubts, and would
# make every error look small.
NEAR_MM = 5.0


class PassStatistics:
    """Running statistics of probabilities over passes of dropout or members of an ensemble.

    With ``exclusive`` a pass has an axis of classes first, (classes, ...), that sum to 1 in each
    place; else each number is a probability of its own. Sums are kept in the type of the passes,
    float32 for volumes: what runs up is the difference from the mean, so that no digits are lost.
    """

    def __init__(self, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.passes = 0
        self._mean: AnyFloats = np.empty(0)
        self._squares: AnyFloats = np.empty(0)
        self._entropy: AnyFloats = np.empty(0)

    def add(self, probabilities: AnyFloats) -> None:
        """Take in one pass; raises UsageError where its shape differs from those before."""
        entropy = self._entropy_of(probabilities)
        if not self.passes:
            self._mean = np.zeros_like(probabilities)
            self._squares = np.zeros_like(probabilities)
            self._entropy = np.zeros_like(entropy)
        if probabilities.shape != self._mean.shape:
            raise UsageError(
                "Passes differ in shape.",
                met=f"{probabilities.shape} after {self._mean.shape}",
                wanted="probabilities of the same places in every pass",
            )
        self.passes += 1
        before = probabilities - self._mean
        self._mean += before / self.passes
        self._squares += before * (probabilities - self._mean)
        self._entropy += (entropy - self._entropy) / self.passes

    @property
    def mean(self) -> AnyFloats:
        """The predictive probabilities, of the shape of a pass."""
        self._require_passes()
        return self._mean

    @property
    def variance(self) -> AnyFloats:
        """Of each probability over the passes (divided by their number), of a pass's shape."""
        self._require_passes()
        return self._squares / self.passes

    @property
    def entropy(self) -> AnyFloats:
        """Of the mean: all that is unsure, (...) without the axis of classes."""
        self._require_passes()
        return self._entropy_of(self._mean)

    @property
    def expected_entropy(self) -> AnyFloats:
        """Mean entropy of the passes: what is unsure even to each of them."""
        self._require_passes()
        return self._entropy

    @property
    def mutual_information(self) -> AnyFloats:
        """Entropy less expected entropy (BALD): what the passes disagree about; never negative."""
        return np.maximum(self.entropy - self.expected_entropy, 0.0)

    def _entropy_of(self, probabilities: AnyFloats) -> AnyFloats:
        found: AnyFloats
        if self.exclusive:
            found = -xlogy(probabilities, probabilities).sum(axis=0)
        else:
            other = 1 - probabilities
            found = -xlogy(probabilities, probabilities) - xlogy(other, other)
        return found

    def _require_passes(self) -> None:
        if not self.passes:
            raise UsageError("No pass was taken in.", met="0 passes", wanted="one at least")


def region_near(
    masks: Sequence[Mask], spacing_mm: Sequence[float], distance_mm: float = NEAR_MM
) -> Mask:
    """Voxels within ``distance_mm`` of any of ``masks``, on their common grid.

    ``spacing_mm`` in the order of the axes. Nothing where all masks are empty.
    """
    union: Mask = np.logical_or.reduce(masks)
    near: Mask = np.zeros_like(union)
    if not union.any():
        return near
    box = tuple(
        slice(max(0, part.start - margin), part.stop + margin)
        for part, margin in zip(
            ndimage.find_objects(union.astype(np.uint8))[0],
            (int(distance_mm / step) + 1 for step in spacing_mm),
            strict=True,
        )
    )
    distances = ndimage.distance_transform_edt(~union[box], sampling=spacing_mm)
    near[box] = distances <= distance_mm
    return near


def mean_by_lesion(uncertainty: AnyFloats, lesions: NDArray[np.integer[Any]]) -> FloatArray:
    """(lesions,) mean uncertainty of each lesion of a map of their numbers, from 1; 0 is none."""
    count = int(lesions.max(initial=0))
    flat = lesions.reshape(-1)
    sums, voxels = (
        np.bincount(flat, values, count + 1).astype(np.float64)
        for values in (uncertainty.reshape(-1), np.ones(flat.size))
    )
    return divide(sums, voxels)[1:]


def mean_within(uncertainty: AnyFloats, mask: Mask) -> float:
    """Mean uncertainty of a case over ``mask``, its prediction; NaN where that is empty."""
    return float(uncertainty[mask].mean(dtype=np.float64)) if mask.any() else float("nan")
