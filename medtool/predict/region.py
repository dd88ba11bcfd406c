"""Looking closely only where a coarse look found something; everywhere, where it found too little.

A region that misses the organ is a total failure, so a coarse answer that is implausibly small
counts as none, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.records import Finding
from medtool.data.masks import MM3_PER_ML
from medtool.predict.sliding_window import Readable, Slab

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_VOLUME = "region-whole-volume"


@dataclass(frozen=True)
class Region:
    """Where to look closely: a box of the volume (z, y, x); the whole, where a finding says so."""

    box: tuple[slice, ...]
    findings: tuple[Finding, ...] = ()


def find_region(
    coarse: NDArray[np.bool_],
    size_vox: Sequence[int],
    spacing_mm: Sequence[float],
    *,
    margin_mm: float,
    least_ml: float,
    least_size_vox: Sequence[int] = (1, 1, 1),
) -> Region:
    """The box around ``coarse`` in a volume of ``size_vox`` (z, y, x), ``margin_mm`` wider.

    ``coarse`` (z, y, x) covers the same space, with voxels of any size. A box is at least
    ``least_size_vox`` where the volume is: a network that sees windows of that size must not see
    padding where there is an image. Where ``coarse`` marks less than ``least_ml``, the whole volume
    is the region, and a warning says so.
    """
    volume_mm3 = float(np.prod([n * step for n, step in zip(size_vox, spacing_mm, strict=True)]))
    found_ml = np.count_nonzero(coarse) / coarse.size * volume_mm3 / MM3_PER_ML
    if found_ml < least_ml or not found_ml:
        text = (
            f"The coarse look found {found_ml:.1f} mL, under {least_ml:g} mL: the whole volume was "
            "looked at closely."
        )
        return whole_volume(size_vox, text)
    box = []
    axes = zip(size_vox, spacing_mm, least_size_vox, strict=True)
    for axis, (size, step, least) in enumerate(axes):
        others = tuple(other for other in range(coarse.ndim) if other != axis)
        marked = np.flatnonzero(coarse.any(axis=others))
        scale, margin = size / coarse.shape[axis], margin_mm / step
        low = int(np.floor(marked[0] * scale - margin))
        high = int(np.ceil((marked[-1] + 1) * scale + margin))
        box.append(_widened(low, high, least, size))
    return Region(tuple(box))


def whole_volume(size_vox: Sequence[int], why: str) -> Region:
    """All of a volume, with a warning that says why nothing less would do."""
    box = tuple(slice(0, size) for size in size_vox)
    return Region(box, (Finding(WHOLE_VOLUME, why, "warning"),))


def _widened(low: int, high: int, least: int, size: int) -> slice:
    """``low`` to ``high``, within ``size``, evenly widened to ``least`` where there is room."""
    low, high, least = max(low, 0), min(high, size), min(least, size)
    if high - low < least:
        low = min(max(low - (least - (high - low)) // 2, 0), size - least)
        high = low + least
    return slice(low, high)


def cut_out(volume: Readable, region: Region) -> NDArray[np.float32]:
    """The region's part of a volume (channels, z, y, x)."""
    part: NDArray[np.float32] = np.asarray(volume[(slice(None), *region.box)], dtype=np.float32)
    return part


def put_back(
    slabs: Iterable[Slab],
    region: Region,
    size_vox: Sequence[int],
    background: Sequence[float],
) -> Iterator[Slab]:
    """Slabs of the region as slabs of a volume of ``size_vox``: ``background`` logits around it."""
    rows, *plane = region.box
    around = np.asarray(background, dtype=np.float32)[:, None, None, None]

    def empty(count: int) -> NDArray[np.float32]:
        return np.tile(around, (1, count, *size_vox[1:]))

    for row in range(rows.start):
        yield Slab(row, empty(1))
    for slab in slabs:
        logits = empty(slab.logits.shape[1])
        logits[(slice(None), slice(None), *plane)] = slab.logits
        yield Slab(rows.start + slab.start, logits)
    for row in range(rows.stop, size_vox[0]):
        yield Slab(row, empty(1))
