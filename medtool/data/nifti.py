"""Where a NIfTI file holds no numbers.

SimpleITK reads NIfTI through a library that turns NaN and infinity into 0 without a word, and 0 HU
is water. So files of floating-point voxels are asked here, by their own bytes (NIfTI-1 and 2, one
file, plain or gzip).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# sizeof_hdr of NIfTI-1 and 2: where datatype and vox_offset stand, and the type of the latter.
_LAYOUTS = {348: (70, 108, "f"), 540: (12, 168, "q")}
_FLOATS = {16: "f4", 64: "f8"}


def undefined_voxels(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """True where a voxel is NaN or infinite, in the ``shape`` (z, y, x) that was read.

    None where all are numbers, where voxels are integers, and where the file is none of those that
    this module reads: SimpleITK has the last word on those.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            header = file.read(544)
            found = _floats_at(header)
            if found is None:
                return None
            dtype, offset = found
            file.seek(offset)
            data = file.read(int(np.prod(shape)) * dtype.itemsize)
    except (OSError, EOFError, struct.error, zlib.error):
        return None
    if len(data) != int(np.prod(shape)) * dtype.itemsize:
        return None
    undefined = ~np.isfinite(np.frombuffer(data, dtype).reshape(shape))
    return undefined if undefined.any() else None


def _floats_at(header: bytes) -> tuple[np.dtype[np.floating], int] | None:
    """Type of the voxels and where they begin; None where they are no floating-point numbers."""
    for order in "<>":
        layout = _LAYOUTS.get(struct.unpack_from(f"{order}i", header)[0])
        if layout is None:
            continue
        type_at, offset_at, offset_kind = layout
        (kind,) = struct.unpack_from(f"{order}h", header, type_at)
        (offset,) = struct.unpack_from(f"{order}{offset_kind}", header, offset_at)
        if kind in _FLOATS:
            return np.dtype(f"{order}{_FLOATS[kind]}"), int(offset)
    return None
