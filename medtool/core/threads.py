"""Work on numbered items in threads that each keep to a neighbourhood of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait


def run_in_threads(work: Callable[[int], None], count: int, threads: int) -> None:
    """Call ``work`` once with every number below ``count``, in up to ``threads`` threads.

    Each thread walks through a range of its own, and takes from the end of the longest other one
    when that is done: threads that write into neighbouring memory wait for each other where the
    system hands it out. Raises what the lowest failing number raised, whatever the threads'
    timing: below it all are worked on, above it no more are begun.
    """
    if threads <= 1 or count <= 1:
        for index in range(count):
            work(index)
        return
    shares = _Shares(count, min(threads, count))

    def walk(own: int) -> None:
        while (index := shares.next_index(own)) is not None:
            try:
                work(index)
            # Kept and raised in the thread that asked for the work.
            except BaseException as error:  # noqa: BLE001
                shares.failed(index, error)

    with ThreadPoolExecutor(shares.threads) as pool:
        try:
            walks = [pool.submit(walk, own) for own in range(shares.threads)]
            wait(walks)
        finally:
            # Where the waiting itself was interrupted, threads end with what they are at.
            shares.close()
    error, shares.error = shares.error, None
    if error is not None:
        try:
            raise error
        finally:
            # It knows this frame, and by it all that was worked on: nobody is to keep them for it.
            del error
    try:
        for one in walks:
            # Not the work's own failure: nothing may be left undone without a word.
            one.result()
    finally:
        # As above: its error knows this frame.
        del walks, one


class _Shares:
    """Which numbers are still to be taken, and from which range by whom."""

    def __init__(self, count: int, threads: int) -> None:
        self.threads = threads
        self.error: BaseException | None = None
        # Numbers from here on are not begun any more.
        self._end = count
        self._rest = [[count * k // threads, count * (k + 1) // threads] for k in range(threads)]
        self._lock = threading.Lock()

    def next_index(self, own: int) -> int | None:
        with self._lock:
            mine = self._rest[own]
            if mine[0] < min(mine[1], self._end):
                mine[0] += 1
                return mine[0] - 1
            other = max(self._rest, key=lambda rest: min(rest[1], self._end) - rest[0])
            last = min(other[1], self._end) - 1
            if last < other[0]:
                return None
            other[1] = last
            return last

    def failed(self, index: int, error: BaseException) -> None:
        with self._lock:
            if self.error is None or index < self._end:
                self.error, self._end = error, min(index, self._end)

    def close(self) -> None:
        with self._lock:
            self._end = 0
