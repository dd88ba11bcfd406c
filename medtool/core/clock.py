"""Where the seconds of a piece of work went, without a watch in every signature; rough times.

Whoever wants to know opens a ``stopwatch``; whoever does the work says ``spent_on(step)``, which
costs nothing where nobody asked. Seconds never go into results that must be the same every time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

READING = "reading"

_watch: ContextVar[dict[str, float] | None] = ContextVar("watch", default=None)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Seconds by step of what runs inside, in this thread; filled as the work goes on."""
    seconds: dict[str, float] = {}
    token = _watch.set(seconds)
    try:
        yield seconds
    finally:
        _watch.reset(token)


@contextmanager
def spent_on(step: str) -> Iterator[None]:
    """Add what runs inside to ``step`` of the stopwatch around it, if there is one."""
    seconds = _watch.get()
    if seconds is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - began


def about(seconds: float) -> str:
    """An estimated time as roughly as it is known: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
