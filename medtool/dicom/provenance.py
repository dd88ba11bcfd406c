"""From the slices of a read image back to the planes they came from, and forward again.

``read`` moves no anatomy: a point in patient mm is where it was. What shear and resampling change
is which index of which plane that point has; this module knows both ways, for points and masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.dicom.resample import blends
from medtool.dicom.series import Series, SliceOrigin, StackGeometry
from medtool.dicom.shear import Lattice, output_lattice, split_shift

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def provenance(series: Series) -> tuple[SliceOrigin, ...]:
    """For each slice of ``read(series)``: the planes it is made of, and the one to name.

    ``shift_px`` (columns, rows) is what was added to an index of each plane to give the index in
    the slice.
    """
    geometry, lattice = _parts(series)
    row, column = np.asarray(geometry.row_direction), np.asarray(geometry.column_direction)
    first = (
        np.asarray(series.planes[0].position_mm)
        + row * lattice.origin_px[0] * geometry.column_spacing_mm
        + column * lattice.origin_px[1] * geometry.row_spacing_mm
    )
    normal = np.asarray(geometry.normal)
    found = []
    targets = geometry.target_positions_mm
    for index, blend in enumerate(blends(geometry.positions_mm, targets)):
        place = first + normal * (targets[index] - geometry.positions_mm[0])
        found.append(
            SliceOrigin(
                index,
                (float(place[0]), float(place[1]), float(place[2])),
                targets[index],
                series.planes[blend.nearest],
                blend.planes,
                blend.weights,
                tuple((float(x), float(y)) for x, y in lattice.shifts_px[list(blend.planes)]),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class _Mapping:
    """Both directions between output indices (x, y, z) and source indices (column, row, plane)."""

    geometry: StackGeometry
    lattice: Lattice

    def heights_mm(self, slices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions along the normal of (continuous) output slices."""
        first = self.geometry.target_positions_mm[0]
        return first + slices * self.geometry.slice_spacing_mm

    def shifts_px(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shifts (N, 2) of (continuous) planes, linear between them."""
        numbers = np.arange(len(self.lattice.shifts_px))
        return np.stack(
            [np.interp(planes, numbers, self.lattice.shifts_px[:, k]) for k in (0, 1)], axis=1
        )


def map_to_source(series: Series, points: ArrayLike) -> NDArray[np.float64]:
    """Source indices (N, 3) as (column, row, plane) of output indices (N, 3) as (x, y, z).

    Both are continuous; ``plane`` counts ``series.planes`` and lies between two of them where the
    slice does. Points above or below the stack get the first or last plane.
    """
    mapping = _Mapping(*_parts(series))
    given = _points(points)
    positions = np.asarray(mapping.geometry.positions_mm)
    heights = mapping.heights_mm(given[:, 2])
    planes = np.interp(heights, positions, np.arange(len(positions)))
    return np.column_stack([given[:, :2] - mapping.shifts_px(planes), planes])


def map_from_source(series: Series, points: ArrayLike) -> NDArray[np.float64]:
    """Output indices (N, 3) as (x, y, z) of source indices (N, 3) as (column, row, plane)."""
    mapping = _Mapping(*_parts(series))
    given = _points(points)
    geometry = mapping.geometry
    positions = np.asarray(geometry.positions_mm)
    heights = np.interp(given[:, 2], np.arange(len(positions)), positions)
    slices = (heights - geometry.target_positions_mm[0]) / geometry.slice_spacing_mm
    return np.column_stack([given[:, :2] + mapping.shifts_px(given[:, 2]), slices])


def mask_to_source(series: Series, mask: NDArray[np.generic]) -> NDArray[np.generic]:
    """A mask on the grid of ``read`` (z, y, x) brought to the planes (planes, rows, columns).

    Each plane takes the slice nearest to it, moved by whole pixels; labels are never mixed.
    """
    geometry, lattice = _parts(series)
    wanted = (len(geometry.target_positions_mm), lattice.rows, lattice.columns)
    _check_shape(mask, wanted)
    nearest = _nearest(geometry.target_positions_mm, geometry.positions_mm)
    out = np.zeros((len(series.planes), geometry.rows, geometry.columns), dtype=mask.dtype)
    for index, slice_index in enumerate(nearest):
        x, y = _whole_shift(lattice, index)
        out[index] = mask[slice_index, y : y + geometry.rows, x : x + geometry.columns]
    return out


def mask_from_source(series: Series, masks: NDArray[np.generic]) -> NDArray[np.generic]:
    """Masks on the planes (planes, rows, columns) brought to the grid of ``read`` (z, y, x).

    Each slice takes the plane nearest to it, moved by whole pixels; 0 where there is none.
    """
    geometry, lattice = _parts(series)
    _check_shape(masks, (len(series.planes), geometry.rows, geometry.columns))
    nearest = _nearest(geometry.positions_mm, geometry.target_positions_mm)
    out = np.zeros((len(nearest), lattice.rows, lattice.columns), dtype=masks.dtype)
    for index, plane in enumerate(nearest):
        x, y = _whole_shift(lattice, plane)
        out[index, y : y + geometry.rows, x : x + geometry.columns] = masks[plane]
    return out


def _parts(series: Series) -> tuple[StackGeometry, Lattice]:
    if series.geometry is None:
        raise CaseRefused(
            "invalid-geometry", "The series does not make a volume.", where=str(series.folder)
        )
    return series.geometry, output_lattice(series.planes, series.geometry)


def _points(points: ArrayLike) -> NDArray[np.float64]:
    given = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if given.ndim != 2 or given.shape[1] != 3:
        raise ValueError(f"points have shape {given.shape}, wanted (N, 3)")
    return given


def _check_shape(mask: NDArray[np.generic], wanted: tuple[int, int, int]) -> None:
    if mask.shape != wanted:
        raise ValueError(f"the mask has shape {mask.shape}, wanted {wanted}")


def _nearest(among_mm: tuple[float, ...], to_mm: tuple[float, ...]) -> list[int]:
    """For each position, the index of the nearest one among others."""
    distances = np.abs(np.subtract.outer(np.asarray(to_mm), np.asarray(among_mm)))
    return [int(k) for k in distances.argmin(axis=1)]


def _whole_shift(lattice: Lattice, plane: int) -> tuple[int, int]:
    """The shift of a plane (columns, rows) in whole pixels, rounded as values are."""
    rounded = []
    for shift in lattice.shifts_px[plane]:
        whole, fraction = split_shift(float(shift))
        rounded.append(whole if fraction < 0.5 else whole + 1)
    return rounded[0], rounded[1]
