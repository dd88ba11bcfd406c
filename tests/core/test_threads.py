"""Numbered work in threads: all of it once, neighbours together, the same error every time."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref

import pytest

from medtool.core import threads as in_threads
from medtool.core.threads import run_in_threads


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_every_number_once(threads: int, count: int) -> None:
    done: list[int] = []
    run_in_threads(done.append, count, threads)
    assert sorted(done) == list(range(count))


def test_a_thread_keeps_to_its_neighbourhood() -> None:
    """Two that are equally fast: each works on half of the numbers, in their order."""
    both = threading.Barrier(2, timeout=30)
    done: dict[int, list[int]] = {}

    def work(index: int) -> None:
        both.wait()
        done.setdefault(threading.get_ident(), []).append(index)

    run_in_threads(work, 20, 2)
    assert sorted(done.values()) == [list(range(10)), list(range(10, 20))]


def test_a_thread_that_is_done_takes_over_from_the_slowest() -> None:
    waiting = threading.Event()
    done: list[int] = []

    def work(index: int) -> None:
        if index == 0:
            assert waiting.wait(30)
        done.append(index)
        if len(done) == 9:
            waiting.set()

    run_in_threads(work, 10, 2)
    # The rest of the range that hung was taken from its far end.
    assert done == [5, 6, 7, 8, 9, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_lowest_failure_is_raised_and_nothing_above_it_begun(threads: int) -> None:
    done: set[int] = set()

    def work(index: int) -> None:
        if index in (3, 52, 77):
            raise ValueError(str(index))
        time.sleep(0.002)
        done.add(index)

    for _ in range(5):
        done.clear()
        with pytest.raises(ValueError, match=r"^3$"):
            run_in_threads(work, 100, threads)
        assert {0, 1, 2} <= done
        # Equally fast threads were at their first few numbers then.
        assert len(done) < 60


def test_an_interrupted_wait_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    interrupted = threading.Event()

    def work(index: int) -> None:
        begun.append(index)
        assert interrupted.wait(30)
        # The interrupted thread closes the shares while these two are still at their first.
        time.sleep(0.2)

    def interrupt(_futures: object) -> None:
        while len(begun) < 2:
            time.sleep(0.001)
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr("medtool.core.threads.wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_in_threads(work, 100, 2)
    assert len(begun) == 2


def test_a_failure_keeps_nothing_of_what_was_worked_on() -> None:
    class Large:
        """Stands for a volume."""

    def failing() -> weakref.ref[Large]:
        large = Large()

        def work(_index: int) -> None:
            raise ValueError(str(large))

        with contextlib.suppress(ValueError):
            run_in_threads(work, 10, 2)
        return weakref.ref(large)

    gc.disable()
    try:
        assert failing()() is None
    finally:
        gc.enable()


def test_a_thread_that_fails_outside_the_work_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def next_index(_shares: object, _own: int) -> int:
        raise MemoryError("none is left")

    monkeypatch.setattr(in_threads._Shares, "next_index", next_index)
    with pytest.raises(MemoryError, match="none is left"):
        run_in_threads(lambda _index: None, 4, 2)
