"""Stage 3: slices of one size, with one scale in mm, in the patient's own directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool_brainmet.morphology import Mask

# A slice counts as axial when its normal is within about 45 degrees of the patient's long axis.
LEAST_AXIAL_COSINE = 0.7


def to_patient_axes(volume: NDArray[np.float32], grid: Grid) -> tuple[NDArray[np.float32], Grid]:
    """The volume with rows running to Posterior and columns to the patient's Left, and its grid.

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
    axes = [0, 1, 2]
    if abs(directions[1, 0]) > abs(directions[0, 0]):
        axes = [1, 0, 2]
        volume = volume.transpose(0, 2, 1)
    size = np.asarray(grid.size)[axes]
    spacing_mm = np.asarray(grid.spacing_mm)[axes]
    directions = directions[:, axes].copy()
    origin_mm = np.asarray(grid.origin_mm, dtype=np.float64)
    for axis in (0, 1):
        if directions[axis, axis] < 0:
            origin_mm = origin_mm + directions[:, axis] * spacing_mm[axis] * (size[axis] - 1)
            directions[:, axis] *= -1
            volume = np.flip(volume, axis=2 - axis)
    return np.ascontiguousarray(volume), _grid(size, spacing_mm, origin_mm, directions)


def _grid(
    size: NDArray[Any], spacing: NDArray[Any], origin: NDArray[Any], directions: NDArray[Any]
) -> Grid:
    """A grid of plain numbers."""
    width, height, depth = (int(value) for value in size)
    x_mm, y_mm, z_mm = (float(value) for value in spacing)
    left, back, up = (float(value) for value in origin)
    numbers = tuple(float(value) for value in directions.ravel())
    return Grid((width, height, depth), (x_mm, y_mm, z_mm), (left, back, up), numbers)


@dataclass(frozen=True)
class Square:
    """What is cut out of each slice: first row and column (may be negative), rows and columns."""

    first_row: int
    first_column: int
    rows: int
    columns: int

    def grid_of(self, grid: Grid, size_px: int) -> Grid:
        """The grid of slices that hold this square of ``grid`` in size_px x size_px pixels."""
        scale = np.array([self.columns / size_px, self.rows / size_px, 1.0])
        # The centre of the first new pixel, in old pixels.
        first = np.array([self.first_column, self.first_row, 0]) + (scale - 1) / 2
        directions = np.asarray(grid.direction).reshape(3, 3)
        spacing_mm = np.asarray(grid.spacing_mm)
        origin_mm = np.asarray(grid.origin_mm) + directions @ (first * spacing_mm)
        size = np.array([size_px, size_px, grid.size[2]])
        return _grid(size, spacing_mm * scale, origin_mm, directions)


def square_around(mask: Mask, grid: Grid, field_mm: float) -> Square:
    """The square of ``field_mm`` around the middle of the mask's bounding box.

    ``field_mm`` 0 takes the whole image, letterboxed to a square; so does an empty mask's middle.
    """
    _, rows, columns = mask.shape
    x_mm, y_mm, _ = grid.spacing_mm
    side_mm = field_mm if field_mm > 0 else max(rows * y_mm, columns * x_mm)
    height, width = max(1, round(side_mm / y_mm)), max(1, round(side_mm / x_mm))
    row, column = rows / 2, columns / 2
    held = np.any(mask, axis=0)
    if field_mm > 0 and held.any():
        row = float(np.flatnonzero(np.any(held, axis=1))[[0, -1]].sum() + 1) / 2
        column = float(np.flatnonzero(np.any(held, axis=0))[[0, -1]].sum() + 1) / 2
    return Square(round(row - height / 2), round(column - width / 2), height, width)


def cut_square(
    image: NDArray[np.float32], mask: Mask, square: Square, size_px: int
) -> tuple[NDArray[np.float32], Mask]:
    """Slices (z, size_px, size_px) and their masks.

    A pixel is the mean of the masked pixels below it (0 outside the mask), so that bone never
    bleeds into the brain's edge.
    """
    images, masks = [], []
    for plane, inside in zip(image, mask, strict=True):
        weight = _cut(inside.astype(np.float32), square, size_px)
        value = _cut(np.where(inside, plane, 0).astype(np.float32), square, size_px)
        kept = weight >= 0.5
        images.append(np.where(kept, value / np.maximum(weight, 0.5), 0))
        masks.append(kept)
    return np.stack(images).astype(np.float32), np.stack(masks)


def _cut(plane: NDArray[np.float32], square: Square, size_px: int) -> NDArray[np.float32]:
    """``square`` of ``plane`` (0 outside it) in size_px x size_px pixels."""
    rows, columns = plane.shape
    top, left = max(0, square.first_row), max(0, square.first_column)
    bottom = min(rows, square.first_row + square.rows)
    right = min(columns, square.first_column + square.columns)
    cut = np.zeros((square.rows, square.columns), dtype=np.float32)
    inside = (
        slice(top - square.first_row, bottom - square.first_row),
        slice(left - square.first_column, right - square.first_column),
    )
    cut[inside] = plane[top:bottom, left:right]
    shrinking = square.rows >= size_px and square.columns >= size_px
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(cut, (size_px, size_px), interpolation=method)
    return np.asarray(resized, dtype=np.float32)
