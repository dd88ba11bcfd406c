"""Gantry tilt undone: each plane is moved, in its own plane, to where it is in the patient.

A tilted stack has planes whose first pixels do not lie above each other along the normal. The
output lattice has the planes' own axes and pixel sizes, contains every plane whole, and its first
pixel lies on the lattice of the lowest plane. Shifts come from the true position of each plane,
not from a fitted line and never from GantryDetectorTilt. Values are linear in the shift; where one
of the two neighbours is padding or outside, the nearer one is taken, so that padding is never
mixed into tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medtool.dicom.series import Plane, StackGeometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# A thousandth of a pixel is rounding of positions, not a shift worth blurring a plane for.
_WHOLE_PX = 1e-3


@dataclass(frozen=True)
class Lattice:
    """The in-plane grid of the output.

    ``shifts_px`` (planes, 2) are what is added to a source index (column, row) of each plane to
    give the output index; none is negative. ``origin_px`` is the output's first pixel in
    (column, row) of the lowest plane.
    """

    columns: int
    rows: int
    origin_px: tuple[float, float]
    shifts_px: NDArray[np.float64]


def output_lattice(planes: Sequence[Plane], geometry: StackGeometry) -> Lattice:
    """Where the planes (ascending along the normal) lie in the output."""
    if not geometry.is_sheared:
        shifts = np.zeros((len(planes), 2))
        return Lattice(geometry.columns, geometry.rows, (0.0, 0.0), shifts)
    positions = np.asarray([p.position_mm for p in planes], dtype=np.float64)
    axes = np.asarray([geometry.row_direction, geometry.column_direction])
    moved_mm = (positions - positions[0]) @ axes.T
    shifts = moved_mm / (geometry.column_spacing_mm, geometry.row_spacing_mm)
    # Whole pixels, so that the lowest plane itself is not interpolated.
    first = np.floor(shifts.min(axis=0) + _WHOLE_PX)
    shifts = np.maximum(shifts - first, 0.0)
    extent = np.ceil(shifts.max(axis=0) - _WHOLE_PX).astype(int)
    return Lattice(
        geometry.columns + int(extent[0]),
        geometry.rows + int(extent[1]),
        (float(first[0]), float(first[1])),
        shifts,
    )


def shifted_plane(
    values: NDArray[np.float32],
    padding: NDArray[np.bool_] | None,
    shift_px: tuple[float, float],
    out: NDArray[np.float32],
    air: float,
) -> NDArray[np.bool_]:
    """Write a plane, moved by (columns, rows) >= 0, into ``out``; give where no measurement is.

    ``out`` is (rows, columns) of the output lattice and must hold the moved plane.
    """
    invalid = np.zeros(values.shape, dtype=bool) if padding is None else padding
    for axis, shift in ((0, shift_px[1]), (1, shift_px[0])):
        values, invalid = _moved(values, invalid, shift, axis, out.shape[axis])
    np.copyto(out, values)
    out[invalid] = air
    return invalid


def _moved(
    values: NDArray[np.float32],
    invalid: NDArray[np.bool_],
    shift: float,
    axis: int,
    length: int,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values and mask moved by ``shift`` pixels along one axis into a longer one."""
    whole, fraction = split_shift(shift)
    later, later_invalid = _placed(values, invalid, whole, axis, length)
    if fraction == 0.0:
        return later, later_invalid
    earlier, earlier_invalid = _placed(values, invalid, whole + 1, axis, length)
    nearer, nearer_invalid = (
        (later, later_invalid) if fraction < 0.5 else (earlier, earlier_invalid)
    )
    # In this form equal neighbours give exactly themselves.
    mixed = later + np.float32(fraction) * (earlier - later)
    return (
        np.where(later_invalid | earlier_invalid, nearer, mixed),
        nearer_invalid,
    )


def split_shift(shift: float) -> tuple[int, float]:
    """Whole pixels and the rest in [0, 1), a rest of less than a thousandth rounded away."""
    whole = math.floor(shift + _WHOLE_PX)
    fraction = shift - whole
    return (whole, 0.0) if fraction <= _WHOLE_PX else (whole, fraction)


def _placed(
    values: NDArray[np.float32],
    invalid: NDArray[np.bool_],
    offset: int,
    axis: int,
    length: int,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Copied to ``offset`` along an axis of ``length``; what sticks out is dropped."""
    shape = list(values.shape)
    shape[axis] = length
    placed = np.zeros(shape, dtype=np.float32)
    mask = np.ones(shape, dtype=bool)
    count = min(values.shape[axis], length - offset)
    target = [slice(None), slice(None)]
    source = [slice(None), slice(None)]
    target[axis] = slice(offset, offset + count)
    source[axis] = slice(0, count)
    placed[tuple(target)] = values[tuple(source)]
    mask[tuple(target)] = invalid[tuple(source)]
    return placed, mask
