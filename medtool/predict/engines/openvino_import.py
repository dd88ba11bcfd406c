"""OpenVINO, imported so that it tells nobody.

Its package imports ``openvino_telemetry``, which sends "imported" to its makers each time, without
being asked. Where that package cannot be imported OpenVINO takes a stub of its own that sends
nothing: so it is hidden. Everything in medtool imports OpenVINO from here.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The module ``openvino``. Raises ImportError where it is not installed."""
    hidden: Any = None
    # None in the place of a module makes its import fail.
    sys.modules.setdefault(TELEMETRY, hidden)
    import openvino as module

    return module


@cache
def openvino_core() -> Any:
    """The one ``Core`` of this process, which lives as long as it does. Raises as ``openvino``.

    A core that loads what computes on processors gives the thread a stack for signals of its own,
    and takes it away with itself. Of two that end in the order in which they began, or one that
    ends in another thread, the stack that is left is one that was taken away: the next signal, a
    Ctrl-C or the end of a child process, then ends the process with a segmentation fault.
    """
    return openvino().Core()
