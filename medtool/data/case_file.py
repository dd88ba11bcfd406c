"""The file of one prepared case: a JSON header, then each array as a blosc2 frame.

Layout: 8 bytes ``MEDTOOLP``; format version and length of the header (two little-endian uint32);
BLAKE2b-16 of the header; the header (UTF-8 JSON); the frames. The header says of each array its
dtype, shape, offset and length in bytes, and CRC-32 of the frame, so that slices or patches are
read without the rest and a damaged file is known as such.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blosc2
import numpy as np

from medtool.core.errors import InputError
from medtool.core.geometry import Grid
from medtool.core.records import Finding, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"MEDTOOLP"
FORMAT_VERSION = 1
_LEAD = struct.Struct("<8sII16s")

# Chunks and blocks for volumes that are read by patch: the fastest of those measured on
# 200 x 512 x 512 int16 (lz4 level 5 with bit shuffling likewise).
PATCH_CHUNKS = (64, 128, 128)
PATCH_BLOCKS = (16, 32, 32)
# Planes up to this side are read whole: one chunk a plane.
LARGEST_PLANE_PX = 256
# Small planes share a chunk up to this size: smaller chunks compress badly.
SMALLEST_CHUNK_BYTES = 1 << 16

Index = slice | Sequence[int] | tuple[slice, ...]


class DamagedFile(InputError):
    """A file of the cache that is cut short, changed or no case file at all."""


def _chunks(array: NDArray[Any]) -> dict[str, tuple[int, ...]]:
    """Chunks and blocks that suit how the array will be read; {} leaves it to blosc2."""
    if array.ndim < 3 or array.size == 0:
        return {}
    if array.ndim == 3 and max(array.shape[1:]) > LARGEST_PLANE_PX:
        chunks = tuple(min(a, b) for a, b in zip(PATCH_CHUNKS, array.shape, strict=True))
        return {
            "chunks": chunks,
            "blocks": tuple(min(a, b) for a, b in zip(PATCH_BLOCKS, chunks, strict=True)),
        }
    if array.ndim == 4:
        # Channels that are read by patch together.
        return {"chunks": (1, *map(min, PATCH_CHUNKS, array.shape[1:]))}
    plane_bytes = math.prod(array.shape[1:]) * array.itemsize
    planes = min(len(array), max(1, SMALLEST_CHUNK_BYTES // plane_bytes))
    return {"chunks": (planes, *array.shape[1:])}


def _frame(array: NDArray[Any]) -> bytes:
    parameters = blosc2.CParams(
        codec=blosc2.Codec.LZ4, clevel=5, filters=[blosc2.Filter.BITSHUFFLE], nthreads=1
    )
    contiguous = np.ascontiguousarray(array)
    stored = blosc2.asarray(contiguous, cparams=parameters, **_chunks(contiguous))
    frame: bytes = stored.to_cframe()
    return frame


def _plain(value: object) -> object:
    """What JSON does not know by itself: numpy's numbers and arrays, paths, sets."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be stored with a prepared case")


