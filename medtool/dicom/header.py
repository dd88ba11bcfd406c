"""The header of one DICOM file as a record: wanted elements as bytes, and what they say.

Two readers make it: the fast one of ``header_reader``, and ``header_pydicom`` for all that it does
not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PREAMBLE_BYTES = 128
UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(slots=True)
class Header:
    """The wanted elements of one file, as bytes (16-bit words little endian).

    ``pixel_offset`` is the offset of the pixel data's value in the file (-1: not known, no pixel
    data seen), ``pixel_length`` its length (-1 when undefined, that is encapsulated).
    ``walked_bytes`` is how far the file is known to be header. ``dataset`` is kept by pydicom for
    multi-frame objects only.
    """

    path: Path
    size: int
    transfer_syntax: str
    raw: dict[int, bytes]
    pixel_offset: int = -1
    pixel_length: int = -1
    walked_bytes: int = 0
    reader: str = "fast"
    decoded: dict[int, str] = field(default_factory=dict)
    dataset: Dataset | None = None
    # Seen in the first bytes: where the first fragment of encapsulated pixel data would end,
    first_fragment_end: int = -1
    # and by the fast reader alone: where their value begins, no table of frames standing before it.
    fragments_start: int = -1

    def __contains__(self, tag: int) -> bool:
        return tag in self.raw

    def text(self, tag: int) -> str:
        """The value without padding; "" when absent or empty. Several values keep backslashes."""
        if self.decoded and tag in self.decoded:
            return self.decoded[tag]
        return plain_text(self.raw.get(tag, b""))

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Decimal strings as floats; what is no number becomes NaN; () when absent or empty."""
        return decimals(self.raw.get(tag, b""))

    def number(self, tag: int) -> float | None:
        """The first decimal, None when absent or empty."""
        values = decimals(self.raw.get(tag, b""))
        return values[0] if values else None

    def integer(self, tag: int) -> int | None:
        """The first integer string, None when absent, empty or no number."""
        return _integer(self.raw.get(tag, b""))

    def word(self, tag: int) -> int | None:
        """The first unsigned 16-bit word, None when absent or empty."""
        raw = self.raw.get(tag, b"")
        return int.from_bytes(raw[:2], "little") if len(raw) >= 2 else None


@lru_cache(maxsize=4096)
def plain_text(raw: bytes) -> str:
    """ASCII without the padding of DICOM texts (spaces, nulls)."""
    return raw.decode("ascii", "replace").strip(" \0")


@lru_cache(maxsize=4096)
def decimals(raw: bytes) -> tuple[float, ...]:
    """Decimal strings as floats; what is no number becomes NaN; () when empty."""
    text = plain_text(raw)
    return tuple(_float(part) for part in text.split("\\")) if text else ()


def _float(text: str) -> float:
    try:
        return float(text.strip(" \0"))
    except ValueError:
        return float("nan")


@lru_cache(maxsize=4096)
def _integer(raw: bytes) -> int | None:
    text = plain_text(raw).split("\\")[0].strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None
