"""Writing NIfTI-1 files: one volume on a grid, the same bytes for the same content.

A small writer of our own, because files appear whole or not at all, and a second run has to give
the same bytes: the gzip member names no file and no time. Layout: nifti1.h of the NIfTI-1 standard.
"""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid

_DATATYPES = {"u1": 2, "i2": 4, "f4": 16, "u2": 512}
_HEADER_BYTES = 348
# Four bytes behind the header say that no extension follows.
_DATA_AT = 352
_MILLIMETRES = 2
_SCANNER_ANATOMICAL = 1
# Masks shrink to a hundredth at any level; the higher ones only take longer.
_GZIP_LEVEL = 3
# A direction farther from a rotation than this is no rounded rotation but another thing.
_ORTHONORMAL_TOLERANCE = 1e-3
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0])


def write_nifti(path: Path, values: NDArray[Any], grid: Grid, *, description: str = "") -> None:
    """Write ``values`` (z, y, x), uint8, int16, uint16 or float32, as ``path`` (.nii or .nii.gz).

    Values (channels, z, y, x) make a file of four dimensions. Planes are read one at a time.
    qform and sform say the same, and are orthonormal; ``description`` is cut to what the header has
    room for. Raises ValueError where values and grid do not fit or the type is another,
    MachineError where the file cannot be written.
    """
    if values.shape[-3:] != grid.size[::-1] or values.ndim not in (3, 4):
        raise ValueError(f"values have shape {values.shape}, the grid {grid.size[::-1]}")
    kind = values.dtype.str[1:]
    if kind not in _DATATYPES:
        raise ValueError(f"values are {values.dtype}, wanted one of {', '.join(_DATATYPES)}")
    channels = values.shape[0] if values.ndim == 4 else None
    header = _header(grid, channels, _DATATYPES[kind], values.dtype.itemsize, description)
    little_endian = values.dtype.newbyteorder("<")
    with replacing(path) as file:
        if not path.name.lower().endswith(".gz"):
            file.write(header)
            _write_slices(file, values, little_endian)
            return
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
            packed.write(header)
            _write_slices(packed, values, little_endian)


def _write_slices(file: Any, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Slice by slice: a view that was turned is never copied whole."""
    for plane in values if values.ndim == 3 else itertools.chain.from_iterable(values):
        file.write(np.ascontiguousarray(plane, dtype=dtype).data)


def _header(
    grid: Grid, channels: int | None, datatype: int, itemsize: int, description: str
) -> bytes:
    rotation, origin = _ras(grid)
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    quaternion = _quaternion(rotation * [1.0, 1.0, handedness])
    header = bytearray(_DATA_AT)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    dimensions = 3 if channels is None else 4
    struct.pack_into("<8h", header, 40, dimensions, *grid.size, channels or 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, datatype, itemsize * 8)
    struct.pack_into("<8f", header, 76, handedness, *grid.spacing_mm, dimensions - 3, 0, 0, 0)
    struct.pack_into("<3f", header, 108, _DATA_AT, 1.0, 0.0)
    header[123] = _MILLIMETRES
    struct.pack_into("<80s", header, 148, description.encode("ascii", "replace")[:79])
    struct.pack_into("<2h", header, 252, _SCANNER_ANATOMICAL, _SCANNER_ANATOMICAL)
    struct.pack_into("<6f", header, 256, *quaternion, *origin)
    rows = np.column_stack([rotation * grid.spacing_mm, origin])
    struct.pack_into("<12f", header, 280, *rows.ravel())
    struct.pack_into("<4s", header, 344, b"n+1\0")
    return bytes(header)


def _ras(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions (columns; the nearest orthonormal ones) and origin in NIfTI's RAS."""
    given = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    left, _, right = np.linalg.svd(given)
    nearest = left @ right
    if np.abs(nearest - given).max() > _ORTHONORMAL_TOLERANCE:
        raise ValueError("the grid's directions are not at right angles, or not of length 1")
    return _RAS_FROM_LPS @ nearest, _RAS_FROM_LPS @ np.asarray(grid.origin_mm)


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """b, c, d of the unit quaternion (a, b, c, d) with a >= 0 of a rotation."""
    # The eigenvector of the largest eigenvalue of this matrix, for any rotation (Bar-Itzhack 2000).
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    _, vectors = np.linalg.eigh(matrix)
    a, b, c, d = vectors[:, -1] * (1.0 if vectors[0, -1] >= 0 else -1.0)
    return float(b), float(c), float(d)
