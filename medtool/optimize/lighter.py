"""Lighter files without calibration: weights in eight bits or in float16, arithmetic in float32.

They are smaller and never faster on a processor: each weight becomes float32 again when the file is
opened. Activations keep all their bits, so that answers hardly change.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtool.optimize.quantise_onnx import LARGEST_WHOLE_BYTES, LAYERS

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

# Smaller tensors, as biases, are left as they are: nothing is gained.
LEAST_VALUES = 256
LARGEST_INT8 = 127.0
# Of a layer's weights the axis of its outputs; else 0.
OUTPUT_AXIS = {"ConvTranspose": 1, "MatMul": 1, "Gemm": 1}


def weights_in_int8(source: Path, target: Path) -> int:
    """Write ``source`` with the weights of its layers as int8, a scale an output channel.

    Gives the number of weights so written.
    """
    import onnx

    model = onnx.load(source)
    users = {
        name: node
        for node in model.graph.node
        if node.op_type in LAYERS
        for name in node.input[1:2]
    }
    changed = 0
    for tensor in list(model.graph.initializer):
        node = users.get(tensor.name)
        values = _values(tensor)
        if node is None or values is None:
            continue
        axis = _output_axis(node)
        quantised, scales = in_int8(values, axis)
        _replace(model, tensor, quantised, scales, axis)
        changed += values.size
    _save(model, target)
    return changed


def weights_in_float16(source: Path, target: Path) -> int:
    """Write ``source`` with all its large tensors as float16. Gives the number of values.

    Tensors that hold values too large for float16 stay as they are.
    """
    import onnx

    model = onnx.load(source)
    changed = 0
    for tensor in list(model.graph.initializer):
        values = _values(tensor)
        if values is None or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        _replace(model, tensor, values.astype(np.float16), None, 0)
        changed += values.size
    _save(model, target)
    return changed


def in_int8(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``values`` as int8 and the scale of each index along ``axis``; symmetric, so that 0 is 0."""
    others = tuple(one for one in range(values.ndim) if one != axis)
    largest = np.abs(values).max(axis=others)
    # A channel of zeros keeps a scale that divides.
    scales = np.where(largest > 0, largest / LARGEST_INT8, 1.0).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    rounded = np.round(values / scales.reshape(shape))
    return np.clip(rounded, -LARGEST_INT8, LARGEST_INT8).astype(np.int8), scales


def _values(tensor: onnx.TensorProto) -> NDArray[np.float32] | None:
    """Values of a tensor that is worth making smaller."""
    import onnx

    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    values = np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float32)
    return values if values.size >= LEAST_VALUES else None


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        return 0 if turned else 1
    return OUTPUT_AXIS.get(node.op_type, 0)


def _replace(
    model: onnx.ModelProto,
    tensor: onnx.TensorProto,
    stored: NDArray[np.int8] | NDArray[np.float16],
    scales: NDArray[np.float32] | None,
    axis: int,
) -> None:
    """Let ``tensor`` be made of what is stored, where the file is opened."""
    import onnx

    name = tensor.name
    kept = f"{name}.stored"
    model.graph.initializer.remove(tensor)
    model.graph.initializer.append(onnx.numpy_helper.from_array(stored, kept))
    if scales is None:
        node = onnx.helper.make_node(
            "Cast", [kept], [name], name=f"{name}/Cast", to=onnx.TensorProto.FLOAT
        )
    else:
        scale = f"{name}.scale"
        model.graph.initializer.append(onnx.numpy_helper.from_array(scales, scale))
        node = onnx.helper.make_node(
            "DequantizeLinear", [kept, scale], [name], name=f"{name}/DequantizeLinear", axis=axis
        )
    model.graph.node.insert(0, node)


def _save(model: onnx.ModelProto, target: Path) -> None:
    import onnx

    large = model.ByteSize() > LARGEST_WHOLE_BYTES
    onnx.save(model, target, save_as_external_data=large, location=target.name + ".data")
