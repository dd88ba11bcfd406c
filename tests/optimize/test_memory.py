"""Memory of a model that answers, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from optimised import write_heart

from medtool.optimize.memory import PeakMemory, peak_of_checkpoint, peak_of_engine

MEGABYTE = 2**20


def test_a_large_weight_is_seen_and_libraries_are_counted_apart(tmp_path: Path) -> None:
    """A matrix of 64 MB: the model takes at least that, and not several times all libraries."""
    matrix = numpy_helper.from_array(np.ones((4096, 4096), np.float32), "m")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "m"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4096])],
        [matrix],
    )
    file = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(file))
    found = peak_of_engine(file, "onnxruntime", {"x": np.ones((1, 4096), np.float32)}, threads=1)
    assert 64 * MEGABYTE <= found.model_bytes < 400 * MEGABYTE
    assert found.libraries_bytes > 20 * MEGABYTE
    assert found.as_dict()["peak_bytes"] == found.libraries_bytes + found.model_bytes


def test_a_checkpoint_is_measured_in_pytorch(tmp_path: Path) -> None:
    checkpoint = write_heart(tmp_path / "heart.safetensors")
    inputs = {"image": np.zeros((1, 1, 16, 24), np.float32)}
    found = peak_of_checkpoint(checkpoint, inputs, threads=1)
    assert 0 < found.model_bytes < found.whole_bytes


def test_less_than_nothing_is_nothing() -> None:
    assert PeakMemory(10, 20).model_bytes == 0


def test_openvino_is_imported_so_that_it_tells_nobody() -> None:
    """In a fresh process: this one may have imported it otherwise."""
    program = """
import sys
from medtool.optimize.memory import _load_libraries
_load_libraries("openvino")
assert sys.modules["openvino_telemetry"] is None
"""
    subprocess.run([sys.executable, "-c", program], check=True)