def to_bytes(prepared: Prepared) -> list[bytes]:
    """The parts of the file, in order."""
    frames = {name: _frame(np.asarray(array)) for name, array in prepared.arrays.items()}
    arrays: dict[str, Any] = {}
    offset = 0
    for name, frame in frames.items():
        array = np.asarray(prepared.arrays[name])
        arrays[name] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "offset": offset,
            "bytes": len(frame),
            "crc32": zlib.crc32(frame),
        }
        offset += len(frame)
    header = json.dumps(
        {
            "case": prepared.case_id,
            "arrays": arrays,
            "grids": {name: grid.as_dict() for name, grid in prepared.grids.items()},
            "elements": [dict(row) for row in prepared.elements],
            "facts": dict(prepared.facts),
            "findings": [asdict(finding) for finding in prepared.findings],
        },
        default=_plain,
        ensure_ascii=False,
    ).encode()
    digest = hashlib.blake2b(header, digest_size=16).digest()
    return [_LEAD.pack(MAGIC, FORMAT_VERSION, len(header), digest), header, *frames.values()]


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the frames begin. Raises DamagedFile."""
    try:
        with path.open("rb") as file:
            lead = file.read(_LEAD.size)
            if len(lead) < _LEAD.size:
                raise DamagedFile("A file of the cache is cut short.", where=str(path))
            magic, version, length, digest = _LEAD.unpack(lead)
            if magic != MAGIC or version != FORMAT_VERSION:
                raise DamagedFile(
                    "A file of the cache is of another kind.",
                    where=str(path),
                    met=f"{magic!r}, version {version}",
                    wanted=f"{MAGIC!r}, version {FORMAT_VERSION}",
                )
            header = file.read(length)
    except OSError as error:
        raise DamagedFile(
            "A file of the cache cannot be read.", where=str(path), met=str(error.strerror)
        ) from error
    if hashlib.blake2b(header, digest_size=16).digest() != digest:
        raise DamagedFile("The header of a file of the cache is damaged.", where=str(path))
    document: dict[str, Any] = json.loads(header)
    return document, _LEAD.size + len(header)


def verify(path: Path) -> dict[str, Any]:
    """Read every byte once; gives the header. Raises DamagedFile."""
    document, start = read_header(path)
    with path.open("rb") as file:
        file.seek(start)
        for name, entry in document["arrays"].items():
            if zlib.crc32(file.read(entry["bytes"])) != entry["crc32"]:
                raise DamagedFile(
                    "An array in a file of the cache is damaged.", where=f"{path}: {name}"
                )
        if file.read(1):
            raise DamagedFile("A file of the cache has more than its header says.", where=str(path))
    return document


def _array(path: Path, entry: Mapping[str, Any], start: int, index: Index | None) -> NDArray[Any]:
    """One array, or the part of it that ``index`` names."""
    if index is None:
        with path.open("rb") as file:
            file.seek(start + entry["offset"])
            frame = file.read(entry["bytes"])
        if zlib.crc32(frame) != entry["crc32"]:
            raise DamagedFile("An array in a file of the cache is damaged.", where=str(path))
        whole: NDArray[Any] = blosc2.ndarray_from_cframe(frame)[...]
        return whole
    stored = blosc2.open(str(path), mode="r", offset=start + entry["offset"])
    if isinstance(index, slice) or (index and isinstance(index[0], slice)):
        part: NDArray[Any] = stored[index]
        return part
    rows = [int(position) for position in index if not isinstance(position, slice)]
    picked = np.empty((len(rows), *entry["shape"][1:]), np.dtype(entry["dtype"]))
    for row, position in enumerate(rows):
        picked[row] = stored[position]
    return picked


def read_case_file(
    path: Path, *, names: Sequence[str] | None = None, index: Index | None = None
) -> Prepared:
    """A prepared case, or part of it.

    ``names`` limits the arrays; ``index`` is applied to each of them: a slice or a sequence of
    positions of the first axis, or one slice for each of the leading axes (a patch). Whole arrays
    are checked against their checksum. Raises DamagedFile.
    """
    document, start = read_header(path)
    entries = document["arrays"]
    wanted = list(entries) if names is None else list(names)
    try:
        arrays = {name: _array(path, entries[name], start, index) for name in wanted}
    except (RuntimeError, ValueError, OSError) as error:
        raise DamagedFile(
            "An array in a file of the cache cannot be read.", where=str(path), met=str(error)
        ) from error
    return Prepared(
        case_id=document["case"],
        arrays=arrays,
        grids={name: _grid(entry) for name, entry in document["grids"].items()},
        elements=tuple(document["elements"]),
        facts=document["facts"],
        findings=tuple(Finding(**finding) for finding in document["findings"]),
    )


def _grid(entry: Mapping[str, Any]) -> Grid:
    size, spacing, origin = entry["size"], entry["spacing_mm"], entry["origin_mm"]
    return Grid(
        (size[0], size[1], size[2]),
        (spacing[0], spacing[1], spacing[2]),
        (origin[0], origin[1], origin[2]),
        tuple(entry["direction"]),
    )
