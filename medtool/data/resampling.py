"""Images and scores at another size, slab by slab along z, in bounded memory.

Equal to what nnU-Net does through ``skimage.transform.resize`` (Isensee 2021, version 2.8.1:
default_resampling.py), but as products with banded matrices, axis by axis: rows and columns of the
planes first, then across the planes. A result in full size need never exist:
``resampled_slabs`` gives it piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.data.resampling_axes import Order, nearest_indices, tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A voxel over this many times longer than wide is resampled in its planes, then across them.
ANISOTROPY = 3
# Planes of a slab where the axis across them is not resampled by tiles.
SLAB_PLANES = 64


def separate_axis(spacing_mm: Sequence[float], target_mm: Sequence[float]) -> int | None:
    """The axis that is resampled on its own, by the nearest plane; None where all go together.

    Asked of the spacing that is left, and of the one aimed at where that is even enough.
    """
    for spacing in (spacing_mm, target_mm):
        longest = max(spacing)
        if longest / min(spacing) > ANISOTROPY:
            axes = [axis for axis, length in enumerate(spacing) if length == longest]
            return axes[0] if len(axes) == 1 else None
    return None


def resample(
    volume: NDArray[Any], size_vox: Sequence[int], *, order: Order = 3, separate: int | None = None
) -> NDArray[np.float32]:
    """``volume`` (z, y, x) at ``size_vox``, float32; see ``resampled_slabs``."""
    size = tuple(size_vox)
    if volume.shape == size:
        return np.ascontiguousarray(volume, dtype=np.float32)
    whole = np.empty(size, dtype=np.float32)
    for planes, slab in resampled_slabs(volume[None], size, order=order, separate=separate):
        whole[planes] = slab[0]
    return whole


def resampled_slabs(
    channels: NDArray[Any],
    size_vox: Sequence[int],
    *,
    order: Order = 1,
    separate: int | None = None,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """``channels`` (channels, z, y, x) at ``size_vox`` (z, y, x), a slab of planes at a time.

    Gives, in order, which planes a slab holds, and the slab (channels, planes, y, x). ``order`` is
    3 (cubic spline), 1 (linear) or 0 (nearest); along the axis ``separate`` the nearest plane is
    taken. A cubic spline overshoots: its results are clipped to the range of the channel, or of
    the plane across ``separate``, as skimage does.
    """
    sides = [_Channel.prepared(channel, tuple(size_vox), order, separate) for channel in channels]
    for parts in zip(*(side.slabs() for side in sides), strict=True):
        yield parts[0][0], np.stack([part for _, part in parts])


@dataclass(frozen=True)
class _Channel:
    """One channel on its way to another size."""

    volume: NDArray[Any]
    size_vox: tuple[int, ...]
    orders: tuple[Order, ...]
    lowest: NDArray[np.float32] | None
    highest: NDArray[np.float32] | None

    @classmethod
    def prepared(
        cls, volume: NDArray[Any], size_vox: tuple[int, ...], order: Order, separate: int | None
    ) -> _Channel:
        orders: tuple[Order, ...] = tuple(0 if axis == separate else order for axis in range(3))
        if order != 3:
            return cls(volume, size_vox, orders, None, None)
        others = tuple(axis for axis in range(3) if axis != separate)
        lowest = volume.min(axis=others, keepdims=True).astype(np.float32)
        highest = volume.max(axis=others, keepdims=True).astype(np.float32)
        if separate is not None:
            planes = nearest_indices(volume.shape[separate], size_vox[separate])
            lowest = lowest.take(planes, axis=separate)
            highest = highest.take(planes, axis=separate)
        return cls(volume, size_vox, orders, lowest, highest)

    def slabs(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Slabs of the new volume, clipped."""
        for rows, slab in self._across_planes():
            if self.lowest is not None and self.highest is not None:
                limits = [
                    limit[rows] if len(limit) > 1 else limit
                    for limit in (self.lowest, self.highest)
                ]
                np.clip(slab, limits[0], limits[1], out=slab)
            yield rows, slab

    def _across_planes(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        old, new = self.volume.shape[0], self.size_vox[0]
        order = self.orders[0]
        if order == 0 or old == new:
            planes = nearest_indices(old, new)
            for start in range(0, new, SLAB_PLANES):
                rows = slice(start, min(start + SLAB_PLANES, new))
                yield rows, self._nearest_planes(planes[rows])
            return
        window = _Window(self)
        for tile in tiles(old, new, order):
            planes_in = window.planes(tile.columns)
            flat = tile.weights @ planes_in.reshape(len(planes_in), -1)
            yield tile.rows, flat.reshape(-1, *self.size_vox[1:])

    def _nearest_planes(self, indices: NDArray[np.intp]) -> NDArray[np.float32]:
        once, back = np.unique(indices, return_inverse=True)
        planes = self.in_plane(once)
        return planes if len(once) == len(indices) else planes.take(back, axis=0)

    def in_plane(self, part: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """Planes ``part`` of the old volume at their new rows and columns."""
        planes = np.ascontiguousarray(self.volume[part], dtype=np.float32)
        return _columns(
            _rows(planes, self.size_vox[1], self.orders[1]), self.size_vox[2], self.orders[2]
        )


class _Window:
    """The planes that the tiles need next: neighbouring tiles share some, made once."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._start = self._stop = 0
        self._planes = np.empty((0, *channel.size_vox[1:]), dtype=np.float32)

    def planes(self, part: slice) -> NDArray[np.float32]:
        """Planes ``part``, which never begins before the last one asked for."""
        kept = self._planes[max(part.start - self._start, 0) :]
        fresh = self._channel.in_plane(slice(max(self._stop, part.start), part.stop))
        self._planes = np.concatenate([kept, fresh]) if len(kept) else fresh
        self._start, self._stop = part.start, max(self._stop, part.stop)
        return self._planes[: part.stop - part.start]


def _rows(planes: NDArray[np.float32], new: int, order: Order) -> NDArray[np.float32]:
    """``planes`` (planes, y, x) at ``new`` rows."""
    old = planes.shape[1]
    if old == new:
        return planes
    if order == 0:
        return planes[:, nearest_indices(old, new)]
    out = np.empty((len(planes), new, planes.shape[2]), dtype=np.float32)
    for tile in tiles(old, new, order):
        np.matmul(tile.weights, planes[:, tile.columns], out=out[:, tile.rows])
    return out


def _columns(planes: NDArray[np.float32], new: int, order: Order) -> NDArray[np.float32]:
    """``planes`` (planes, y, x) at ``new`` columns."""
    old = planes.shape[2]
    if old == new:
        return planes
    if order == 0:
        return planes[:, :, nearest_indices(old, new)]
    flat = planes.reshape(-1, old)
    out = np.empty((len(flat), new), dtype=np.float32)
    for tile in tiles(old, new, order):
        np.matmul(flat[:, tile.columns], tile.weights.T, out=out[:, tile.rows])
    return out.reshape(*planes.shape[:2], new)
