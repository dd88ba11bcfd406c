"""Maps of uncertainty: where they are looked at, and what they say of a lesion or a case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtool.score.overlap import Mask
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray

AnyFloats = NDArray[np.floating[Any]]

# Around truth and prediction: voxels further away are background that nobody doubts, and would
# make every error look small.
NEAR_MM = 5.0


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
