"""How much left differs from right: the mid-sagittal plane first, then an index per slice."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool_brainmet.morphology import Mask

# The plane is searched within these bounds of upright and central.
LARGEST_SHIFT_MM = 15.0
LARGEST_ANGLE_DEGREES = 15.0
# Search steps, coarse to fine, as (mm, degrees).
SEARCH_STEPS = ((5.0, 5.0), (2.0, 2.0), (0.5, 0.5))
# Differences smaller than lesions are smoothed away before comparing.
SMOOTHING_MM = 3.0


@dataclass(frozen=True)
class MidSagittal:
    """The plane as a line in the slice: its shift from the image's centre and its angle.

    A positive shift lies to the right of the picture; a positive angle leans its top to the right.
    """

    shift_mm: float
    angle_degrees: float


def find_mid_sagittal(mask: Mask, pixel_mm: float) -> MidSagittal:
    """The line about which the mask's projection along z (z, y, x) is most symmetric.

    One line for the scan: it knows shift and rotation in the slice, not a head rolled to one side
    from slice to slice. Pixels are square, ``pixel_mm`` wide. An empty mask gives the centre line.
    """
    projection = mask.mean(axis=0).astype(np.float32)
    best = MidSagittal(0.0, 0.0)
    if not projection.any():
        return best
    reach_mm, reach_degrees = LARGEST_SHIFT_MM, LARGEST_ANGLE_DEGREES
    for step_mm, step_degrees in SEARCH_STEPS:
        shifts = _around(best.shift_mm, reach_mm, step_mm, LARGEST_SHIFT_MM)
        angles = _around(best.angle_degrees, reach_degrees, step_degrees, LARGEST_ANGLE_DEGREES)
        candidates = [MidSagittal(shift, angle) for shift in shifts for angle in angles]
        # Of equals the one nearest to upright and central, so that a disc gives (0, 0).
        best = max(
            candidates,
            key=lambda line: (
                round(_symmetry(projection, line, pixel_mm), 6),
                -abs(line.shift_mm) - abs(line.angle_degrees),
            ),
        )
        reach_mm, reach_degrees = step_mm, step_degrees
    return best


def asymmetry_indices(
    slices: NDArray[np.float32], mask: Mask, line: MidSagittal, pixel_mm: float
) -> NDArray[np.float64]:
    """sum |I - M(I)| / sum (|I| + |M(I)|) per slice, where mask and mirrored mask both are.

    Smoothed by SMOOTHING_MM first. 0 is perfectly symmetric; 0 too where nothing can be compared.
    """
    indices = np.zeros(len(slices))
    for index, (plane, inside) in enumerate(zip(slices, mask, strict=True)):
        upright = _upright(_smooth(plane, inside, pixel_mm), line, pixel_mm)
        here = _upright(inside.astype(np.float32), line, pixel_mm) > 0.5
        both = here & here[:, ::-1]
        mirrored = upright[:, ::-1]
        total = float((np.abs(upright) + np.abs(mirrored))[both].sum())
        if total > 0:
            indices[index] = float(np.abs(upright - mirrored)[both].sum()) / total
    return indices


def _smooth(plane: NDArray[np.float32], inside: Mask, pixel_mm: float) -> NDArray[np.float32]:
    """Gaussian mean of the masked pixels only: the background must not darken the edge."""
    sigma_px = SMOOTHING_MM / pixel_mm
    weight = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma_px)
    value = cv2.GaussianBlur(np.where(inside, plane, 0).astype(np.float32), (0, 0), sigma_px)
    return np.asarray(value / np.maximum(weight, 1e-3), dtype=np.float32)


def _symmetry(projection: NDArray[np.float32], line: MidSagittal, pixel_mm: float) -> float:
    """Correlation of the projection with its mirror image about ``line``."""
    upright = _upright(projection, line, pixel_mm)
    centred = upright - upright.mean()
    energy = float((centred**2).sum())
    return float((centred * centred[:, ::-1]).sum()) / energy if energy > 0 else 0.0


def _upright(plane: NDArray[np.float32], line: MidSagittal, pixel_mm: float) -> NDArray[np.float32]:
    """The slice moved so that ``line`` becomes its vertical middle."""
    rows, columns = plane.shape
    centre = ((columns - 1) / 2, (rows - 1) / 2)
    # warpAffine turns counter-clockwise for positive angles; the line turns back.
    matrix = cv2.getRotationMatrix2D(centre, line.angle_degrees, 1.0)
    matrix[:, 2] -= matrix[:, :2] @ np.array([line.shift_mm / pixel_mm, 0.0])
    moved = cv2.warpAffine(plane, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=0.0)
    return np.asarray(moved, dtype=np.float32)


def _around(centre: float, reach: float, step: float, bound: float) -> list[float]:
    """Values from centre - reach to centre + reach, within +-bound."""
    count = round(reach / step)
    values = [centre + step * k for k in range(-count, count + 1)]
    return [value for value in values if abs(value) <= bound + 1e-9]
