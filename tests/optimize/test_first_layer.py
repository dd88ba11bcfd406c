"""First convolutions on neighbours as channels, averages in eight bits: the same numbers."""

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

from medtool.optimize.averages import pool_averages
from medtool.optimize.first_layer import fold_first_layers
from medtool.optimize.for_onnx_runtime import copy_for_onnx_runtime
from medtool.predict.engines import open_engine

OUTPUTS = 6


def write_layers(
    path: Path,
    size: Sequence[int | str],
    kernel: Sequence[int],
    *,
    channels: int = 1,
    bias: bool = True,
    average: Sequence[int] = (),
    flat: bool = False,
    **attributes: Any,
) -> Path:
    """A convolution of an "image" (n, channels, size), a rectifier, another convolution "logits";
    between the last two the mean over the axes of ``average``, if any are named, ``flat`` as rows.
    """
    axes = len(kernel)
    ones = [1] * axes
    group = attributes.get("group", 1)
    tensors = [
        numpy_helper.from_array(drawn(1, OUTPUTS, channels // group, *kernel), "first.weight"),
    ]
    names = ["first.weight"]
    if bias:
        tensors.append(numpy_helper.from_array(drawn(3, OUTPUTS), "first.bias"))
        names.append("first.bias")
    nodes = [
        helper.make_node("Conv", ["image", *names], ["maps"], name="first/Conv", **attributes),
        helper.make_node("Relu", ["maps"], ["on"], name="first/Relu"),
    ]
    last = "on"
    if average:
        tensors.append(numpy_helper.from_array(np.array(average, np.int64), "axes"))
        nodes.append(helper.make_node("ReduceMean", ["on", "axes"], ["mean"], name="mean"))
        last = "mean"
    kind = "Gemm" if flat else "Conv"
    if flat:
        tensors.append(numpy_helper.from_array(np.array([0, -1], np.int64), "shape"))
        nodes.append(helper.make_node("Reshape", [last, "shape"], ["row"], name="flat"))
        last, ones = "row", []
    form = {"transB": 1} if flat else {}
    for seed, name, width, made in ((2, "middle", OUTPUTS, "wide"), (4, "head", 2, "logits")):
        tensors.append(numpy_helper.from_array(drawn(seed, 2, width, *ones), f"{name}.weight"))
        inputs = [last, f"{name}.weight"]
        nodes.append(helper.make_node(kind, inputs, [made], name=f"{name}/{kind}", **form))
        last = made
    graph = helper.make_graph(
        nodes,
        "first",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, *[None] * len(ones)])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def first_of(file: Path) -> onnx.NodeProto:
    (node,) = [one for one in onnx.load(file).graph.node if one.name == "first/Conv"]
    return node


FOLDED = {
    "a stem": (1, (16, 12), (7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    "of two channels": (2, (16, 12), (7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    "of four": (4, (8, 8), (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "an even kernel": (1, (8, 8), (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "padded at one end": (3, (9, 16), (3, 5), {"strides": [2, 2], "pads": [0, 1, 1, 2]}),
    "other strides": (1, (5, 18), (3, 5), {"strides": [1, 3], "pads": [1, 1, 1, 1]}),
    "much padding": (1, (8, 16), (3, 5), {"strides": [2, 2], "pads": [1, 4, 1, 3]}),
    "not padded in front": (1, (8, 8), (3, 3), {"strides": [2, 2], "pads": [1, 0, 1, 1]}),
    "a volume": (1, (4, 6, 8), (3, 3, 3), {"strides": [1, 2, 2], "pads": [1] * 6}),
}


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("bias", [True, False])
def test_neighbours_as_channels_give_the_same_numbers(
    tmp_path: Path, name: str, bias: bool
) -> None:
    channels, size, kernel, attributes = FOLDED[name]
    source = write_layers(
        tmp_path / "model.onnx", size, kernel, channels=channels, bias=bias, **attributes
    )
    before, after = in_eight_bits(source, (channels, *size)), tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 1
    onnx.checker.check_model(onnx.load(after), full_check=True)
    model = onnx.load(before)
    assert fold_first_layers(model) == 1
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # Twice as many outputs, from as many more channels as neighbours are one group.
    (wide,) = [dims for dims in stored.values() if dims[:1] == [2 * OUTPUTS] and len(dims) > 1]
    assert wide[1] == channels * 2 * attributes["strides"][-1]
    # Nothing of the old layer is left.
    assert not any(dims[:1] == [OUTPUTS] for dims in stored.values())
    for seed, count in ((50, 1), (51, 3)):
        one = images((channels, *size), seed, count)
        was, found = (open_engine(file).run(one)["logits"] for file in (before, after))
        np.testing.assert_array_equal(found, was)
        exact = open_engine(source).run(one)["logits"]
        # Some values lie beyond what calibration saw.
        assert np.median(np.abs(found - exact)) < 0.01 * np.ptp(exact)


STRIDE = {"strides": [2, 2], "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "attributes"),
    [
        (1, (8, 8), (3, 3), {"pads": [1, 1, 1, 1]}),
        (5, (8, 8), (3, 3), STRIDE),
        (1, (8, 10), (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 2]}),
        (1, (8, 12), (3, 3), {"strides": [2, 2]}),
        (1, (8, 8), (2, 2), {"strides": [2, 2]}),
        (2, (8, 8), (3, 3), {**STRIDE, "group": 2}),
        (1, (8, 8), (3, 3), {"strides": [2, 2], "pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        (1, (8, 8), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        (1, ("rows", "columns"), (3, 3), STRIDE),
    ],
    ids=[
        "no stride", "many channels", "no whole groups", "no whole places", "no overlap", "groups",
        "dilated", "padded by a rule", "any size",
    ],
)  # fmt: skip
def test_other_layers_stay_as_they_are(
    tmp_path: Path,
    channels: int,
    size: tuple[int | str, ...],
    kernel: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    source = write_layers(tmp_path / "model.onnx", size, kernel, channels=channels, **attributes)
    shape = (channels, *(one if isinstance(one, int) else 8 for one in size))
    before, after = in_eight_bits(source, shape), tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 0
    assert onnx.load(after) == onnx.load(before)


def test_layers_that_share_weights_have_paddings_of_their_own(tmp_path: Path) -> None:
    """The same weights begin at another neighbour of a group where the padding is another."""
    stride = {"strides": [2, 2], "pads": [1, 2, 1, 2]}
    source = write_layers(tmp_path / "model.onnx", (8, 16), (3, 5), **stride)
    model = onnx.load(source)
    names = ["image", "first.weight", "first.bias"]
    others = [
        helper.make_node(
            *("Conv", names, ["maps2"], "second/Conv"), strides=[2, 2], pads=[1, 1, 1, 3]
        ),
        helper.make_node("Relu", ["maps2"], ["on2"], name="second/Relu"),
        helper.make_node("Add", ["on", "on2"], ["both"], name="both/Add"),
    ]
    first, last = model.graph.node[:2], model.graph.node[2:]
    last[0].input[0] = "both"
    nodes = [*first, *others, *last]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, source)
    before, after = in_eight_bits(source, (1, 8, 16)), tmp_path / "after.onnx"
    assert copy_for_onnx_runtime(before, after) == 2
    onnx.checker.check_model(onnx.load(after), full_check=True)
    one = images((1, 8, 16), 50)
    was, found = (open_engine(file).run(one)["logits"] for file in (before, after))
    np.testing.assert_array_equal(found, was)


def test_weights_whose_nought_is_another_number_stay(tmp_path: Path) -> None:
    source = write_layers(tmp_path / "model.onnx", (8, 8), (3, 3), **STRIDE)
    model = onnx.load(in_eight_bits(source, (1, 8, 8)))
    makers = {node.output[0]: node for node in model.graph.node}
    (conv,) = [node for node in model.graph.node if node.name == "first/Conv"]
    zeros = makers[conv.input[1]].input[2]
    (stored,) = [tensor for tensor in model.graph.initializer if tensor.name == zeros]
    values = numpy_helper.to_array(stored)
    assert not values.any()
    stored.CopyFrom(numpy_helper.from_array(values + np.int8(1), zeros))
    assert fold_first_layers(model) == 0


def test_a_layer_in_float_stays_in_float(tmp_path: Path) -> None:
    source = write_layers(tmp_path / "model.onnx", (8, 8), (3, 3), **STRIDE)
    before = in_eight_bits(source, (1, 8, 8), floats=["first/Conv"])
    assert copy_for_onnx_runtime(before, tmp_path / "after.onnx") == 0
    assert list(first_of(tmp_path / "after.onnx").input)[1] == "first.weight"


def test_graphs_inside_nodes_are_not_looked_through(tmp_path: Path) -> None:
    """What they use of the graph around them has names that would be overlooked."""
    source = write_layers(tmp_path / "model.onnx", (8, 8), (3, 3), **STRIDE)
    before, after = in_eight_bits(source, (1, 8, 8)), tmp_path / "after.onnx"
    model = onnx.load(before)
    # The branches answer with values of the graph around them: the maps behind the first layer.
    kept = next(node.output[0] for node in model.graph.node if "first/Conv" in node.name)
    for name in ("then", "else"):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        inside = helper.make_node("Identity", [kept], [name], name=name)
        branch = helper.make_graph([inside], name, [], [value])
        if name == "then":
            node = helper.make_node("If", ["yes"], ["seen"], name="if", then_branch=branch)
        else:
            node.attribute.append(helper.make_attribute("else_branch", branch))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    onnx.save(model, before)
    assert copy_for_onnx_runtime(before, after) == 0
    one = images((1, 8, 8), 50)
    was, found = (open_engine(file).run(one) for file in (before, after))
    assert set(found) == {"logits", "seen"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, was[name])


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
@pytest.mark.parametrize("flat", [True, False])
def test_an_average_of_whole_maps_is_computed_in_eight_bits(
    tmp_path: Path, axes: list[int], flat: bool
) -> None:
    source = write_layers(
        tmp_path / "model.onnx", (9, 9), (3, 3), pads=[1] * 4, average=axes, flat=flat
    )
    before, after = in_eight_bits(source, (1, 9, 9)), tmp_path / "after.onnx"
    seen = onnx.load(before)
    # The quantiser leaves the average in float, between eight bits where layers stand around it.
    assert copy_for_onnx_runtime(before, after) == pool_averages(seen) == 1
    assert "GlobalAveragePool" in [node.op_type for node in onnx.load(after).graph.node]
    onnx.checker.check_model(onnx.load(after), full_check=True)
    # What ONNX Runtime makes of it.
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(after, options)
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert "QLinearGlobalAveragePool" in fused
    for seed, count in ((50, 1), (51, 3)):
        one = images((1, 9, 9), seed, count)
        was, found = (open_engine(file).run(one)["logits"] for file in (before, after))
        # A mean may lie between two steps of eight bits, and be rounded to the other.
        assert np.abs(found - was).max() < 0.01 * np.ptp(was)


@pytest.mark.parametrize(
    ("axes", "stay"), [([3], True), ([1], True), ([1, 2, 3], True), ([], True), ([2, 3], False)]
)
def test_other_averages_stay_as_they_are(tmp_path: Path, axes: list[int], stay: bool) -> None:
    """Over other axes, over all where none is named, and those that leave no axes of the image."""
    source = write_layers(tmp_path / "model.onnx", (9, 9), (3, 3), pads=[1] * 4, average=[2, 3])
    model = onnx.load(in_eight_bits(source, (1, 9, 9)))
    (mean,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    (stored,) = [one for one in model.graph.initializer if one.name == mean.input[1]]
    stored.CopyFrom(numpy_helper.from_array(np.array(axes, np.int64), stored.name))
    del mean.attribute[:]
    mean.attribute.append(helper.make_attribute("keepdims", int(stay)))
    assert pool_averages(model) == 0


def test_an_average_of_values_in_float_stays(tmp_path: Path) -> None:
    source = write_layers(tmp_path / "model.onnx", (9, 9), (3, 3), pads=[1] * 4, average=[2, 3])
    floats = ["first/Conv", "first/Relu"]
    model = onnx.load(in_eight_bits(source, (1, 9, 9), floats=floats))
    assert "ReduceMean" in [node.op_type for node in model.graph.node]
    assert pool_averages(model) == 0
