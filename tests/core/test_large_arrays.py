"""Memory of volumes that is used again: only when nobody holds it, and the system may have it."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtool.core import large_arrays
from medtool.core.large_arrays import LEAST_BYTES, array_to_fill

SHAPE = (16, 1024, 1024)
BYTES = 16 * 1024 * 1024 * 4
ROLLUP = Path("/proc/self/smaps_rollup")
needs_marking = pytest.mark.skipif(
    not hasattr(mmap, "MADV_FREE"), reason="this system cannot mark memory as free"
)


@pytest.fixture(autouse=True)
def no_memory_from_before() -> Iterator[None]:
    large_arrays._free_blocks.clear()
    yield
    large_arrays._free_blocks.clear()


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_small_ones_are_ordinary_arrays() -> None:
    array = array_to_fill((4, 5, 6))
    assert (array.shape, array.dtype, array.flags.owndata) == ((4, 5, 6), np.float32, True)


@needs_marking
def test_a_volume_takes_the_memory_of_the_one_before() -> None:
    assert BYTES >= LEAST_BYTES
    first = array_to_fill(SHAPE)
    assert (first.shape, first.dtype) == (SHAPE, np.float32)
    assert first.flags.writeable and first.flags.c_contiguous
    first[...] = 1
    where = place(first)
    del first
    assert len(large_arrays._free_blocks) == 1
    second = array_to_fill(SHAPE)
    assert (place(second), len(large_arrays._free_blocks)) == (where, 0)
    # A smaller one, too.
    del second
    assert len(large_arrays._free_blocks) == 1
    third = array_to_fill((9, 1024, 1024))
    assert (place(third), len(large_arrays._free_blocks)) == (where, 0)


@needs_marking
def test_memory_that_somebody_holds_is_never_given_again() -> None:
    first = array_to_fill(SHAPE)
    first[...] = 1
    part = first[3, :, 5:9]
    del first
    second = array_to_fill(SHAPE)
    second[...] = 2
    assert (part == 1).all()
    # Other libraries hold memory by the buffer protocol.
    lent = memoryview(part)
    del part
    assert len(large_arrays._free_blocks) == 0
    third = array_to_fill(SHAPE)
    third[...] = 3
    assert set(np.unique(np.asarray(lent))) == {1}
    del lent
    assert len(large_arrays._free_blocks) == 1


@needs_marking
def test_one_block_is_kept_and_of_those_alike_in_size() -> None:
    both = [array_to_fill(SHAPE) for _ in range(2)]
    both.clear()
    assert len(large_arrays._free_blocks) == 1
    # Larger than what is kept, and less than half of it: both get memory of their own.
    for planes in (17, 3 * 16):
        array = array_to_fill((planes, 1024, 1024))
        assert array.nbytes == planes * 1024 * 1024 * 4
        array[...] = planes
        del array
    (kept,) = large_arrays._free_blocks
    assert len(kept) == 3 * BYTES
    small = array_to_fill(SHAPE)
    assert small.nbytes == BYTES
    assert len(large_arrays._free_blocks) == 0


@needs_marking
@pytest.mark.skipif(not ROLLUP.exists(), reason="this system does not say what it may take away")
def test_kept_memory_is_the_systems_to_take() -> None:
    def lazily_free() -> int:
        lines = ROLLUP.read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("LazyFree:")]
        return int(line.split()[1]) * 1024

    array = array_to_fill(SHAPE)
    array[...] = 1
    before = lazily_free()
    del array
    assert lazily_free() - before >= 0.9 * BYTES
    array = array_to_fill(SHAPE)
    array[...] = 2
    assert (array == 2).all()


def test_threads_get_memory_of_their_own() -> None:
    def filled(number: int) -> bool:
        for turn in range(20):
            array = array_to_fill(SHAPE)
            array[...] = number * 100 + turn
            if not (array == number * 100 + turn).all():
                return False
            del array
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(filled, range(4)))


@needs_marking
def test_where_there_is_no_memory_it_is_said_as_numpy_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_words: Any, **_named: Any) -> mmap.mmap:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    with pytest.raises(MemoryError, match="bytes for a volume"):
        array_to_fill(SHAPE)


@needs_marking
def test_memory_that_cannot_be_marked_goes_back_to_the_system(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Locked(mmap.mmap):
        def madvise(self, *_words: Any) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Locked)
    array = array_to_fill(SHAPE)
    array[...] = 1
    del array
    assert len(large_arrays._free_blocks) == 0
    assert capfd.readouterr().err == ""


def test_a_process_that_holds_such_memory_ends_quietly(fresh_python: Callable[..., Any]) -> None:
    """Nothing is given back at the end: what is registered first is called last."""
    outcome = fresh_python(
        "-c",
        "import atexit\n"
        "from medtool.core import large_arrays\n"
        "atexit.register(lambda: print(len(large_arrays._free_blocks)))\n"
        f"held = large_arrays.array_to_fill({SHAPE}); held[...] = 2; print(held.max())",
    )
    assert (outcome.status, outcome.out.split(), outcome.err) == (0, ["2.0", "0"], "")
