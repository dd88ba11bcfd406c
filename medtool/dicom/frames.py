"""Where the bytes of each frame lie in a DICOM file, found without decoding and without pydicom.

A small walker passes over the top-level elements (PS3.5, 7) to PixelData; native frames are then
known by arithmetic, encapsulated ones (PS3.5, A.4) by the extended offset table, the basic offset
table, one fragment per frame, or the end-of-image markers, in this order. What the walker does not
know word for word is located by pydicom instead. Nothing here trusts a length before comparing it
with what is there.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from medtool.core.errors import CaseRefused
from medtool.dicom.series import PixelFormat

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})

# No scanner makes larger planes (16384 x 8192 of 16 bits); beyond it is a decompression bomb.
MAX_FRAME_BYTES = 2**28
# Room for everything but pixels in a deflated data set.
MAX_HEADER_BYTES = 2**26
# A single frame of common size is read: mapping a file for it costs page faults, and threads wait
# for each other where mappings change.
MAX_READ_BYTES = 2**24
# Sequences deeper than this are made to exhaust a reader.
MAX_DEPTH = 32

_PREAMBLE_BYTES = 128
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_EXTENDED_OFFSETS = 0x7FE00001
_EXTENDED_LENGTHS = 0x7FE00002
# How encapsulated pixel data begin (PS3.5, A.4).
_ENCAPSULATED = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
# Value representations with two reserved bytes and a 32-bit length (PS3.5, 7.1.2).
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)

Span = tuple[int, int]


class UnfamiliarError(Exception):
    """The walker met what it does not know; pydicom has to look."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """PixelData in a buffer: ``length`` is None when encapsulated, ``start`` its first byte."""

    start: int
    length: int | None
    vr: bytes = b"OW"
    offsets: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The bytes of a file (or of its inflated data set) and where each frame lies in them."""

    data: bytes | mmap.mmap
    spans: tuple[tuple[Span, ...], ...]

    def frame(self, index: int) -> bytes:
        """The bytes of one frame, fragments joined."""
        return b"".join(self.data[start : start + size] for start, size in self.spans[index])


