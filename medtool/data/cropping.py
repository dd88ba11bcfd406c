"""Cutting an image down to what is not zero, and which of the rest lies outside the body.

As nnU-Net does (Isensee 2021): zero is what stands where nothing was measured, as around a brain
that was cut out. CT in HU is hardly ever cropped, for air is -1000 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[slice, ...]


def nonzero_box(image: NDArray[Any]) -> Box:
    """The smallest box with every voxel of ``image`` (channels, z, y, x) that is not zero.

    Where all is zero, the whole image.
    """
    axes = range(image.ndim - 1)
    seen = [np.zeros(image.shape[axis + 1], dtype=bool) for axis in axes]
    for channel in image:
        for place, plane in enumerate(channel):
            marked = plane != 0
            columns = marked.any(axis=0)
            if columns.any():
                seen[0][place] = True
                seen[1] |= marked.any(axis=1)
                seen[2] |= columns
    if not seen[0].any():
        return tuple(slice(0, n) for n in image.shape[1:])
    return tuple(_extent(along) for along in seen)


def _extent(along: NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(along)
    return slice(int(places[0]), int(places[-1]) + 1)


def nonzero_mask(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a channel of ``image`` (channels, z, y, x) is not zero, enclosed holes filled.

    A hole is what zero voxels, neighbours by their faces, do not connect with the border.
    """
    mask: NDArray[np.bool_] = np.not_equal(image[0], 0)
    for channel in image[1:]:
        mask |= channel != 0
    zero, count = ndimage.label(~mask)
    if not count:
        return mask
    outside: NDArray[np.bool_] = np.zeros(count + 1, dtype=bool)
    for axis in range(zero.ndim):
        for end in (0, -1):
            outside[np.unique(np.take(zero, end, axis=axis))] = True
    outside[0] = False
    filled: NDArray[np.bool_] = (~outside).take(zero)
    return filled
