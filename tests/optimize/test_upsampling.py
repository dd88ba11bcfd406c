"""Transposed convolutions as plain ones: the same answers, and only where nothing overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import drawn, images, in_eight_bits

from medtool.optimize.for_onnx_runtime import copy_for_onnx_runtime
from medtool.predict.engines import open_engine

WIDE, NARROW = 6, 4


def write_upsampling(
    path: Path,
    size: Sequence[int | str],
    kernel: Sequence[int],
    *,
    bias: bool = False,
    calls: int = 1,
    made: int = NARROW,
    **attributes: Any,
) -> Path:
    """A convolution, then ``calls`` times the same transposed one beside each other, then a head.

    The input is "image" (n, 1, size), the output "logits".
    """
    axes, made_channels = len(kernel), made * attributes.get("group", 1)
    tensors = [
        numpy_helper.from_array(drawn(1, WIDE, 2, *[1] * axes), "before.weight"),
        numpy_helper.from_array(drawn(2, WIDE, made, *kernel), "up.weight"),
        numpy_helper.from_array(drawn(3, 2, made_channels, *[1] * axes), "head.weight"),
    ]
    names = ["up.weight"]
    if bias:
        tensors.append(numpy_helper.from_array(drawn(4, made), "up.bias"))
        names.append("up.bias")
    attributes = {"kernel_shape": list(kernel), "strides": list(kernel), **attributes}
    nodes = [
        helper.make_node("Conv", ["image", "before.weight"], ["maps"], name="before/Conv"),
        helper.make_node("Relu", ["maps"], ["on0"], name="before/Relu"),
    ]
    for call in range(calls):
        maps = f"wide{call}"
        nodes += [
            helper.make_node(
                "ConvTranspose", [f"on{call}", *names], [maps], name=f"up.{call}/Up", **attributes
            ),
        ]
        if call + 1 < calls:
            # Back to the first width, so that the same layer can be asked again.
            tensors.append(
                numpy_helper.from_array(drawn(9, WIDE, NARROW, *[1] * axes), f"back{call}")
            )
            nodes += [
                helper.make_node("Conv", [maps, f"back{call}"], [f"b{call}"], name=f"back.{call}"),
                helper.make_node("Relu", [f"b{call}"], [f"on{call + 1}"], name=f"relu.{call}"),
            ]
    nodes += [
        helper.make_node("Relu", [f"wide{calls - 1}"], ["last"], name="up/Relu"),
        helper.make_node("Conv", ["last", "head.weight"], ["logits"], name="head/Conv"),
    ]
    spatial = [None] * axes
    graph = helper.make_graph(
        nodes,
        "upsampling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, *spatial])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def kinds(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(file).graph.node]


@pytest.mark.parametrize(
    ("size", "kernel"),
    [((8, 6), (2, 2)), ((5, 7), (3, 2)), ((4, 5, 6), (2, 2, 2)), ((3, 5, 4), (1, 2, 2))],
    ids=["2D", "other axes", "3D", "flat blocks"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_answers_by_convolutions_alone(
    tmp_path: Path, size: tuple[int, ...], kernel: tuple[int, ...], bias: bool
) -> None:
    source = write_upsampling(tmp_path / "model.onnx", size, kernel, bias=bias)
    before = in_eight_bits(source, (2, *size))
    after = tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 1
    onnx.checker.check_model(onnx.load(after))
    assert "ConvTranspose" in kinds(before) and "ConvTranspose" not in kinds(after)
    # Nothing of the old layer is left in the file.
    assert abs(after.stat().st_size - before.stat().st_size) < 3000

    for seed, count in ((50, 1), (51, 3)):
        one = images((2, *size), seed, count)
        was, found = (open_engine(file).run(one)["logits"] for file in (before, after))
        exact = open_engine(source).run(one)["logits"]
        assert found.shape == exact.shape
        assert found.shape[2:] == tuple(n * k for n, k in zip(size, kernel, strict=True))
        # ONNX Runtime sums the old layer in float: a step of eight bits may round the other way.
        assert np.mean(np.abs(found - was) > 1e-4) < 0.02
        # A few values lie beyond what calibration saw.
        assert np.quantile(np.abs(found - exact), 0.95) < 0.02 * np.ptp(exact)


@pytest.mark.parametrize("made", [1, NARROW])
def test_the_file_is_valid_word_for_word(tmp_path: Path, made: int) -> None:
    """A layer of one channel has a single zero for all; nothing is to be fused before it runs."""
    source = write_upsampling(tmp_path / "model.onnx", (6, 6), (2, 2), bias=True, made=made)
    before, after = in_eight_bits(source, (2, 6, 6)), tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 1
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    one = images((2, 6, 6), 50)
    was, found = (
        onnxruntime.InferenceSession(file, options).run(None, one)[0] for file in (before, after)
    )
    np.testing.assert_allclose(found, was, atol=0.02 * np.ptp(was))


def test_a_layer_that_is_asked_twice(tmp_path: Path) -> None:
    source = write_upsampling(tmp_path / "model.onnx", (4, 4), (2, 2), bias=True, calls=2)
    before = in_eight_bits(source, (2, 4, 4))
    after = tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 2
    was, found = (
        open_engine(file).run(images((2, 4, 4), 50))["logits"] for file in (before, after)
    )
    assert found.shape == (1, 2, 16, 16)
    assert np.abs(found - was).max() < 0.02 * np.ptp(was)


@pytest.mark.parametrize(
    ("size", "kernel", "attributes"),
    [
        ((6, 6), (3, 3), {"strides": [2, 2]}),
        ((6, 6), (2, 2), {"strides": [3, 3]}),
        ((6, 6), (2, 2), {"pads": [0, 0, 1, 1]}),
        ((6, 6), (2, 2), {"output_padding": [1, 1], "strides": [2, 2]}),
        ((6, 6), (2, 2), {"group": 2}),
        ((6, 6), (2, 2), {"dilations": [2, 2]}),
        (("rows", "columns"), (2, 2), {}),
    ],
    ids=["overlap", "gaps", "cut", "padded", "groups", "dilated", "any size"],
)
def test_other_layers_stay_as_they_are(
    tmp_path: Path,
    size: tuple[int | str, ...],
    kernel: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    source = write_upsampling(tmp_path / "model.onnx", size, kernel, **attributes)
    before = in_eight_bits(source, (2, 6, 6))
    after = tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 0
    assert kinds(after) == kinds(before)
    one = images((2, 6, 6), 50)
    np.testing.assert_array_equal(
        open_engine(after).run(one)["logits"], open_engine(before).run(one)["logits"]
    )


def test_a_layer_in_float_stays_in_float(tmp_path: Path) -> None:
    source = write_upsampling(tmp_path / "model.onnx", (6, 6), (2, 2))
    before = in_eight_bits(source, (2, 6, 6), floats=["up.0/Up"])
    assert copy_for_onnx_runtime(before, tmp_path / "after.onnx") == 0
    assert "ConvTranspose" in kinds(tmp_path / "after.onnx")