def frame_bytes(pixels: PixelFormat) -> int:
    """Bytes of one decoded frame; refuses (``too-large``) what is beyond every scanner."""
    size = pixels.rows * pixels.columns * pixels.samples * (pixels.bits_allocated // 8)
    if size > MAX_FRAME_BYTES:
        raise CaseRefused(
            "too-large",
            "The header announces a plane larger than any scanner makes.",
            met=f"{pixels.rows} x {pixels.columns} pixels of {pixels.bits_allocated} bits",
            wanted=f"at most {MAX_FRAME_BYTES} bytes",
        )
    return size


def open_frames(path: Path, pixels: PixelFormat, fragments_start: int = -1) -> FrameTable:
    """The frames of a file; raises CaseRefused with ``truncated-pixels`` and other codes.

    The table keeps the file (mapped, where it is large or has several frames) until it is released.
    ``fragments_start`` is where encapsulated pixel data were seen to begin, without a table of
    frames before them: one frame that is there indeed is not searched for.
    """
    frame_bytes(pixels)
    data = _contents(path, pixels)
    syntax = pixels.transfer_syntax or IMPLICIT_LITTLE
    head = fragments_start - len(_ENCAPSULATED)
    if (
        pixels.frames_in_file == 1
        and syntax not in NATIVE
        and head > 0
        # The file may have become another since its header was read.
        and data[head:fragments_start] == _ENCAPSULATED
    ):
        seen = PixelElement(fragments_start, None, b"OB")
        return FrameTable(data, encapsulated_spans(path, data, seen, pixels))
    try:
        start = dataset_start(data)
        if syntax == DEFLATED:
            data, start = _inflated(path, data, start, pixels), 0
        element = find_pixel_data(
            data, start, implicit=syntax == IMPLICIT_LITTLE, big=syntax == EXPLICIT_BIG
        )
    except UnfamiliarError:
        if syntax == DEFLATED:
            # pydicom would inflate it again, without a limit.
            _refuse("damaged-pixels", "The inflated data set cannot be parsed.", path, "")
        data, element = _located_by_pydicom(path)
    if element.length is None:
        return FrameTable(data, encapsulated_spans(path, data, element, pixels))
    if syntax not in NATIVE:
        _refuse("damaged-pixels", "Compressed pixel data are not encapsulated.", path, "")
    if syntax == EXPLICIT_BIG and pixels.bits_allocated == 8 and element.vr == b"OW":
        data, element = _bytes_in_order(data, element)
    return FrameTable(data, native_spans(path, len(data), element, pixels))


def dataset_start(data: bytes | mmap.mmap) -> int:
    """Offset of the first element after preamble and file meta; 0 in a headless file."""
    has_preamble = data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"
    position = _PREAMBLE_BYTES + 4 if has_preamble else 0
    # File meta is explicit little endian whatever follows (PS3.10, 7.1).
    while data[position : position + 2] == b"\x02\x00":
        if not data[position + 4 : position + 6].isalpha():
            break
        _, _, value, length = _header(data, position, implicit=False, big=False)
        position = value + length
    return position


def find_pixel_data(
    data: bytes | mmap.mmap, start: int, *, implicit: bool, big: bool
) -> PixelElement:
    """Walk over top-level elements to PixelData; raises UnfamiliarError for anything odd."""
    position, last_tag, end = start, 0, len(data)
    tables: dict[int, tuple[int, ...]] = {}
    while position < end:
        tag, vr, value, length = _header(data, position, implicit=implicit, big=big)
        if tag == _PIXEL_DATA:
            return PixelElement(
                value,
                None if length == _UNDEFINED else length,
                vr,
                tables.get(_EXTENDED_OFFSETS, ()),
                tables.get(_EXTENDED_LENGTHS, ()),
            )
        if tag <= last_tag or tag > _PIXEL_DATA:
            raise UnfamiliarError
        last_tag = tag
        if length == _UNDEFINED:
            # Unknown elements of undefined length are implicit inside (PS3.5, 6.2.2).
            position = _after_items(data, value, implicit=implicit or vr == b"UN", big=big, depth=0)
            continue
        if tag in (_EXTENDED_OFFSETS, _EXTENDED_LENGTHS):
            count = length // 8
            if length % 8 or value + length > end:
                raise UnfamiliarError
            tables[tag] = struct.unpack_from(f"<{count}Q", data, value)
        position = value + length
    raise UnfamiliarError


def native_spans(
    path: Path, available: int, element: PixelElement, pixels: PixelFormat
) -> tuple[tuple[Span, ...], ...]:
    """Frames one after the other; refused when the file ends before the last one does."""
    size = frame_bytes(pixels)
    wanted = size * pixels.frames_in_file
    length = element.length or 0
    there = min(length, available - element.start)
    if there < wanted:
        refuse_truncated(path, there, wanted)
    return tuple(((element.start + i * size, size),) for i in range(pixels.frames_in_file))


def encapsulated_spans(
    path: Path, data: bytes | mmap.mmap, element: PixelElement, pixels: PixelFormat
) -> tuple[tuple[Span, ...], ...]:
    """The fragments of each frame."""
    first, *fragments = _fragments(path, data, element.start)
    count = pixels.frames_in_file
    if not fragments:
        _refuse("truncated-pixels", "Pixel data hold no fragment.", path, "")
    table = struct.unpack_from(f"<{first[1] // 4}I", data, first[0])
    if element.offsets:
        frames = _by_extended_table(fragments, element)
    elif count == 1:
        frames = [fragments]
    else:
        frames = (
            _by_offsets(fragments, table) if len(table) == count else None
        ) or _by_count_or_end(data, fragments, pixels)
    if frames is None or len(frames) != count:
        found = len(frames) if frames is not None else 0
        _refuse(
            "damaged-pixels",
            "Frames cannot be told apart in the compressed pixel data.",
            path,
            f"{found or 'no'} frames in {len(fragments)} fragments, {count} announced",
        )
    return tuple(tuple(frame) for frame in frames)


def refuse_truncated(path: Path, there: int, wanted: int) -> NoReturn:
    """Raise ``truncated-pixels``."""
    raise CaseRefused(
        "truncated-pixels",
        "The file ends before its pixel data do.",
        where=str(path),
        met=f"{max(there, 0)} bytes of pixel data",
        wanted=f"{wanted} bytes",
        how="copy the file again from where it came",
    )


def _refuse(code: str, what: str, path: Path, met: str) -> NoReturn:
    raise CaseRefused(code, what, where=str(path), met=met)


def _contents(path: Path, pixels: PixelFormat) -> bytes | mmap.mmap:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            _refuse("truncated-pixels", "The file is empty.", path, "0 bytes")
        if pixels.frames_in_file == 1 and size <= MAX_READ_BYTES:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _inflated(path: Path, data: bytes | mmap.mmap, start: int, pixels: PixelFormat) -> bytes:
    limit = frame_bytes(pixels) * pixels.frames_in_file + MAX_HEADER_BYTES
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data[start:], limit)
    except zlib.error as error:
        _refuse("damaged-pixels", "The deflated data set cannot be inflated.", path, str(error))
    if inflater.unconsumed_tail and not inflater.eof and len(inflated) >= limit:
        _refuse("too-large", "The data set inflates beyond its announced size.", path, "")
    return inflated


def _header(
    data: bytes | mmap.mmap, position: int, *, implicit: bool, big: bool
) -> tuple[int, bytes, int, int]:
    """Tag, VR, offset of the value, length."""
    order = ">" if big else "<"
    head = data[position : position + 12]
    if len(head) < 8:
        raise UnfamiliarError
    group, element = struct.unpack_from(order + "HH", head)
    tag = group << 16 | element
    if implicit or group == 0xFFFE:
        return tag, b"", position + 8, struct.unpack_from(order + "I", head, 4)[0]
    vr = head[4:6]
    if vr in _LONG_VRS:
        if len(head) < 12:
            raise UnfamiliarError
        return tag, vr, position + 12, struct.unpack_from(order + "I", head, 8)[0]
    if not (vr.isalpha() and vr.isupper()):
        raise UnfamiliarError
    return tag, vr, position + 8, struct.unpack_from(order + "H", head, 6)[0]


