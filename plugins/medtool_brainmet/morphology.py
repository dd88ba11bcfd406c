"""Binary morphology of stacks of slices with radii in mm, whatever the shape of the voxels.

Arrays are (z, y, x) and boolean; spacings are (x, y, z) in mm as in ``core.geometry.Grid``.
Voxels outside the array count as set for erosion and as clear for dilation, so that an organ cut
by the end of the scan is not eaten away from there.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtool.core.geometry import Triple

Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


def radii_vox(radius_mm: float, spacing_mm: Triple) -> tuple[int, int, int]:
    """Radius in voxels along z, y, x: rounded, at least one."""
    x_mm, y_mm, z_mm = spacing_mm
    z, y, x = (max(1, round(radius_mm / step)) for step in (z_mm, y_mm, x_mm))
    return z, y, x


def ellipsoid(radii: tuple[int, int, int]) -> Mask:
    """Structuring element (2z+1, 2y+1, 2x+1): offsets with sum (offset / radius)^2 <= 1."""
    z, y, x = (np.arange(-r, r + 1) / r for r in radii)
    distance = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2
    element: Mask = distance <= 1.0 + 1e-9
    return element


def erode(mask: Mask, radius_mm: float, spacing_mm: Triple) -> Mask:
    """Erosion by an ellipsoid of ``radius_mm``."""
    return _morph(mask, radius_mm, spacing_mm, dilating=False)


def dilate(mask: Mask, radius_mm: float, spacing_mm: Triple) -> Mask:
    """Dilation by an ellipsoid of ``radius_mm``."""
    return _morph(mask, radius_mm, spacing_mm, dilating=True)


def close(mask: Mask, radius_mm: float, spacing_mm: Triple) -> Mask:
    """Dilation, then erosion: gaps narrower than about twice the radius are bridged."""
    return erode(dilate(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def _morph(mask: Mask, radius_mm: float, spacing_mm: Triple, *, dilating: bool) -> Mask:
    # Slice by slice with OpenCV and the slices' results combined: an ellipsoid is a stack of
    # ellipses, and this is tens of times faster than a general 3D structuring element.
    radii = radii_vox(radius_mm, spacing_mm)
    element = ellipsoid(radii).astype(np.uint8)
    source: Bytes = mask.astype(np.uint8)
    result = source.copy()
    depth = len(mask)
    for offset in range(-radii[0], radii[0] + 1):
        kernel = element[offset + radii[0]]
        for index in range(depth):
            if not 0 <= index + offset < depth:
                continue
            if dilating:
                moved = cv2.dilate(source[index + offset], kernel)
                np.maximum(result[index], moved, out=result[index])
            else:
                moved = cv2.erode(source[index + offset], kernel)
                np.minimum(result[index], moved, out=result[index])
    return result.astype(bool)


def largest_component(mask: Mask) -> Mask:
    """The largest component whose voxels touch by face, edge or corner; empty stays empty."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    if count == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: Mask = labels == int(sizes.argmax())
    return largest


def fill_slices(mask: Mask) -> Mask:
    """Fill, in each slice, what the edge of the image cannot reach."""
    filled = np.empty_like(mask)
    for index, plane in enumerate(mask):
        outside = np.pad(~plane, 1, constant_values=True).astype(np.uint8)
        _, labels = cv2.connectedComponents(outside, connectivity=4)
        filled[index] = (labels != labels[0, 0])[1:-1, 1:-1]
    return filled


def fill_volume(mask: Mask) -> Mask:
    """Fill what no face of the volume can reach."""
    labels, count = ndimage.label(~mask)
    if count == 0:
        return mask.copy()
    open_labels = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            open_labels[np.unique(labels.take(end, axis=axis))] = True
    open_labels[0] = False
    filled: Mask = ~open_labels[labels]
    return filled
