"""Reading a header: a fast reader for well-formed files, pydicom for all others.

The fast reader takes the first 8 KB and walks explicit or implicit little-endian elements up to
the pixel data, keeping those of ``tags.WANTED``. Anything it does not know word for word (other
byte orders, deflated or headless files, elements out of order, text that is not plain ASCII,
functional groups, odd lengths) it leaves to ``header_pydicom``; both give the same ``Header``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from medtool.core.records import Skipped
from medtool.dicom import tags
from medtool.dicom.header import PREAMBLE_BYTES, UNDEFINED_LENGTH, Header
from medtool.dicom.header_pydicom import read_with_pydicom

# Nearly all CT headers end within this (many pass 4 KB, and a second look costs more than reading
# 8 KB at once); more is read for those that do not.
FIRST_BYTES = 8192
MORE_BYTES = 65536
# Some hundred are met in a cohort; private elements of odd lengths could go on for ever.
MOST_FAMILIAR = 4096
# Sequences inside sequences deeper than this are left to pydicom.
DEEPEST_NESTING = 8

# Value representations with a 32-bit length in explicit syntaxes (PS3.5 7.1.2).
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_explicit = struct.Struct("<HH2sH").unpack_from
# By the 8 bytes before a value, of implicit and of explicit syntaxes: tag, length, whether wanted.
_familiar: tuple[dict[bytes, tuple[int, int, bool]], ...] = ({}, {})
_implicit = struct.Struct("<HHI").unpack_from
_long = struct.Struct("<I").unpack_from
_ENHANCED = tags.ENHANCED_CLASSES
_SYNTAX_ELEMENT = tags.TRANSFER_SYNTAX_UID & 0xFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD


def read_header(path: Path) -> Header | Skipped:
    """The header of ``path``, or why the file cannot be part of a series."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        return Skipped(path, "unreadable", f"cannot be opened: {error.strerror}")
    try:
        size = os.fstat(descriptor).st_size
        start = os.read(descriptor, FIRST_BYTES)
        header = parse(path, size, start)
        if header is None and size > len(start) == FIRST_BYTES and start[128:132] == b"DICM":
            more = start + os.read(descriptor, MORE_BYTES)
            header = parse(path, size, more, is_last_look=True)
    except OSError as error:
        return Skipped(path, "unreadable", f"cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)
    if header is not None:
        return header
    return read_with_pydicom(path, size, start)


def parse(path: Path, size: int, start: bytes, *, is_last_look: bool = False) -> Header | None:
    """The header from a file's first bytes, or None where the fast reader does not know it.

    On the last look it is content without having seen the pixel data, when all that is wanted
    before them is there.
    """
    if start[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] != b"DICM":
        return None
    try:
        syntax, position = _file_meta(start)
        if syntax == tags.IMPLICIT_LITTLE:
            header = _walk(Header(path, size, syntax, {}), start, position, explicit=False)
            return _content(header, is_last_look=is_last_look)
        if syntax in (tags.DEFLATED_LITTLE, tags.EXPLICIT_BIG) or not syntax.startswith(
            tags.ENCAPSULATED_PREFIX
        ):
            return None
        header = _walk(Header(path, size, syntax, {}), start, position, explicit=True)
        return _content(header, is_last_look=is_last_look)
    except (_Unknown, struct.error):
        return None


def _content(header: Header | None, *, is_last_look: bool) -> Header | None:
    seen = header is not None and (header.pixel_offset >= 0 or header.walked_bytes == header.size)
    return header if seen or is_last_look else None


class _Unknown(Exception):
    """Something the fast reader does not know."""


def _file_meta(start: bytes) -> tuple[str, int]:
    """Transfer syntax and where the data set begins; file meta is explicit little endian."""
    position = PREAMBLE_BYTES + 4
    syntax, last, end, size = "", -1, 0, len(start)
    while position + 12 <= size:
        group, element, representation, length = _explicit(start, position)
        if group != 2:
            break
        value = position + 8
        if representation not in _SHORT:
            if representation not in _LONG:
                raise _Unknown
            (length,) = _long(start, value)
            value += 4
        if element <= last or length > size:
            raise _Unknown
        last = element
        position = value + length
        if element == 0 and length == 4:
            end = position + _long(start, value)[0]
        elif element == _SYNTAX_ELEMENT:
            syntax = _ascii(start[value:position])
    # A wrong group length means that another reader could see another data set.
    if not syntax or end not in (0, position) or position > len(start):
        raise _Unknown
    return syntax, position


def _walk(header: Header, start: bytes, position: int, *, explicit: bool) -> Header | None:
    """Keep the wanted elements up to the pixel data; None where that is not plainly possible."""
    raw, end, last = header.raw, len(start), 0
    # This loop is most of the time of a scan: no lookups that can be made once.
    short, wanted, presence, pixels = _SHORT, tags.WANTED, tags.PRESENCE_ONLY, tags.PIXEL_ELEMENTS
    unpack_explicit, unpack_implicit, familiar = _explicit, _implicit, _familiar[explicit]
    while True:
        position, last = _past_familiar(familiar, raw, start, position, last)
        if position + 12 > end:
            break
        if explicit:
            group, element, representation, length = unpack_explicit(start, position)
            value = position + 8
            if representation not in short:
                if representation not in _LONG:
                    return None
                (length,) = _long(start, value)
                value += 4
        else:
            group, element, length = unpack_implicit(start, position)
            value, representation = position + 8, b""
        tag = group << 16 | element
        if tag <= last or (length & 1 and length != UNDEFINED_LENGTH):
            return None
        if tag in pixels:
            return _finish(header, start, value, length, last)
        last = tag
        _remember(familiar, start[position:value], tag, length)
        position = value + length
        if length == UNDEFINED_LENGTH and (tag not in wanted or tag in presence):
            position = _after_sequence(start, value, representation, explicit=explicit)
        if tag in presence:
            raw[tag] = b""
        elif tag in wanted:
            if position > end:
                return None
            raw[tag] = start[value:position]
    if last <= tags.MODALITY_LUT_SEQUENCE and position != header.size:
        return None
    # What is still wanted behind the first bytes only enhanced objects have; or the file ends.
    if raw.get(tags.SOP_CLASS_UID, b"").strip(b" \0").decode("ascii", "replace") in _ENHANCED:
        return None
    header.walked_bytes = min(position, header.size)
    return _checked(header)


def _past_familiar(
    familiar: Mapping[bytes, tuple[int, int, bool]],
    raw: dict[int, bytes],
    start: bytes,
    position: int,
    last: int,
) -> tuple[int, int]:
    """Keep the wanted ones of the familiar elements from ``position`` on, behind the tag ``last``;
    where they end, and the last tag.
    """
    end = len(start)
    while position + 12 <= end:
        known = familiar.get(start[position : position + 8])
        if known is None:
            break
        tag, length, wanted = known
        value = position + 8
        position = value + length
        if tag <= last or (wanted and position > end):
            raise _Unknown
        last = tag
        if wanted:
            raw[tag] = start[value:position]
    return position, last


def _remember(
    familiar: dict[bytes, tuple[int, int, bool]], element: bytes, tag: int, length: int
) -> None:
    """Note what the bytes before a value say, if they are 8: files of a series repeat them."""
    plain = len(element) == 8 and length != UNDEFINED_LENGTH and tag not in tags.PRESENCE_ONLY
    if plain and len(familiar) < MOST_FAMILIAR:
        familiar[element] = (tag, length, tag in tags.WANTED)


def _finish(header: Header, start: bytes, value: int, length: int, last: int) -> Header | None:
    """Note where the pixels are; for encapsulated ones look at the first fragment. ``last`` is the
    tag before them.
    """
    header.walked_bytes = header.pixel_offset = value
    header.raw[tags.PIXEL_DATA] = b""
    if length != UNDEFINED_LENGTH:
        header.pixel_length = length
    elif len(start) >= value + 8:
        group, element, table = _implicit(start, value)
        fragment = value + 8 + table
        if (group, element) != (0xFFFE, _ITEM):
            return None
        if last < tags.EXTENDED_OFFSET_TABLE:
            header.fragments_start = value
        if len(start) >= fragment + 8:
            group, element, length = _implicit(start, fragment)
            if (group, element) == (0xFFFE, _ITEM):
                header.first_fragment_end = fragment + 8 + length
    return _checked(header)


def _checked(header: Header) -> Header | None:
    """The header, if its text is plain and nothing in it needs pydicom's knowledge."""
    raw, binary = header.raw, tags.BINARY
    texts = b"".join([value for tag, value in raw.items() if tag not in binary])
    if not texts.isascii() or b"\x1b" in texts:
        return None
    if b"\0" in raw.get(tags.SPECIFIC_CHARACTER_SET, b"").rstrip(b" \0"):
        return None
    if tags.PER_FRAME_FUNCTIONAL_GROUPS in raw or tags.SHARED_FUNCTIONAL_GROUPS in raw:
        return None
    frames = raw.get(tags.NUMBER_OF_FRAMES, b"1").strip(b" \0")
    if frames not in (b"1", b"") or tags.DIRECTORY_RECORD_SEQUENCE in raw:
        return None
    return header


def _after_sequence(
    start: bytes, position: int, representation: bytes, *, explicit: bool, depth: int = 0
) -> int:
    """Where a sequence of undefined length ends."""
    # UN of undefined length holds implicit elements, whatever the file is (PS3.5 6.2.2).
    if depth > DEEPEST_NESTING or representation not in (b"SQ", b""):
        raise _Unknown
    while True:
        group, element, length = _implicit(start, position)
        position += 8
        if group != 0xFFFE or element not in (_ITEM, _SEQUENCE_END):
            raise _Unknown
        if element == _SEQUENCE_END:
            if length:
                raise _Unknown
            return position
        if length == UNDEFINED_LENGTH:
            position = _after_item(start, position, explicit=explicit, depth=depth)
        else:
            position += length


def _after_item(start: bytes, position: int, *, explicit: bool, depth: int) -> int:
    """Where an item of undefined length ends."""
    while True:
        group, element, length = _implicit(start, position)
        if group == 0xFFFE:
            if element != _ITEM_END or length:
                raise _Unknown
            return position + 8
        value = position + 8
        representation = b""
        if explicit:
            representation = start[position + 4 : position + 6]
            if representation in _LONG:
                (length,) = _long(start, value)
                value += 4
            elif representation in _SHORT:
                length >>= 16
            else:
                raise _Unknown
        if length == UNDEFINED_LENGTH:
            position = _after_sequence(
                start, value, representation, explicit=explicit, depth=depth + 1
            )
        else:
            position = value + length


def _ascii(raw: bytes) -> str:
    if not raw.isascii():
        raise _Unknown
    return raw.decode("ascii").strip(" \0")
