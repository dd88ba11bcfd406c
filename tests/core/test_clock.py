"""Seconds by step: added up where somebody asked, and nowhere else."""

from __future__ import annotations

import threading

import pytest

from medtool.core.clock import spent_on, stopwatch


def test_steps_add_up_and_lie_inside_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 13.0, 20.0, 20.5])
    monkeypatch.setattr("medtool.core.clock.time.perf_counter", lambda: next(ticks))
    with stopwatch() as seconds:
        with spent_on("reading"):
            pass
        with spent_on("reading"):
            pass
        with spent_on("writing"):
            pass
    assert seconds == {"reading": 5.0, "writing": 0.5}


def test_what_fails_is_counted_too() -> None:
    with stopwatch() as seconds, pytest.raises(ValueError, match="no"), spent_on("reading"):
        raise ValueError("no")
    assert set(seconds) == {"reading"}


def test_nobody_asked() -> None:
    with stopwatch() as seconds:
        pass
    with spent_on("reading"):
        pass
    assert seconds == {}


def test_stopwatches_of_threads_are_their_own() -> None:
    def work() -> None:
        with spent_on("reading"):
            pass

    with stopwatch() as seconds:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seconds == {}
