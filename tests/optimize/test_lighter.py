"""Files whose weights are smaller and whose arithmetic is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_graphs import drawn, inputs, write_graph

from medtool.optimize.lighter import in_int8, weights_in_float16, weights_in_int8
from medtool.predict.engines import open_engine


@pytest.fixture
def source(tmp_path: Path) -> Path:
    layers = [
        ("wide", "Relu", drawn(1, 32, 1, 3, 3)),
        ("deep", "Relu", drawn(2, 32, 32, 3, 3)),
        ("head", "", drawn(3, 1, 32, 1, 1)),
    ]
    return write_graph(tmp_path / "model.onnx", layers)


def test_a_row_by_hand() -> None:
    values = np.array([[1.27, -0.64, 0.0], [0.0, 0.0, 0.0]], np.float32)
    quantised, scales = in_int8(values, 0)
    np.testing.assert_array_equal(quantised, [[127, -64, 0], [0, 0, 0]])
    np.testing.assert_allclose(scales, [0.01, 1.0], rtol=1e-6)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("make", "times", "share"), [(weights_in_int8, 3.0, 0.02), (weights_in_float16, 1.8, 1e-3)]
)
def test_they_are_smaller_and_say_the_same(source, make, times, share, engine) -> None:
    target = source.with_name("small.onnx")
    assert make(source, target) == 32 * 9 + 32 * 32 * 9
    onnx.checker.check_model(onnx.load(target))
    assert source.stat().st_size / target.stat().st_size > times
    one = inputs(1)[0]
    wanted = open_engine(source).run(one)["logits"]
    found = open_engine(target, engine=engine).run(one)["logits"]
    assert 0 < np.abs(found - wanted).max() / np.ptp(wanted) < share


def test_what_float16_cannot_hold_stays_as_it_is(tmp_path: Path) -> None:
    large = np.full((32, 1, 3, 3), 1e6, np.float32)
    source = write_graph(tmp_path / "model.onnx", [("large", "", large)])
    assert weights_in_float16(source, tmp_path / "small.onnx") == 0
