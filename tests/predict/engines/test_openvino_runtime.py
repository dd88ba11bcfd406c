"""OpenVINO leaves the process as it was: signals are still heard when its engines have ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_graphs import plain_graph

ENGINES = """
import faulthandler, os, signal, sys, threading
from pathlib import Path
from medtool.predict.engines.openvino_runtime import OpenVinoEngine

# As pytest does, and python -X faulthandler: signals have a stack of their own from here on.
faulthandler.enable()
first, second = (OpenVinoEngine(Path(sys.argv[1]), threads=1) for _ in range(2))
"""
ENDS = {
    "in their order": "del first\ndel second",
    "the last one first": "del second\ndel first",
    "in another thread": """
held = [first, second]
del first, second
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
""",
}
HEARD = """
signal.signal(signal.SIGINT, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals have no stack of their own on Windows")
@pytest.mark.parametrize("how", ENDS)
def test_signals_are_heard_when_engines_have_ended(fresh_python, tmp_path: Path, how: str) -> None:
    """OpenVINO left the process a stack for signals that was gone: Ctrl-C ended in a crash."""
    file = plain_graph(tmp_path / "model.onnx")
    outcome = fresh_python("-c", f"{ENGINES}\n{ENDS[how]}\n{HEARD}", str(file))
    assert (outcome.status, outcome.out) == (0, "heard\n"), outcome.err
