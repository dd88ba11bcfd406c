"""What makes two slices the same image: a hash of their pixels, before anything is repaired.

Slices that undoing a tilt or uneven steps made out of others depend on what else is in the stack;
the planes themselves do not. So a study is found again inside a longer one, or read by other rules.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST_BYTES = 16
# Whole HU within the range of 16 bits: rescaling in another way must not hide a copy.
LOWEST, HIGHEST = -32768, 32767


def plane_hash(values: NDArray[np.float32]) -> str:
    """BLAKE2b-16 of a plane (rows, columns) in whole HU; "" for a constant one, as all air is."""
    if values.min() == values.max():
        return ""
    whole = np.rint(np.clip(values, LOWEST, HIGHEST)).astype("<i2")
    return hashlib.blake2b(whole.tobytes(), digest_size=DIGEST_BYTES).hexdigest()
