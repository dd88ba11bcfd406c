"""Label maps at another size: at each new voxel the label that linear interpolation favours.

Equal to interpolating a map of every label and taking the greatest, as nnU-Net does through
batchgenerators' ``resize_segmentation`` (version 0.25.5, order 1): where two labels share the
greatest score the nearest voxel's wins, and the smallest where that is none of them. But most
voxels lie inside one label, so scores are computed only where the eight old voxels around a new
one differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medtool.data.resampling_axes import linear_neighbours, nearest_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Scores nearer than this are equal: weights are products of rounded numbers.
_EQUAL_SCORES = 1e-9
# Planes of the new label map that are worked on together.
_SLAB_PLANES = 32


class _Axis(NamedTuple):
    """For each new voxel along an axis: its neighbours, the weight of the latter, the nearest."""

    before: NDArray[np.intp]
    after: NDArray[np.intp]
    share: NDArray[np.float64]
    nearest: NDArray[np.intp]

    def part(self, voxels: slice) -> _Axis:
        """The same of some of the new voxels."""
        return _Axis(
            self.before[voxels], self.after[voxels], self.share[voxels], self.nearest[voxels]
        )


def resample_labels(
    label: NDArray[np.integer[Any]], size_vox: Sequence[int], *, separate: int | None = None
) -> NDArray[np.integer[Any]]:
    """``label`` (z, y, x) at ``size_vox``, of the same type.

    Along the axis ``separate`` the nearest plane is taken.
    """
    size = tuple(size_vox)
    if label.shape == size:
        return label.copy()
    axes = [
        _axis(old, new, nearest=axis == separate)
        for axis, (old, new) in enumerate(zip(label.shape, size, strict=True))
    ]
    whole = np.empty(size, dtype=label.dtype)
    for start in range(0, size[0], _SLAB_PLANES):
        planes = slice(start, start + _SLAB_PLANES)
        whole[planes] = _slab(label, (axes[0].part(planes), axes[1], axes[2]))
    return whole


def _axis(old: int, new: int, *, nearest: bool) -> _Axis:
    near = nearest_indices(old, new)
    if nearest or old == new:
        return _Axis(near, near, np.zeros(new), near)
    return _Axis(*linear_neighbours(old, new), near)


def _slab(
    label: NDArray[np.integer[Any]], axes: tuple[_Axis, _Axis, _Axis]
) -> NDArray[np.integer[Any]]:
    lowest = highest = label
    for number, axis in enumerate(axes):
        lowest, highest = (
            np.minimum(lowest.take(axis.before, number), lowest.take(axis.after, number)),
            np.maximum(highest.take(axis.before, number), highest.take(axis.after, number)),
        )
    mixed = np.nonzero(lowest != highest)
    if len(mixed[0]):
        lowest[mixed] = _favoured(label, axes, mixed)
    return lowest


def _favoured(
    label: NDArray[np.integer[Any]],
    axes: tuple[_Axis, _Axis, _Axis],
    mixed: tuple[NDArray[np.intp], ...],
) -> NDArray[np.integer[Any]]:
    """The label with the greatest score at each of the new voxels ``mixed`` of a slab."""
    around, weights = _around(label, axes, mixed)
    nearest = label[tuple(axis.nearest[at] for axis, at in zip(axes, mixed, strict=True))]
    winner = nearest.copy()
    # The nearest voxel's label begins, so it keeps ties; of others the smallest comes first.
    greatest = np.where(around == nearest, weights, 0.0).sum(axis=0)
    for value in np.unique(around):
        score = np.where(around == value, weights, 0.0).sum(axis=0)
        better = score > greatest + _EQUAL_SCORES
        winner[better] = value
        greatest[better] = score[better]
    return winner


def _around(
    label: NDArray[np.integer[Any]],
    axes: tuple[_Axis, _Axis, _Axis],
    mixed: tuple[NDArray[np.intp], ...],
) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """Labels and weights of the eight old voxels around each new one, both (8, voxels)."""
    labels, weights = [], []
    for corner in itertools.product((False, True), repeat=3):
        places, weight = [], np.ones(len(mixed[0]))
        for axis, at, after in zip(axes, mixed, corner, strict=True):
            places.append((axis.after if after else axis.before)[at])
            weight *= axis.share[at] if after else 1 - axis.share[at]
        labels.append(label[tuple(places)])
        weights.append(weight)
    return np.stack(labels), np.stack(weights)
