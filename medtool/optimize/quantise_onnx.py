"""Static INT8 by ONNX Runtime: weights a scale a channel, activations a scale a tensor.

The file keeps QuantizeLinear and DequantizeLinear around each layer (QDQ), so that ONNX Runtime and
OpenVINO both read it. Weights are symmetric int8, activations uint8, as the kernels of x86 want
them. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.predict.engines import open_engine

if TYPE_CHECKING:
    import onnx

    from medtool.optimize.activations import Ranges
    from medtool.predict.engines.contract import Engine

# Layers with weights: what costs arithmetic, and what can be left in float by name.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What passes eight bits on between layers without arithmetic worth naming.
BETWEEN = ("Add", "Concat", "MaxPool", "GlobalAveragePool", "Relu", "LeakyRelu", "Clip")
# What has no more axes is a row of numbers; of its layers those with less than this share of all
# weights stay in float.
ROW_AXES, SMALL_SHARE = 2, 0.01
# Of a volume, and of what convolves it: images, channels, z, y, x.
VOLUME_AXES = 5
# Files whose weights would not fit a message of protobuf keep them beside them.
LARGEST_WHOLE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Layer:
    """One layer with weights: its node, and the name that people know it by.

    ``last`` are heads: layers whose values are the answer, but for an activation, and small ones
    on the way from rows of a patient to it. ``narrow`` are convolutions of volumes with a single
    channel: kernels for eight bits take channels by fours, and need several times as long as in
    float.
    """

    node: str
    name: str
    kind: str
    parameters: int
    last: bool = False
    narrow: bool = False

    @property
    def stays_in_float(self) -> bool:
        """Whether eight bits are not tried."""
        return self.last or self.narrow


@dataclass(frozen=True)
class FloatGraph:
    """A float model made ready: batch norms folded, every shape inferred.

    ``tensors`` are those that can be quantised. ``rows`` are nodes between layers that work on rows
    of numbers, not on maps: always in float, for eight bits of sums beside counts say nothing, and
    are saved nowhere. ``sizes`` are how many values tensors have for one image, where their shapes
    are known.
    """

    file: Path
    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]
    external: bool
    rows: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)

    def observing(self, tensors: Collection[str]) -> Engine:
        """An engine whose outputs are ``tensors``; memory of others is used again on the way."""
        import onnx

        model = onnx.load(self.file)
        del model.graph.output[:]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in tensors
        )
        file = self.file.with_name("observed.onnx")
        beside = file.with_name("observed.data")
        # onnx adds to what lies there.
        beside.unlink(missing_ok=True)
        onnx.save(model, file, save_as_external_data=self.external, location=beside.name)
        engine = open_engine(file)
        if not self.external:
            # Tensors beside a file may be read as they are needed.
            file.unlink()
        return engine


def ready_graph(
    source: Path, folder: Path, *, largest_bytes: int = LARGEST_WHOLE_BYTES
) -> FloatGraph:
    """``source`` made ready to be quantised, in ``folder``.

    Of models larger than ``largest_bytes`` tensors lie beside each file, and batch norms are folded
    only as far as the export did.
    """
    import onnx
    from onnxruntime.quantization import quant_pre_process

    external = _bytes_of(source) > largest_bytes
    file = folder / "ready.onnx"
    with _quiet():
        quant_pre_process(
            source,
            file,
            skip_symbolic_shape=True,
            skip_optimization=external,
            save_as_external_data=external,
            all_tensors_to_one_file=True,
        )
    model = onnx.load(file)
    tensors, layers = _tensors(model), tuple(_layers(model))
    rows = tuple(
        node.name for node in _row_nodes(model.graph) if node.op_type in BETWEEN and node.name
    )
    return FloatGraph(file, layers, tensors, external, rows, _sizes(model))


def quantise(
    graph: FloatGraph,
    ranges: Ranges,
    target: Path,
    *,
    floats: Collection[str] = (),
    only: Collection[str] = (),
    reduce_range: bool = False,
) -> None:
    """Write ``graph`` in eight bits to ``target``.

    ``floats`` names nodes that stay in float; ``only``, where it names any, those that alone do
    not. ``reduce_range`` keeps weights in seven bits, for processors whose eight-bit products
    saturate.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    known: dict[str, Any] = {
        name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()
    }
    kept = target.with_suffix(".ranges.json")
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, known), kept)
    try:
        with _quiet():
            quantize_static(
                graph.file,
                target,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS, *BETWEEN],
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted({*floats, *graph.rows}),
                nodes_to_quantize=sorted(only),
                use_external_data_format=graph.external,
                calibration_cache_path=kept,
            )
    finally:
        kept.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs advice for people who call it by hand."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _bytes_of(source: Path) -> int:
    """Of a model with the files beside it that begin with its name."""
    return sum(file.stat().st_size for file in source.parent.glob(source.name + "*"))


def _tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Float tensors into and out of nodes that can be quantised, but for weights."""
    left_out = {tensor.name for tensor in model.graph.initializer} | _of_other_types(model)
    kinds = {*LAYERS, *BETWEEN}
    found = dict.fromkeys(
        name
        for node in model.graph.node
        if node.op_type in kinds
        for name in (*node.input, *node.output)
        if name and name not in left_out
    )
    return tuple(found)


def _sizes(model: onnx.ModelProto) -> dict[str, int]:
    """How many values each tensor of a known shape has; an axis whose size is free counts once."""
    graph = model.graph
    return {
        value.name: math.prod(
            axis.dim_value if axis.HasField("dim_value") else 1
            for axis in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }


def _of_other_types(model: onnx.ModelProto) -> set[str]:
    """Tensors that hold no floats: sizes, which graphs for any number of images compute with."""
    import onnx

    graph = model.graph
    return {
        value.name
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.elem_type not in (onnx.TensorProto.FLOAT, 0)
    }


def _layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """Layers with weights in the order of the graph."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    small = sum(sizes.values()) * SMALL_SHARE
    heads = _heads(model.graph) | {
        node.name
        for node in _row_nodes(model.graph)
        if sum(sizes.get(name, 0) for name in node.input) < small
    }
    for node in model.graph.node:
        if node.op_type not in LAYERS:
            continue
        weights = [name for name in node.input if name in sizes]
        if not weights:
            continue
        # The export names a node by its layer and its operator.
        name = node.name.rpartition("/")[0] or node.name
        parameters, last = sum(sizes[one] for one in weights), node.name in heads
        yield Layer(node.name, name, node.op_type, parameters, last, _is_narrow(node, shapes))


def _is_narrow(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether it is a convolution (out, in, z, y, x) of one channel, and of one group."""
    shape = shapes.get(node.input[1], ())
    groups = [one.i for one in node.attribute if one.name == "group"] or [1]
    return node.op_type == "Conv" and len(shape) == VOLUME_AXES and groups == [1] == [shape[1]]


def _row_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes whose outputs have no more than two axes: rows of numbers, or single ones."""
    axes = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return [node for node in graph.node if all(axes.get(one, 3) <= ROW_AXES for one in node.output)]


def _heads(graph: onnx.GraphProto) -> set[str]:
    """Nodes with weights from which an output is reached without another layer."""
    makers = {name: node for node in graph.node for name in node.output}
    heads: set[str] = set()
    waiting, seen = [value.name for value in graph.output], set()
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in LAYERS:
            heads.add(node.name)
        else:
            waiting.extend(node.input)
    return heads
