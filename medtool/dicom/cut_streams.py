"""Compressed images that were cut and closed with an end marker: their decoders say nothing.

OpenJPH stops at the last row that it has; libjpeg fills what is missing with the grey in the middle
of the range. Both leave traces that cost next to nothing to look for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Stored = NDArray[np.integer]

_END_OF_IMAGE = b"\xff\xd9"
_START_OF_TILE_PART = b"\xff\x90"
# SOT: marker, length, number of the tile, length of the tile-part, its number, how many there are.
_TILE_PART = ">2sHHIBB"
# Entropy-coded bytes that no stream holds behind its image. None is 0xFF, which begins a marker.
_MORE_BYTES = bytes((37 * k * k + 11 * k + 90) % 255 for k in range(512))


def codestream_is_cut(data: bytes) -> bool:
    """Whether a JPEG 2000 codestream ends before its tile-parts do (T.800, A.4.2)."""
    position = _first_tile_part(data)
    promised: dict[int, int] = {}
    there: dict[int, int] = {}
    while position + struct.calcsize(_TILE_PART) <= len(data):
        marker, _, tile, length, _, count = struct.unpack_from(_TILE_PART, data, position)
        if marker != _START_OF_TILE_PART:
            break
        if length == 0:
            # The last one may reach to the end without saying how far that is.
            return False
        # How many there are may stand in one of them only; 0 says that another one tells.
        promised[tile] = max(promised.get(tile, 0), count)
        there[tile] = there.get(tile, 0) + 1
        position += length
        if position + len(_END_OF_IMAGE) > len(data):
            return True
    return any(there[tile] < count for tile, count in promised.items())


def _first_tile_part(data: bytes) -> int:
    """Where the main header ends: behind SOC all its segments have a length."""
    position = 2
    while position + 4 <= len(data) and data[position : position + 2] != _START_OF_TILE_PART:
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return position


def jpeg_is_cut(
    data: bytes,
    values: Stored,
    *,
    precision: int,
    progressive: bool,
    decode: Callable[[bytes], Stored],
) -> bool:
    """Whether ``values`` (rows, columns), decoded from ``data``, end in what libjpeg made up.

    A last pixel in the middle of the range arouses suspicion; then more data before the end marker
    change the image of a stream that was cut, and cannot change that of a whole one. A progressive
    stream is always put to that proof, since its missing scans leave no grey.
    """
    if not progressive and int(values[-1, -1]) != 1 << (precision - 1):
        return False
    end = data.rfind(_END_OF_IMAGE)
    return bool((decode(data[:end] + _MORE_BYTES + data[end:]) != values).any())
