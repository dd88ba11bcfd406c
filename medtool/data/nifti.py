"""NIfTI files (NIfTI-1 and 2 in one file, plain or gzip), by their own bytes.

SimpleITK reads NIfTI through a library that turns NaN and infinity into 0 without a word (0 HU is
water), and keeps to itself what it makes of headers that contradict themselves. So headers and
voxels are read here. Layout: nifti1.h and nifti2.h of the NIfTI working group.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np

from medtool.core.errors import CaseRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

# datatype -> numpy type; the others are complex numbers, colours and 128-bit floats.
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_GZIP_START = b"\x1f\x8b"
# Deflate cannot make more than this of one byte (zlib's technical notes).
_LARGEST_INFLATION = 1032
# Millimetres of the units of xyzt_units; 0 says nothing, and everybody means mm.
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_PIECE_BYTES = 1 << 24
# Where the description stands, by the length of the header, and the word that medtool's own
# generators write there.
_DESCRIPTIONS, _DESCRIPTION_BYTES = {348: 148, 540: 240}, 80
_SYNTHETIC_WITHIN_BYTES = 540
SYNTHETIC = b"synthetic"


@dataclass(frozen=True)
class _Offsets:
    """Where the fields of a header stand, and their types, in one version of the format."""

    header_bytes: int
    magic: tuple[int, bytes]
    dim: tuple[int, str]
    datatype: int
    pixdim: tuple[int, str]
    vox_offset: tuple[int, str]
    scale: tuple[int, str]
    units: tuple[int, str]
    codes: tuple[int, str]
    quaternion: tuple[int, str]
    rows: tuple[int, str]


_VERSIONS = {
    348: _Offsets(
        348, (344, b"n+1\0"), (40, "8h"), 70, (76, "8f"), (108, "f"), (112, "2f"), (123, "b"),
        (252, "2h"), (256, "6f"), (280, "12f"),
    ),
    540: _Offsets(
        540, (4, b"n+2\0"), (16, "8q"), 12, (104, "8d"), (168, "q"), (176, "2d"), (500, "i"),
        (344, "2i"), (352, "6d"), (400, "12d"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says. ``shape`` is in x, y, z, t... order; lengths are in ``unit_mm``.

    ``quaternion`` holds b, c, d and the offset; ``rows`` the 3 x 4 matrix of the sform.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    voxels_at: int
    slope: float
    intercept: float
    pixdim: tuple[float, ...]
    unit_mm: float
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    rows: tuple[float, ...]

    @property
    def is_scaled(self) -> bool:
        """Whether slope and intercept change the values; a slope of 0 means that they do not."""
        usable = math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope != 0
        return usable and (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def components(self) -> int:
        """How many volumes (channels, times) the file holds."""
        return math.prod(self.shape[3:])


def read_header(path: Path) -> NiftiHeader:
    """The header; raises CaseRefused: ``broken-header``, ``unsupported-type``, ``unreadable``."""
    with _opened(path) as file:
        raw = file.read(540)
    for order in "<>":
        if len(raw) >= 348 and (known := _VERSIONS.get(struct.unpack_from(f"{order}i", raw)[0])):
            return _header(path, raw, known, order)
    _refuse("broken-header", "The file is no NIfTI file, or its header is broken.", path)


def read_voxels(path: Path, header: NiftiHeader, component: int = 0) -> NDArray[Any]:
    """Stored values (z, y, x) of one volume of the file, without slope and intercept.

    Raises CaseRefused: ``truncated-file``, ``damaged-file``, ``unreadable``.
    """
    shape = tuple(reversed((*header.shape[:3], 1, 1)[:3]))
    size = math.prod(shape) * header.dtype.itemsize
    begin = header.voxels_at + component * size
    with _opened(path) as file:
        _require_room(path, file, begin + size)
        file.seek(begin)
        values = np.empty(size, dtype=np.uint8)
        filled, view = 0, memoryview(values.data)
        while filled < size and (count := _read_into(file, view[filled : filled + _PIECE_BYTES])):
            filled += count
        if filled < size:
            _refuse("truncated-file", "The file ends before its voxels do.", path,
                    met=f"{filled} bytes", wanted=f"{size} bytes")  # fmt: skip
        if isinstance(file, gzip.GzipFile):
            # The checksum stands at the end of the file and is compared by reading so far.
            while file.read(_PIECE_BYTES):
                pass
    return values.view(header.dtype).reshape(shape)


def is_synthetic(path: Path) -> bool:
    """Whether the file's description says that nobody was scanned: it holds the word synthetic."""
    try:
        with _opened(path) as file:
            start = file.read(_SYNTHETIC_WITHIN_BYTES)
    except (CaseRefused, OSError, EOFError, zlib.error):
        return False
    (length,) = struct.unpack_from("<i", start.ljust(4, b"\0"))
    at = _DESCRIPTIONS.get(length)
    return at is not None and SYNTHETIC in start[at : at + _DESCRIPTION_BYTES]


