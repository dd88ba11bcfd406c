"""Stage 3: slices of one size, with one scale in mm, in the patient's own directions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool_brainmet.morphology import Mask

# A slice counts as axial when its normal is within about 45 degrees of the patient's long axis.
LEAST_AXIAL_COSINE = 0.7


def to_patient_axes(
    volume: NDArray[np.float32], grid: Grid
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Rows running to Posterior and columns to the patient's Left; pixel spacing (x, y) in mm.

    Only flips and transposes within the slice; the order of the slices stays. Raises CaseRefused
    ("not-axial") where slices are not axial.
    """
    directions = np.asarray(grid.direction).reshape(3, 3)
    if abs(directions[2, 2]) < LEAST_AXIAL_COSINE:
        raise CaseRefused(
            "not-axial",
            "The slices are not axial.",
            met="a normal of (" + ", ".join(f"{v:.2f}" for v in directions[:, 2]) + ") in LPS",
            wanted="slices across the patient's long axis",
        )
    x_mm, y_mm, _ = grid.spacing_mm
    if abs(directions[1, 0]) > abs(directions[0, 0]):
        volume = volume.transpose(0, 2, 1)
        directions = directions[:, [1, 0, 2]]
        x_mm, y_mm = y_mm, x_mm
    if directions[0, 0] < 0:
        volume = volume[:, :, ::-1]
    if directions[1, 1] < 0:
        volume = volume[:, ::-1, :]
    return np.ascontiguousarray(volume), (x_mm, y_mm)


def cut_square(
    image: NDArray[np.float32],
    mask: Mask,
    pixel_mm: tuple[float, float],
    *,
    field_mm: float,
    size_px: int,
) -> tuple[NDArray[np.float32], Mask]:
    """Slices (z, size, size) of the square of ``field_mm`` around the mask, and the mask there.

    A pixel is the mean of the masked pixels below it (0 outside the mask), so that bone never
    bleeds into the brain's edge. ``field_mm`` 0 takes the whole image, letterboxed to a square.
    """
    box = _square(mask, pixel_mm, field_mm)
    images, masks = [], []
    for plane, inside in zip(image, mask, strict=True):
        weight = _cut(inside.astype(np.float32), box, size_px)
        value = _cut(np.where(inside, plane, 0).astype(np.float32), box, size_px)
        kept = weight >= 0.5
        images.append(np.where(kept, value / np.maximum(weight, 0.5), 0))
        masks.append(kept)
    return np.stack(images).astype(np.float32), np.stack(masks)


def _square(
    mask: Mask, pixel_mm: tuple[float, float], field_mm: float
) -> tuple[int, int, int, int]:
    """First row, first column, rows and columns of the square; it may reach beyond the image."""
    _, rows, columns = mask.shape
    x_mm, y_mm = pixel_mm
    side_mm = field_mm if field_mm > 0 else max(rows * y_mm, columns * x_mm)
    height, width = max(1, round(side_mm / y_mm)), max(1, round(side_mm / x_mm))
    held = np.any(mask, axis=0)
    if field_mm > 0 and held.any():
        row = (np.flatnonzero(np.any(held, axis=1))[[0, -1]].sum() + 1) / 2
        column = (np.flatnonzero(np.any(held, axis=0))[[0, -1]].sum() + 1) / 2
    else:
        row, column = rows / 2, columns / 2
    return round(row - height / 2), round(column - width / 2), height, width


def _cut(
    plane: NDArray[np.float32], box: tuple[int, int, int, int], size_px: int
) -> NDArray[np.float32]:
    """``box`` of ``plane`` (0 outside it) in size_px x size_px pixels."""
    first_row, first_column, height, width = box
    rows, columns = plane.shape
    top, left = max(0, first_row), max(0, first_column)
    bottom, right = min(rows, first_row + height), min(columns, first_column + width)
    square = np.zeros((height, width), dtype=np.float32)
    square[top - first_row : bottom - first_row, left - first_column : right - first_column] = (
        plane[top:bottom, left:right]
    )
    shrinking = height >= size_px and width >= size_px
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(square, (size_px, size_px), interpolation=method)
    return np.asarray(resized, dtype=np.float32)
