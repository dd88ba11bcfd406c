"""Whether a network is being exported: then it takes the plain way through its layers.

Some layers have a faster way for what is answered here (a lone image, no gradients), which says the
same in operations that a graph for other engines should not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EXPORTING: ContextVar[bool] = ContextVar("exporting", default=False)


@contextmanager
def exporting() -> Iterator[None]:
    """Within it networks take the plain way."""
    token = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(token)


def is_exporting() -> bool:
    """Whether the plain way is to be taken."""
    return _EXPORTING.get()
