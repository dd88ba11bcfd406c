"""Memory of volumes, used again by the next one that is read.

The system clears the pages of memory that it hands out. For a large volume that takes a quarter of
the time in which uncompressed pixels are read, and longer still in a virtual machine, whose host
may have to find the pages first. So the memory of a volume that nobody holds any more is kept for
the next one. It is marked as free meanwhile (MADV_FREE): the system takes its pages away when
memory runs short, though limits on address space still count it.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smaller ones are handed out and taken back by the allocator itself.
LEAST_BYTES = 32 * 2**20
# A volume takes kept memory of up to so many times its size; what is left over is not touched.
MOST_OVER_WANTED = 2
_CAN_KEEP = all(hasattr(mmap, name) for name in ("MADV_FREE", "MAP_PRIVATE", "MAP_ANONYMOUS"))

# Blocks that nobody holds, the last one alone. Arrays may end in any thread, and in the middle of
# these functions: it is only ever appended to and popped from, which no thread sees half done.
_free_blocks: deque[mmap.mmap] = deque(maxlen=1)


def array_to_fill(shape: Sequence[int]) -> NDArray[np.float32]:
    """An array of float32 to be filled as a whole: its values are whatever the memory held, which
    may be another patient's.

    Raises MemoryError where there is none.
    """
    wanted = math.prod(shape) * np.dtype(np.float32).itemsize
    if not _CAN_KEEP or wanted < LEAST_BYTES:
        return np.empty(tuple(shape), np.float32)
    block = _free_block(wanted) or _new_block(wanted)
    values = np.frombuffer(block, np.float32, math.prod(shape))
    # Views keep this array, so that it ends with the last of them.
    weakref.finalize(values, _give_back, block).atexit = False
    return values.reshape(tuple(shape))


def _free_block(wanted: int) -> mmap.mmap | None:
    try:
        block = _free_blocks.pop()
    except IndexError:
        return None
    # One that does not fit goes back to the system.
    return block if wanted <= len(block) <= MOST_OVER_WANTED * wanted else None


def _new_block(wanted: int) -> mmap.mmap:
    try:
        block = mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there are no {wanted} bytes for a volume") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            block.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # A kernel without large pages.
    return block


def _give_back(block: mmap.mmap) -> None:
    try:
        block.madvise(mmap.MADV_FREE)
    except OSError:
        return  # It cannot be marked, as where memory is locked: the system has it back at once.
    _free_blocks.append(block)
