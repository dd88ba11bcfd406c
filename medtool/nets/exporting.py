"""Whether a network is being exported or compiled: then it takes the plain way through its layers.

Some layers have a faster way for what is answered here (a lone image, no gradients), which says the
same in operations that a graph for other engines should not have, and by questions at which a graph
of ``torch.compile`` would end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_EXPORTING: ContextVar[bool] = ContextVar("exporting", default=False)


@contextmanager
def exporting() -> Iterator[None]:
    """Within it networks take the plain way."""
    token = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(token)


def takes_plain_way() -> bool:
    """Whether the plain way is to be taken: to be asked before anything else."""
    # The compiler knows the first by heart; at the variable its graph would end.
    return torch.compiler.is_compiling() or _EXPORTING.get()
