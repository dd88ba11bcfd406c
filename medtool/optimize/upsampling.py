"""Transposed convolutions of an eight-bit file as plain ones, whose outputs are then spread out.

Where the kernel is as wide as the stride, every value of the input makes a block of outputs of its
own: a convolution of one voxel with an output channel for each place of the block says the same.
ONNX Runtime computes convolutions in eight bits and transposed ones in float, for which it makes
floats of inputs and weights at every call. The axis of channels is last where blocks are spread,
as ONNX Runtime's convolutions in eight bits want it: its own transpositions cancel with these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def copy_for_onnx_runtime(source: Path, target: Path) -> int:
    """Write the eight-bit file ``source`` as ``target``, as ONNX Runtime computes it fastest.

    Gives the number of transposed convolutions that became plain ones. They stay as they are in
    models that keep tensors beside them (``.data``), which are too large to be looked through, and
    in those with graphs inside their nodes, whose names are not looked through.
    """
    import onnx

    model = onnx.load(source)
    large = source.with_name(source.name + ".data").exists()
    nested = any(one.HasField("g") for node in model.graph.node for one in node.attribute)
    count = 0 if large or nested else spread_upsampling(model)
    onnx.save(model, target, save_as_external_data=large, location=target.name + ".data")
    return count


def spread_upsampling(model: onnx.ModelProto) -> int:
    """Change ``model`` in place; gives how many transposed convolutions it no longer has.

    Left as they are: those in float, with groups, with blocks that overlap or have gaps, and those
    whose input has no fixed size but for the number of images.
    """
    graph = _Graph(model)
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        layer = graph.layer(node) if node.op_type == "ConvTranspose" else None
        if layer is None:
            nodes.append(node)
            continue
        nodes.extend(graph.plain(layer))
        count += 1
    if count:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        graph.drop_unused()
    return count


@dataclass(frozen=True)
class _Layer:
    """A transposed convolution that can be spread: ``size`` is that of its input, ``block`` what
    one value of it becomes. The makers of weights and bias are nodes DequantizeLinear.
    """

    node: onnx.NodeProto
    block: tuple[int, ...]
    size: tuple[int, ...]
    weights: onnx.NodeProto
    bias: onnx.NodeProto | None


class _Graph:
    """Names of a model's graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self.model = model
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        # What was made so far for weights and biases: layers may share them.
        self.changed: set[str] = set()
        for node in model.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.shapes = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info)
        }

    def layer(self, node: onnx.NodeProto) -> _Layer | None:
        """What is known of ``node``, or None where it has to stay as it is."""
        weights = self._eight_bits(node.input[1])
        bias = self._eight_bits(node.input[2]) if len(node.input) > 2 else None
        if weights is None or (bias is None and len(node.input) > 2):
            return None
        block = tuple(self.stored[weights.input[0]].dims[2:])
        size = self.shapes.get(node.input[0], ())[2:]
        users = self.users.get(node.output[0], [])
        if (
            not _has_blocks(node, block)
            or len(size) != len(block)
            or not all(size)
            # Else values between the layers would not be in eight bits.
            or [user.op_type for user in users] != ["QuantizeLinear"]
            or self.makers[node.input[0]].op_type != "DequantizeLinear"
        ):
            return None
        return _Layer(node, block, size, weights, bias)

    def _eight_bits(self, name: str) -> onnx.NodeProto | None:
        """The node that makes floats of stored integers, where ``name`` is made so."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        return maker if all(one in self.stored for one in maker.input) else None

    def plain(self, layer: _Layer) -> list[onnx.NodeProto]:
        """The nodes that say the same: a convolution, and what spreads its outputs."""
        from onnx import helper

        node, places = layer.node, prod(layer.block)
        axes = range(2, 2 + len(layer.block))

        def places_first(weights: NDArray[Any]) -> NDArray[Any]:
            """(in, out, block) to (block and out, in, 1)."""
            turned = weights.transpose(*axes, 1, 0)
            return turned.reshape(-1, len(weights), *[1] * len(layer.block))

        def repeated(values: NDArray[Any]) -> NDArray[Any]:
            return np.tile(values, places)

        nodes: list[onnx.NodeProto] = []
        inputs = [node.input[0], self._with(layer.weights, places_first, places, nodes)]
        if layer.bias is not None:
            inputs.append(self._with(layer.bias, repeated, places, nodes))
        flat = f"{node.output[0]}.places"
        ones = [1] * len(layer.block)
        nodes.append(helper.make_node("Conv", inputs, [flat], name=node.name, kernel_shape=ones))
        return [*nodes, *self._spread(layer, flat)]

    def _with(
        self,
        maker: onnx.NodeProto,
        change: Callable[[NDArray[Any]], NDArray[Any]],
        places: int,
        nodes: list[onnx.NodeProto],
    ) -> str:
        """The name of what ``maker`` makes when its stored integers are changed by ``change`` and
        scales and zeros belong to ``places`` times as many channels, which come first; a new maker
        goes to ``nodes``.
        """
        from onnx import helper, numpy_helper

        output = f"{maker.output[0]}.places"
        if output in self.changed:
            return output
        stored, scale, *zeros = (numpy_helper.to_array(self.stored[one]) for one in maker.input)
        # A single zero may stand for the scales of many channels.
        channels = [scale, *(np.resize(zero, scale.shape) for zero in zeros)]
        found = [change(stored), *(np.tile(one, places) if one.ndim else one for one in channels)]
        names = [f"{output}.{number}" for number in range(len(found))]
        for name, values in zip(names, found, strict=True):
            whole = np.asarray(values, order="C")
            self.model.graph.initializer.append(numpy_helper.from_array(whole, name))
        own = f"{maker.name}/places"
        nodes.append(helper.make_node("DequantizeLinear", names, [output], name=own, axis=0))
        self.changed.add(output)
        return output

    def _spread(self, layer: _Layer, flat: str) -> list[onnx.NodeProto]:
        """From the channels of every voxel, places first, to its block of voxels."""
        axes, output = len(layer.block), layer.node.output[0]
        channels = self.stored[layer.weights.input[0]].dims[1]
        # The last axis of a block stays with the channels: they lie beside each other already.
        apart = (*layer.block[:-1], layer.block[-1] * channels)
        size = [length * step for length, step in zip(layer.size, layer.block, strict=True)]
        # Each axis of the block to behind its own axis of the image.
        woven = [axis for k in range(axes) for axis in (1 + k, 1 + axes + k)]
        steps = (
            ("Transpose", [0, *range(2, 2 + axes), 1]),
            ("Reshape", [0, *layer.size, *apart]),
            ("Transpose", [0, *woven]),
            ("Reshape", [0, *size, channels]),
            ("Transpose", [0, 1 + axes, *range(1, 1 + axes)]),
        )
        nodes, name = [], flat
        for number, (kind, numbers) in enumerate(steps, 1):
            following = output if number == len(steps) else f"{flat}.{number}"
            nodes.append(self._step(kind, numbers, name, following, layer.node.name))
            name = following
        return nodes

    def _step(
        self, kind: str, numbers: Sequence[int], source: str, target: str, layer: str
    ) -> onnx.NodeProto:
        from onnx import helper, numpy_helper

        own = f"{layer}/{target}"
        if kind == "Transpose":
            return helper.make_node(kind, [source], [target], name=own, perm=list(numbers))
        shape = numpy_helper.from_array(np.array(numbers, np.int64), f"{target}.shape")
        self.model.graph.initializer.append(shape)
        return helper.make_node(kind, [source, shape.name], [target], name=own)

    def drop_unused(self) -> None:
        """Leave out stored tensors, and what made floats of them, that nobody uses any more."""
        graph = self.model.graph
        asked = {value.name for value in graph.output}
        asked |= {name for node in graph.node for name in node.input}
        nodes = [node for node in graph.node if asked & set(node.output)]
        used = {value.name for value in graph.output}
        used |= {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in graph.initializer if tensor.name in used]
        values = [v for v in graph.value_info if v.name in used]
        for field, kept in (("node", nodes), ("initializer", tensors), ("value_info", values)):
            del getattr(graph, field)[:]
            getattr(graph, field).extend(kept)


def _has_blocks(node: onnx.NodeProto, block: Sequence[int]) -> bool:
    """Whether every value makes a block of its own: no overlap, no gap, nothing cut off."""
    from onnx import helper

    found: Mapping[str, Any] = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    ones = [1] * len(block)
    return (
        list(found.get("strides", ones)) == list(block)
        and list(found.get("dilations", ones)) == ones
        and not any(found.get("pads", ()))
        and not any(found.get("output_padding", ()))
        and "output_shape" not in found
        and found.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and found.get("group", 1) == 1
    )
