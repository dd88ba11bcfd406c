"""Small ONNX graphs whose answers can be followed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from medtool.optimize.activations import observe, ranges_of
from medtool.optimize.processor import has_vnni
from medtool.optimize.quantise_onnx import quantise, ready_graph

Weights = Sequence[tuple[str, NDArray[np.float32]]]


def write_graph(
    path: Path,
    layers: Sequence[tuple[str, str, NDArray[np.float32]]],
    *,
    channels: int = 1,
    last: str = "",
) -> Path:
    """Convolutions one after another, each (name, activation, weights (out, in, k, k)).

    Activations are operators without attributes, "" for none; ``last`` is one behind all of them,
    whose values are the output "logits"; without it the last layer has no activation. The input is
    "image" (n, channels, rows, columns).
    """
    nodes, tensors, value = [], [], "image"
    for number, (name, activation, weights) in enumerate(layers, 1):
        tensors.append(numpy_helper.from_array(weights, f"{name}.weight"))
        margin = weights.shape[-1] // 2
        whole = number == len(layers) and not (activation or last)
        made = "logits" if whole else f"{name}.maps"
        nodes.append(
            helper.make_node(
                "Conv", [value, f"{name}.weight"], [made], name=f"{name}/Conv", pads=[margin] * 4
            )
        )
        value = made
        if activation:
            nodes.append(
                helper.make_node(activation, [value], [f"{name}.on"], name=f"{name}/{activation}")
            )
            value = f"{name}.on"
    if last:
        nodes.append(helper.make_node(last, [value], ["logits"], name="last"))
    outputs = layers[-1][2].shape[0]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs, 8, 8])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def drawn(seed: int, *shape: int) -> NDArray[np.float32]:
    """Numbers from a normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def plain_graph(path: Path) -> Path:
    """Three convolutions: 1 to 4 to 4 to 1 channels."""
    return write_graph(
        path,
        [
            ("encoder", "Relu", drawn(1, 4, 1, 3, 3)),
            ("decoder", "Relu", drawn(2, 4, 4, 3, 3)),
            ("head", "", drawn(3, 1, 4, 1, 1)),
        ],
    )


def drowned_graph(path: Path) -> Path:
    """One map is a thousand times as large as the other, and only the small one is used.

    Eight bits for both together leave nothing of the small one: the two layers on either side of
    these maps must stay in float.
    """
    both = np.array([1000.0, 1.0], np.float32).reshape(2, 1, 1, 1)
    small = np.array([0.0, 1.0], np.float32).reshape(1, 2, 1, 1)
    return write_graph(
        path,
        [
            ("before", "Relu", drawn(1, 1, 1, 3, 3)),
            ("both", "", both),
            ("small", "", small),
            ("after", "Relu", drawn(2, 4, 1, 3, 3)),
            ("head", "", drawn(3, 1, 4, 1, 1)),
        ],
    )


def inputs(count: int, channels: int = 1) -> list[dict[str, NDArray[np.float32]]]:
    """Images to run a graph on."""
    return [{"image": drawn(100 + number, 1, channels, 8, 8)} for number in range(count)]


def images(shape: Sequence[int], seed: int = 0, count: int = 1) -> dict[str, NDArray[np.float32]]:
    """``count`` images of a ``shape`` that begins with their channels."""
    return {"image": drawn(100 + seed, count, *shape)}


def in_eight_bits(source: Path, shape: Sequence[int], floats: Sequence[str] = ()) -> Path:
    """``source``, of images of ``shape``, as ``optimize`` quantises it: its head stays in float."""
    graph = ready_graph(source, source.parent)
    ranges = ranges_of(observe(graph, [images(shape, k) for k in range(4)]), "minmax", 99.99)
    target = source.with_name("int8.onnx")
    heads = [layer.node for layer in graph.layers if layer.name == "head"]
    quantise(graph, ranges, target, floats=[*heads, *floats], reduce_range=not has_vnni())
    return target
