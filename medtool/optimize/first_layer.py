"""The first convolution of an eight-bit file, on neighbours along a row as channels.

An image has one channel, or few. ONNX Runtime gathers what a kernel sees value by value, a channel
beside the other, and multiplies by fours: of one channel it gathers bytes and multiplies noughts.
Neighbours along the last axis lie beside each other already, so they are taken for channels, and
the layer answers for several places at once: outputs of neighbouring places lie beside each other
too, as channels. Of one channel nothing is moved, and every number comes from the same sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.optimize.eight_bit_graph import EightBitGraph, attributes_of

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

# Wider layers fill the processor's units by themselves.
MOST_CHANNELS = 4
# Places that are answered at once: of two a kernel of seven sees three groups of four neighbours.
AT_ONCE = 2


def fold_first_layers(model: onnx.ModelProto) -> int:
    """Change ``model`` in place; gives how many convolutions see neighbours as channels.

    Those with few channels, a kernel over several neighbours and a stride; left as they are where a
    size is free but for the number of images, or does not go up in groups.
    """
    return EightBitGraph(model).change("Conv", _folded)


@dataclass(frozen=True)
class _Layer:
    """A convolution that can be folded: sizes are those of images without their channels.

    A row is divided into groups of ``group`` neighbours, of which the folded kernel sees
    ``kernel``; the first one begins ``before`` groups before the row, the last one ends ``behind``
    groups behind it. In the first group the kernel itself begins at neighbour number ``offset``.
    """

    makers: Sequence[onnx.NodeProto]
    size: tuple[int, ...]
    output_size: tuple[int, ...]
    channels: int
    outputs: int
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    group: int
    kernel: int
    before: int
    behind: int
    offset: int


def _layer(graph: EightBitGraph, node: onnx.NodeProto) -> _Layer | None:
    """What is known of ``node``, or None where it has to stay as it is."""
    makers = graph.weights_of(node)
    if makers is None:
        return None
    outputs, channels, *kernel = graph.stored[makers[0].input[0]].dims
    found = attributes_of(node)
    axes, width = len(kernel), kernel[-1]
    ones = [1] * axes
    strides = tuple(found.get("strides", ones))
    pads = tuple(found.get("pads", [0, 0] * axes))
    size = graph.shapes.get(node.input[0], ())[2:]
    output_size = graph.shapes.get(node.output[0], ())[2:]
    step = strides[-1]
    group = AT_ONCE * step
    if (
        channels > MOST_CHANNELS
        # Weights for what the kernel does not see are stored as 0.
        or not graph.are_symmetric(makers[0])
        or step == 1
        or width <= step
        or found.get("group", 1) != 1
        or list(found.get("dilations", ones)) != ones
        or found.get("auto_pad", b"NOTSET") != b"NOTSET"
        or not (len(size) == len(output_size) == axes and all(size) and all(output_size))
        or size[-1] % group
        or output_size[-1] % AT_ONCE
    ):
        return None
    # From the first neighbour that the first place sees, before the row where it is padded, to the
    # last one that the last place of a group sees.
    first, last = -pads[axes - 1], step * (AT_ONCE - 1) - pads[axes - 1] + width - 1
    before = -(first // group)
    groups = last // group + 1 + before
    behind = output_size[-1] // AT_ONCE - 1 + groups - size[-1] // group - before
    return _Layer(
        makers=makers,
        size=size,
        output_size=output_size,
        channels=channels,
        outputs=outputs,
        strides=strides,
        pads=pads,
        group=group,
        kernel=groups,
        before=before,
        behind=behind,
        offset=before * group + first,
    )


def _folded(graph: EightBitGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The nodes that say the same: groups as channels, the convolution, places in their row."""
    from onnx import helper

    layer = _layer(graph, node)
    if layer is None:
        return None
    axes = len(layer.size)

    def widened(weights: NDArray[Any]) -> NDArray[Any]:
        """(out, in, ..., width) to (place and out, neighbour and in, ..., groups)."""
        outputs, channels, *rows, width = weights.shape
        shape = (AT_ONCE, outputs, channels, *rows, layer.kernel * layer.group)
        wide = np.zeros(shape, weights.dtype)
        for place in range(AT_ONCE):
            begin = layer.offset + layer.strides[-1] * place
            wide[place, ..., begin : begin + width] = weights
        parted = wide.reshape(*shape[:-1], layer.kernel, layer.group)
        turned = np.moveaxis(parted, -1, 2)
        return turned.reshape(AT_ONCE * outputs, -1, *rows, layer.kernel)

    def repeated(values: NDArray[Any]) -> NDArray[Any]:
        return np.tile(values, AT_ONCE)

    last, first = [0, *range(2, 2 + axes), 1], [0, 1 + axes, *range(1, 1 + axes)]
    *rows, row = layer.size
    grouped = [0, *rows, row // layer.group, layer.group * layer.channels]
    # Values stay in eight bits on the way: they become floats behind it, as the layer wants them.
    floats = graph.makers[node.input[0]]
    inputs = [f"{node.output[0]}.groups", *floats.input[1:]]
    nodes = graph.rearranged(
        [("Transpose", last), ("Reshape", grouped), ("Transpose", first)],
        floats.input[0],
        inputs[0],
    )
    image, flat = f"{inputs[0]}.floats", f"{node.output[0]}.places"
    nodes.append(helper.make_node("DequantizeLinear", inputs, [image], name=f"{image}/linear"))
    way = f"from{layer.offset}.of{layer.kernel}x{layer.group}by{layer.strides[-1]}"
    stored = [
        graph.repeated(maker, change, AT_ONCE, nodes, way=way)
        for maker, change in zip(layer.makers, (widened, repeated), strict=False)
    ]
    *strides, _ = layer.strides
    attributes: dict[str, Any] = {
        "strides": [*strides, 1],
        "pads": [
            *layer.pads[: axes - 1], layer.before,
            *layer.pads[axes:-1], layer.behind,
        ],
    }  # fmt: skip
    nodes.append(helper.make_node("Conv", [image, *stored], [flat], name=node.name, **attributes))
    spread = [0, *layer.output_size, layer.outputs]
    steps = [("Transpose", last), ("Reshape", spread), ("Transpose", first)]
    return [*nodes, *graph.rearranged(steps, flat, node.output[0])]
