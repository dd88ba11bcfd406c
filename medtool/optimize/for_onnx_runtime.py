"""Eight-bit files as ONNX Runtime computes them fastest: the same layers, written in other ways."""

from __future__ import annotations

from pathlib import Path

from medtool.optimize.averages import pool_averages
from medtool.optimize.first_layer import fold_first_layers
from medtool.optimize.upsampling import spread_upsampling


def copy_for_onnx_runtime(source: Path, target: Path) -> int:
    """Write the eight-bit file ``source`` as ``target``, for ONNX Runtime.

    Gives how many layers are written in another way. All stay as they are in models that keep
    tensors beside them (``.data``), which are too large to be looked through, and in those with
    graphs inside their nodes, whose names are not looked through.
    """
    import onnx

    model = onnx.load(source)
    large = source.with_name(source.name + ".data").exists()
    nested = any(one.HasField("g") for node in model.graph.node for one in node.attribute)
    count = 0
    if not large and not nested:
        count = spread_upsampling(model) + fold_first_layers(model) + pool_averages(model)
    onnx.save(model, target, save_as_external_data=large, location=target.name + ".data")
    return count
