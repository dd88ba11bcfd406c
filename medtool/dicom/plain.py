"""The fast path: an uncompressed single-frame file whose pixels are the last thing in it.

Only such files are read here, recognised word for word: where the frame must begin if it ends with
the file, the header of a PixelData element of exactly this length has to stand. Everything else
goes through ``frames``. One read, no copy.
"""

from __future__ import annotations

import struct
from io import SEEK_END, FileIO
from pathlib import Path

from medtool.dicom.frames import EXPLICIT_LITTLE, IMPLICIT_LITTLE, frame_bytes
from medtool.dicom.series import PixelFormat

_TAG = b"\xe0\x7f\x10\x00"


def plain_frame(path: Path, pixels: PixelFormat, buffer: bytearray) -> memoryview | None:
    """The frame's bytes in ``buffer`` (grown where needed), or None where the file is not plain.

    What is given is valid until the buffer is used again.
    """
    head = _element_header(pixels)
    if head is None:
        return None
    size = frame_bytes(pixels)
    wanted = len(head) + size + size % 2
    if len(buffer) < wanted:
        buffer.extend(bytes(wanted - len(buffer)))
    view = memoryview(buffer)
    with FileIO(path) as file:
        start = file.seek(0, SEEK_END) - wanted
        if start < 0:
            return None
        file.seek(start)
        if file.readinto(view[:wanted]) != wanted or view[: len(head)] != head:
            return None
    return view[len(head) : len(head) + size]


def _element_header(pixels: PixelFormat) -> bytes | None:
    """The bytes that stand before the pixels of a plain file."""
    if pixels.frames_in_file != 1:
        return None
    size = frame_bytes(pixels)
    length = struct.pack("<I", size + size % 2)
    if pixels.transfer_syntax == EXPLICIT_LITTLE and pixels.bits_allocated == 16:
        return _TAG + b"OW\x00\x00" + length
    if pixels.transfer_syntax == IMPLICIT_LITTLE:
        return _TAG + length
    return None
