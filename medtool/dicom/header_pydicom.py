"""Headers that the fast reader leaves alone, read with pydicom into the same ``Header``.

Headless files are read by force when their first bytes look like a data set. Character sets that
pydicom cannot decode never stop a header from being read.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.records import Skipped
from medtool.dicom import tags
from medtool.dicom.header import PREAMBLE_BYTES, UNDEFINED_LENGTH, Header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# The envelope of PS3.15's encrypted media: an ASN.1 sequence that names PKCS #7 content.
_CMS_OBJECT = bytes.fromhex("2a864886f70d0107")
# The first group of a headless data set, little endian: file meta, directory or identification.
_FIRST_GROUPS = (b"\x02\x00", b"\x04\x00", b"\x08\x00")
# The longest value a plausible first element of a headless file can have.
_LONGEST_FIRST_VALUE = 1024


def read_with_pydicom(path: Path, size: int, start: bytes) -> Header | Skipped:
    """The header of ``path`` (``start`` are its first bytes), or why it has none."""
    refusal = _not_dicom(path, size, start)
    if refusal is not None:
        return refusal
    import pydicom

    headless = start[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] != b"DICM"
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            # What pydicom warns of here is judged later, by values.
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=headless)
            position = file.tell()
            return _header(path, size, dataset, _pixel_element(file, position, size), position)
    except Exception as error:  # noqa: BLE001 - broken files raise all kinds of errors
        return Skipped(path, "broken-header", f"the header breaks off or is garbled: {error}")


def _not_dicom(path: Path, size: int, start: bytes) -> Skipped | None:
    if not size:
        return Skipped(path, "empty-file", "the file is empty")
    if start[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM":
        return None
    if start[:1] == b"\x30" and _CMS_OBJECT in start[:64]:
        return Skipped(path, "encrypted", "the file is encrypted (a PKCS #7 envelope)")
    if start[:2] in _FIRST_GROUPS and len(start) >= 8:
        (length,) = struct.unpack_from("<I", start, 4)
        if start[4:6].isalpha() and start[4:6].isupper():
            (length,) = struct.unpack_from("<H", start, 6)
        if length <= _LONGEST_FIRST_VALUE:
            return None
    return Skipped(path, "not-dicom", "not a DICOM file")


def _pixel_element(file: Any, position: int, size: int) -> tuple[int, int, int]:
    """Tag of the element where pydicom stopped, offset and length of its value (-1: unknown)."""
    file.seek(position)
    start = file.read(12)
    if position >= size or len(start) < 12:
        return 0, -1, -1
    group, element = struct.unpack_from("<HH", start)
    order = "<" if group == 0x7FE0 else ">"
    group, element = struct.unpack_from(order + "HH", start)
    if start[4:6] in (b"OW", b"OB", b"OF", b"OD"):
        value, (length,) = position + 12, struct.unpack_from(order + "I", start, 8)
    else:
        value, (length,) = position + 8, struct.unpack_from(order + "I", start, 4)
    return group << 16 | element, value, -1 if length == UNDEFINED_LENGTH else length


def _header(
    path: Path, size: int, dataset: Dataset, pixels: tuple[int, int, int], position: int
) -> Header | Skipped:
    meta = getattr(dataset, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    if not syntax:
        # A headless data set has the default syntax, unless pydicom found another byte order.
        implicit, little = dataset.original_encoding
        syntax = tags.IMPLICIT_LITTLE if implicit in (None, True) else tags.EXPLICIT_LITTLE
        syntax = syntax if little in (None, True) else tags.EXPLICIT_BIG
    header = Header(path, size, syntax, {}, walked_bytes=position, reader="pydicom")
    if meta is not None:
        media = str(meta.get("MediaStorageSOPClassUID", ""))
        header.raw[tags.MEDIA_STORAGE_SOP_CLASS_UID] = media.encode("ascii", "replace")
    little = syntax != tags.EXPLICIT_BIG
    for tag in tags.WANTED:
        if tag in dataset:
            _keep(header, dataset, tag, little=little)
    tag, offset, length = pixels
    if tag in tags.PIXEL_ELEMENTS and syntax != tags.DEFLATED_LITTLE:
        header.raw[tags.PIXEL_DATA] = b""
        header.pixel_offset, header.pixel_length = offset, length
    elif syntax == tags.DEFLATED_LITTLE:
        # Offsets in the file mean nothing there; pydicom stops before pixels that it has seen.
        header.raw[tags.PIXEL_DATA] = b""
    if header.raw.keys() & {tags.SHARED_FUNCTIONAL_GROUPS, tags.PER_FRAME_FUNCTIONAL_GROUPS}:
        header.dataset = dataset
    if not header.raw.keys() - {tags.MEDIA_STORAGE_SOP_CLASS_UID}:
        return Skipped(path, "broken-header", "nothing of an image is found in the header")
    return header


def _keep(header: Header, dataset: Dataset, tag: int, *, little: bool) -> None:
    item = dataset.get_item(tag)
    if tag in tags.PRESENCE_ONLY or item is None:
        header.raw[tag] = b""
        return
    value = item.value
    if not isinstance(value, bytes):
        value = _as_bytes(value)
    elif tag in tags.BINARY and not little:
        words = value[: len(value) // 2 * 2]
        value = struct.pack(f"<{len(words) // 2}H", *struct.unpack(f">{len(words) // 2}H", words))
    header.raw[tag] = value
    if tag not in tags.BINARY and (not value.isascii() or b"\x1b" in value):
        header.decoded[tag] = _decode(dataset, tag, value)


def _as_bytes(value: Any) -> bytes:
    """A value that pydicom has already converted, as text again."""
    if value is None:
        return b""
    if isinstance(value, int):
        return struct.pack("<H", value & 0xFFFF)
    if isinstance(value, (str, float)):
        return str(value).encode("utf-8")
    return "\\".join(str(part) for part in value).encode("utf-8")


def _decode(dataset: Dataset, tag: int, raw: bytes) -> str:
    try:
        value = dataset[tag].value
    except Exception:  # noqa: BLE001 - an unknown character set must not stop reading
        return raw.decode("latin-1").strip(" \0")
    text = value if isinstance(value, str) else "\\".join(str(v) for v in value)
    return text.strip(" \0")
