"""Averages over whole maps of an eight-bit file, by the operator that has a form in eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtool.optimize.eight_bit_graph import EightBitGraph, attributes_of

if TYPE_CHECKING:
    import onnx

# What leaves out the axes that were averaged, and moves nothing.
FLATTENING = ("Reshape", "Squeeze")


def pool_averages(model: onnx.ModelProto) -> int:
    """Change ``model`` in place; gives how many averages became a GlobalAveragePool.

    The export writes ReduceMean over all axes of an image, for which ONNX Runtime makes floats of
    the maps, channels first. Left as they are: averages of values in float, and over other axes.
    """
    return EightBitGraph(model).change("ReduceMean", _pooled)


def _pooled(graph: EightBitGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    from onnx import helper

    if not _takes_whole_maps(graph, node):
        return None
    names = (node.input[:1], node.output)
    return [helper.make_node("GlobalAveragePool", *names, name=node.name)]


def _takes_whole_maps(graph: EightBitGraph, node: onnx.NodeProto) -> bool:
    """Whether all axes behind the channels are averaged and stay, between values in eight bits."""
    from onnx import numpy_helper

    before = graph.makers.get(node.input[0])
    users = graph.users.get(node.output[0], [])
    if len(users) == 1 and users[0].op_type in FLATTENING:
        # ONNX Runtime makes eight bits before these, not before Flatten.
        users = graph.users.get(users[0].output[0], [])
    if before is None or before.op_type != "DequantizeLinear":
        return False
    if [user.op_type for user in users] != ["QuantizeLinear"]:
        return False
    stored = graph.stored.get(node.input[1]) if len(node.input) > 1 else None
    count = len(graph.shapes.get(node.input[0], ()))
    if stored is None or count == 0 or not attributes_of(node).get("keepdims", 1):
        return False
    axes = sorted(axis % count for axis in numpy_helper.to_array(stored).tolist())
    return axes == list(range(2, count))
