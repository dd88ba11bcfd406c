"""Random numbers without a global stream: every draw derives from what it is drawn for.

Two draws for the same parts (seed, epoch, case, slice, ...) are equal on every machine, in every
process and in any order; that is what makes resuming and changing the number of workers exact.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Between parts; cannot stand in ids, so ("a", "bc") and ("ab", "c") differ.
_SEPARATOR = "\x1f"


def key64(*parts: int | str) -> int:
    """64 bits, as a signed integer (torch has no unsigned ones), that stand for ``parts``."""
    text = _SEPARATOR.join(f"{type(part).__name__}:{part}" for part in parts)
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def generator(*parts: int | str) -> np.random.Generator:
    """A generator that gives the same numbers for the same ``parts`` everywhere."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(key64(*parts) & 0xFFFF_FFFF_FFFF_FFFF))
