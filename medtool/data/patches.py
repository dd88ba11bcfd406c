"""Patches of prepared volumes, read from the cache without the rest.

A patch keeps inside the volume where it fits and is centred where it does not; what lies outside
is filled. Sizes and positions are in voxels of the prepared grid, in array order (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.data.case_file import read_case_file

if TYPE_CHECKING:
    from numpy.typing import NDArray


def patch_start(
    centre: Sequence[int], patch: Sequence[int], shape: Sequence[int]
) -> tuple[int, ...]:
    """Where a patch around ``centre`` begins, moved so that it stays inside ``shape``.

    Along an axis that is shorter than the patch the volume is in the patch's middle, and the start
    is negative.
    """
    starts = []
    for middle, length, whole in zip(centre, patch, shape, strict=True):
        if whole <= length:
            starts.append(-((length - whole) // 2))
        else:
            starts.append(min(max(middle - length // 2, 0), whole - length))
    return tuple(starts)


def read_patch(
    path: Path,
    name: str,
    start: Sequence[int],
    size: Sequence[int],
    shape: Sequence[int],
    *,
    channels: bool,
    fill: float,
) -> NDArray[Any]:
    """The part of the array ``name`` that begins at ``start``; ``fill`` where there is none.

    The array is (z, y, x) of ``shape``, with ``channels`` first where it has them. Raises
    DamagedFile.
    """
    inside, place = [], []
    for begin, length, whole in zip(start, size, shape, strict=True):
        first, last = max(begin, 0), min(begin + length, whole)
        last = max(first, last)
        inside.append(slice(first, last))
        place.append(slice(first - begin, last - begin))
    leading = (slice(None),) if channels else ()
    read = read_case_file(path, names=(name,), index=(*leading, *inside)).arrays[name]
    if read.shape[-len(inside) :] == tuple(size):
        return read
    lead = read.shape[: read.ndim - len(inside)]
    filled = np.full((*lead, *size), fill, dtype=read.dtype)
    filled[(*leading, *place)] = read
    return filled