def _header(path: Path, raw: bytes, at: _Offsets, order: str) -> NiftiHeader:
    def fields(place: tuple[int, str]) -> tuple[Any, ...]:
        return struct.unpack_from(f"{order}{place[1]}", raw, place[0])

    magic_at, magic = at.magic
    if len(raw) < at.header_bytes or raw[magic_at : magic_at + 4] != magic:
        _refuse("broken-header", "The header is no whole NIfTI header.", path)
    count, *sizes = fields(at.dim)
    shape = tuple(sizes[:count])
    if not 1 <= count <= 7 or any(size < 1 for size in shape):
        _refuse(
            "broken-header", "The header's size makes no image.", path, met=f"dim {count}, {sizes}"
        )
    (code,) = struct.unpack_from(f"{order}h", raw, at.datatype)
    if code not in _TYPES:
        _refuse("unsupported-type", "Voxels are no plain numbers.", path, met=f"datatype {code}",
                wanted="integers or floating-point numbers of up to 64 bits")  # fmt: skip
    slope, intercept = fields(at.scale)
    (offset,) = fields(at.vox_offset)
    if not math.isfinite(offset) or offset < at.header_bytes:
        _refuse("broken-header", "The voxels would begin in the header.", path, met=f"{offset:g}")
    qform_code, sform_code = fields(at.codes)
    # Singletons at the end say nothing: (x, y, z, 1) is a volume.
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return NiftiHeader(
        shape=shape,
        dtype=np.dtype(f"{order}{_TYPES[code]}"),
        voxels_at=int(offset),
        slope=float(slope),
        intercept=float(intercept),
        pixdim=tuple(map(float, fields(at.pixdim))),
        unit_mm=_UNIT_MM.get(fields(at.units)[0] & 7, 1.0),
        qform_code=qform_code,
        sform_code=sform_code,
        quaternion=tuple(map(float, fields(at.quaternion))),
        rows=tuple(map(float, fields(at.rows))),
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The bytes of the file, inflated where it is gzip, whatever its name; errors are refusals."""
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(2) == _GZIP_START
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as file:
            yield file
    except EOFError as error:
        raise _refusal("truncated-file", "The compressed file breaks off.", path) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise _refusal(
            "damaged-file", "The compressed file is damaged.", path, met=str(error)
        ) from error
    except OSError as error:
        met = error.strerror or type(error).__name__
        raise _refusal("unreadable", "The file cannot be read.", path, met=met) from error


def _read_into(file: IO[bytes] | gzip.GzipFile, view: memoryview) -> int:
    return file.readinto(view)  # type: ignore[union-attr]


def _require_room(path: Path, file: IO[bytes] | gzip.GzipFile, wanted: int) -> None:
    """Refuse a header that announces more than the file can hold, before memory is taken."""
    there = path.stat().st_size
    there *= _LARGEST_INFLATION if isinstance(file, gzip.GzipFile) else 1
    if wanted > there:
        _refuse("truncated-file", "The file is shorter than its header announces.", path,
                met=f"at most {there} bytes", wanted=f"{wanted} bytes")  # fmt: skip


def _refusal(code: str, what: str, path: Path, *, met: str = "", wanted: str = "") -> CaseRefused:
    return CaseRefused(code, what, where=str(path), met=met, wanted=wanted)


def _refuse(code: str, what: str, path: Path, *, met: str = "", wanted: str = "") -> NoReturn:
    raise _refusal(code, what, path, met=met, wanted=wanted)
