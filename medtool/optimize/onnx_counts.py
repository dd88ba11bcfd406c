"""Parameters and multiply-adds, counted from the graph of an ONNX file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtool.core.errors import CheckpointError

# Operators whose inputs beside the first say how numbers are stored, not what was learned.
STORING = ("QuantizeLinear", "DequantizeLinear")
CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
PRODUCTS = ("MatMul", "MatMulInteger", "Gemm", "QLinearMatMul", "FusedMatMul")


def counts(file: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Parameters, and multiply-adds of one answer to inputs of these shapes."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    _fix_sizes(model, inputs)
    shapes = _shapes(onnx.shape_inference.infer_shapes(model, data_prop=True))
    nodes = list(model.graph.node)
    return _parameters(model), sum(_multiply_adds(node, shapes) for node in nodes)


def _fix_sizes(model: Any, inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Write the sizes of ``inputs`` in place of the free ones, wherever those have names."""
    names = {}
    for value in model.graph.input:
        if value.name in inputs:
            dimensions = value.type.tensor_type.shape.dim
            for dimension, size in zip(dimensions, inputs[value.name], strict=True):
                if dimension.dim_param:
                    names[dimension.dim_param] = size
                dimension.dim_value = size
    # What an exporter noted of shapes in between has names of its own making.
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_value = names[dimension.dim_param]
            elif dimension.dim_param:
                dimension.ClearField("dim_param")


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    found = {one.name: tuple(one.dims) for one in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        sizes = tuple(int(one.dim_value) for one in value.type.tensor_type.shape.dim)
        if all(sizes):
            found[value.name] = sizes
    return found


def _parameters(model: Any) -> int:
    """Numbers in initialisers of weights and biases: not scales, and not shapes."""
    import onnx

    storing = {
        name for node in model.graph.node if node.op_type in STORING for name in node.input[1:]
    }
    whole = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    return sum(
        math.prod(one.dims)
        for one in model.graph.initializer
        if one.name not in storing and one.data_type not in whole
    )


def _multiply_adds(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    kind = node.op_type
    # The second factor stands behind the scales of the first where both are stored as integers.
    second = node.input[3 if kind.startswith("QLinear") else 1] if len(node.input) > 1 else ""
    if kind in CONVOLUTIONS:
        return math.prod(_shape(shapes, node.output[0])) * math.prod(_shape(shapes, second)[1:])
    if kind == "ConvTranspose":
        # Each number that goes in is spread over a kernel of each channel that comes out.
        return math.prod(_shape(shapes, node.input[0])) * math.prod(_shape(shapes, second)[1:])
    if kind in PRODUCTS:
        inner = _shape(shapes, second)[-1 if _is_transposed(node) else -2]
        return math.prod(_shape(shapes, node.output[0])) * inner
    return 0


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(
            "The sizes in this ONNX file do not follow from those of its inputs.",
            met=f"no size of '{name}'",
            wanted="a graph whose layers all have sizes",
        )
    return shapes[name]


def _is_transposed(node: Any) -> bool:
    return any(one.name == "transB" and one.i for one in node.attribute)
