"""Logits at another size, plane by plane as they arrive: no more than a few planes exist at once.

Equal to nnU-Net's way back (2.8.1, default_resampling.py: ``skimage.transform.resize`` of order 1,
the nearest plane along a separate axis), whose conventions ``medtool.data.resampling_axes`` has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.data.resampling_axes import linear_neighbours, nearest_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.predict.sliding_window import Slab

Planes = Iterator["NDArray[np.float32]"]


def planes_of(slabs: Iterable[Slab]) -> Planes:
    """The planes (classes, y, x) of slabs, in order."""
    for slab in slabs:
        for row in range(slab.logits.shape[1]):
            yield slab.logits[:, row]


def resized_planes(
    planes: Planes, depth_vox: int, size_vox: tuple[int, int, int], nearest_axis: int | None = None
) -> Planes:
    """``depth_vox`` planes (classes, y, x) as those of a volume of ``size_vox`` (z, y, x).

    Linear along each axis, but the nearest voxel along ``nearest_axis``.
    """
    before, after, shares = _neighbours(depth_vox, size_vox[0], nearest=nearest_axis == 0)
    kept: dict[int, NDArray[np.float32]] = {}
    arrived = -1
    for first, second, share in zip(before, after, shares, strict=True):
        kept = {index: plane for index, plane in kept.items() if index >= first}
        # A neighbour without weight is not waited for.
        last = int(second if share else first)
        while arrived < last:
            plane = next(planes)
            arrived += 1
            if arrived >= first:
                kept[arrived] = _resized(plane, size_vox[1:], nearest_axis)
        yield _blend(kept[int(first)], kept[int(second)], share) if share else kept[int(first)]


def _neighbours(
    old: int, new: int, *, nearest: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    if not nearest:
        return linear_neighbours(old, new)
    indices = nearest_indices(old, new)
    return indices, indices, np.zeros(new)


def _blend(
    first: NDArray[np.float32], second: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    blended: NDArray[np.float32] = second - first
    blended *= np.float32(share)
    blended += first
    return blended


def _resized(
    plane: NDArray[np.float32], size_vox: tuple[int, ...], nearest_axis: int | None
) -> NDArray[np.float32]:
    """A plane (classes, y, x) at ``size_vox`` (y, x)."""
    for axis in (1, 2):
        if axis == nearest_axis:
            indices = nearest_indices(plane.shape[axis], size_vox[axis - 1])
            plane = plane.take(indices, axis=axis)
    return plane if plane.shape[1:] == size_vox else _linear(plane, size_vox)


def _linear(plane: NDArray[Any], size_vox: tuple[int, ...]) -> NDArray[np.float32]:
    import cv2

    rows, columns = size_vox
    out = np.empty((len(plane), rows, columns), dtype=np.float32)
    for channel, target in zip(plane, out, strict=True):
        source = np.ascontiguousarray(channel)
        cv2.resize(source, (columns, rows), dst=target, interpolation=cv2.INTER_LINEAR)
    return out