def _after_items(
    data: bytes | mmap.mmap, position: int, *, implicit: bool, big: bool, depth: int
) -> int:
    """Offset behind a sequence of undefined length that starts at ``position``."""
    if depth > MAX_DEPTH:
        raise UnfamiliarError
    while True:
        tag, _, value, length = _header(data, position, implicit=implicit, big=big)
        if tag == _SEQUENCE_END:
            return value
        if tag != _ITEM:
            raise UnfamiliarError
        if length == _UNDEFINED:
            position = _after_item(data, value, implicit=implicit, big=big, depth=depth)
        else:
            position = value + length


def _after_item(
    data: bytes | mmap.mmap, position: int, *, implicit: bool, big: bool, depth: int
) -> int:
    while True:
        tag, vr, value, length = _header(data, position, implicit=implicit, big=big)
        if tag == _ITEM_END:
            return value
        if length != _UNDEFINED:
            position = value + length
            continue
        inside = implicit or vr == b"UN"
        position = _after_items(data, value, implicit=inside, big=big, depth=depth + 1)


def _located_by_pydicom(path: Path) -> tuple[bytes, PixelElement]:
    """PixelData as pydicom finds it, undecoded, in a buffer of its own."""
    import warnings

    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            element = dataset["PixelData"]
            value = element.value
    except KeyError:
        _refuse("no-pixel-data", "The file holds no pixel data.", path, "")
    # On damaged bytes a parser may raise anything; whatever it is, the file cannot be read.
    except Exception as error:  # noqa: BLE001
        _refuse("damaged-pixels", "The file cannot be parsed.", path, type(error).__name__)
    if not isinstance(value, bytes):
        _refuse("no-pixel-data", "Pixel data are no bytes.", path, type(value).__name__)
    undefined = bool(getattr(element, "is_undefined_length", False))
    return value, PixelElement(0, None if undefined else len(value), element.VR.encode())


def _bytes_in_order(data: bytes | mmap.mmap, element: PixelElement) -> tuple[bytes, PixelElement]:
    """Undo the swapping of 8-bit pixels that big-endian files keep in 16-bit words."""
    length = element.length or 0
    swapped = bytearray(data[element.start : element.start + length])
    whole = len(swapped) // 2 * 2
    swapped[0:whole:2], swapped[1:whole:2] = swapped[1:whole:2], swapped[0:whole:2]
    return bytes(swapped), PixelElement(0, len(swapped), b"OB")


def _fragments(path: Path, data: bytes | mmap.mmap, position: int) -> list[Span]:
    """Offset and length of each item's value; the first is the basic offset table."""
    spans: list[Span] = []
    end = len(data)
    while position + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", data, position)
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            _refuse("damaged-pixels", "Pixel data hold something else than items.", path, hex(tag))
        if position + 8 + length > end:
            refuse_truncated(path, end - position - 8, length)
        spans.append((position + 8, length))
        position += 8 + length
    if not spans:
        _refuse("truncated-pixels", "Pixel data hold no item.", path, "")
    return spans


def _by_extended_table(fragments: Sequence[Span], element: PixelElement) -> list[list[Span]] | None:
    """Frames by the extended offset table (PS3.3, C.7.6.3.1.8): one fragment each."""
    starts = {start - fragments[0][0]: (start, size) for start, size in fragments}
    frames = []
    for index, offset in enumerate(element.offsets):
        span = starts.get(offset)
        if span is None:
            return None
        length = element.lengths[index] if index < len(element.lengths) else span[1]
        frames.append([(span[0], min(length, span[1]))])
    return frames


def _by_offsets(fragments: Sequence[Span], table: Sequence[int]) -> list[list[Span]] | None:
    """Frames by the basic offset table, or None where it does not point at fragments."""
    first = fragments[0][0]
    offsets = {start - first for start, _ in fragments}
    if table[0] != 0 or not set(table) <= offsets or sorted(set(table)) != list(table):
        return None
    bounds = [*table[1:], fragments[-1][0] - first + 1]
    return [
        [span for span in fragments if low <= span[0] - first < high]
        for low, high in zip(table, bounds, strict=True)
    ]


def _by_count_or_end(
    data: bytes | mmap.mmap, fragments: Sequence[Span], pixels: PixelFormat
) -> list[list[Span]] | None:
    """One fragment a frame, else frames that end where an image ends."""
    if len(fragments) == pixels.frames_in_file:
        return [[span] for span in fragments]
    if pixels.transfer_syntax == RLE or pixels.transfer_syntax == ENCAPSULATED_NATIVE:
        return None
    frames: list[list[Span]] = [[]]
    for start, size in fragments:
        frames[-1].append((start, size))
        # JPEG, JPEG-LS and JPEG 2000 all end in FFD9, padded to even length.
        if b"\xff\xd9" in data[max(start, start + size - 4) : start + size]:
            frames.append([])
    if frames[-1]:
        return None
    return frames[:-1]
