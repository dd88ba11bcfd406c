"""One axis of a resampling: which voxels along it a new voxel is made of, and with what weights.

Voxel centres lie at (i + 0.5) / n of the axis, so borders keep their place, and beyond a border its
voxel goes on. These are the conventions of ``skimage.transform.resize`` (mode ``edge``, no
smoothing) and of ``scipy.ndimage.zoom`` (``grid_mode``, mode ``nearest``), which nnU-Net uses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Literal[0, 1, 3]

# scipy continues an axis by so many voxels before its spline filter (_prepad_for_spline_filter).
_CONTINUED_VOX = 12
# The spline filter decays by 0.268 a voxel: weights under this are lost in float32 anyway.
_NEGLIGIBLE = 1e-8
# Rows of a tile: enough for BLAS to be fast, few enough that hardly any weight in it is zero.
_TILE_ROWS = 64


@dataclass(frozen=True)
class Tile:
    """New voxels ``rows`` out of old voxels ``columns``: ``weights`` is (rows, columns)."""

    rows: slice
    columns: slice
    weights: NDArray[np.float32]


def positions(old: int, new: int) -> NDArray[np.float64]:
    """Where the centres of the ``new`` voxels lie, in indices of the ``old`` ones."""
    scale = old / new
    return (np.arange(new, dtype=np.float64) + 0.5) * scale - 0.5


def nearest_indices(old: int, new: int) -> NDArray[np.intp]:
    """For each new voxel the old one that is nearest; halves go up."""
    found = np.floor(positions(old, new) + 0.5).astype(np.intp)
    return np.clip(found, 0, old - 1)


def linear_neighbours(
    old: int, new: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """For each new voxel the old ones before and after it, and the weight of the latter."""
    place = np.clip(positions(old, new), 0, old - 1)
    before = np.floor(place).astype(np.intp)
    after = np.minimum(before + 1, old - 1)
    return before, after, place - before


def tiles(old: int, new: int, order: Literal[1, 3]) -> tuple[Tile, ...]:
    """The weights of an axis from ``old`` to ``new`` voxels, as tiles of a banded matrix.

    Order 1 is linear, order 3 the interpolating cubic B-spline with its prefilter folded in.
    """
    return _tiles(old, new, order)


@functools.lru_cache(maxsize=64)
def _tiles(old: int, new: int, order: Literal[1, 3]) -> tuple[Tile, ...]:
    matrix = _cubic_matrix(old, new) if order == 3 else _linear_matrix(old, new)
    # Left alone they fade below what float32 holds in full, where products take ten times as long.
    matrix[np.abs(matrix) <= _NEGLIGIBLE] = 0
    found = []
    for start in range(0, new, _TILE_ROWS):
        rows = slice(start, min(start + _TILE_ROWS, new))
        used = np.flatnonzero(matrix[rows].any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        found.append(Tile(rows, columns, matrix[rows, columns].astype(np.float32)))
    return tuple(found)


def _linear_matrix(old: int, new: int) -> NDArray[np.float64]:
    before, after, share = linear_neighbours(old, new)
    matrix = np.zeros((new, old))
    rows = np.arange(new)
    np.add.at(matrix, (rows, before), 1 - share)
    np.add.at(matrix, (rows, after), share)
    return matrix


def _cubic_matrix(old: int, new: int) -> NDArray[np.float64]:
    """What the spline makes of a single 1 at each old voxel, sampled at the new ones."""
    continued = np.pad(np.eye(old), ((_CONTINUED_VOX, _CONTINUED_VOX), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(continued, 3, axis=0, mode="nearest")
    place = positions(old, new) + _CONTINUED_VOX
    first = np.floor(place).astype(np.intp)
    t = (place - first)[:, None]
    weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
    matrix = np.zeros((new, old))
    for offset, weight in enumerate(weights):
        matrix += weight / 6 * coefficients[first - 1 + offset]
    return matrix
