"""OpenVINO, imported so that it tells nobody.

Its package imports ``openvino_telemetry``, which sends "imported" to its makers each time, without
being asked. Where that package cannot be imported OpenVINO takes a stub of its own that sends
nothing: so it is hidden. Everything in medtool imports OpenVINO from here.
"""

from __future__ import annotations

import sys
from typing import Any

TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The module ``openvino``. Raises ImportError where it is not installed."""
    hidden: Any = None
    # None in the place of a module makes its import fail.
    sys.modules.setdefault(TELEMETRY, hidden)
    import openvino as module

    return module
