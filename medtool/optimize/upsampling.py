"""Transposed convolutions of an eight-bit file as plain ones, whose outputs are then spread out.

Where the kernel is as wide as the stride, every value of the input makes a block of outputs of its
own: a convolution of one voxel with an output channel for each place of the block says the same.
ONNX Runtime computes convolutions in eight bits and transposed ones in float, for which it makes
floats of inputs and weights at every call. The axis of channels is last where blocks are spread,
as ONNX Runtime's convolutions in eight bits want it: its own transpositions cancel with these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.optimize.eight_bit_graph import EightBitGraph, attributes_of

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def spread_upsampling(model: onnx.ModelProto) -> int:
    """Change ``model`` in place; gives how many transposed convolutions it no longer has.

    Left as they are: those in float, with groups, with blocks that overlap or have gaps, and those
    whose input has no fixed size but for the number of images.
    """
    return EightBitGraph(model).change("ConvTranspose", _plain)


@dataclass(frozen=True)
class _Layer:
    """A transposed convolution that can be spread: ``size`` is that of its input, ``block`` what
    one value of it becomes. ``makers`` make weights, and a bias where there is one.
    """

    makers: Sequence[onnx.NodeProto]
    block: tuple[int, ...]
    size: tuple[int, ...]
    channels: int


def _layer(graph: EightBitGraph, node: onnx.NodeProto) -> _Layer | None:
    """What is known of ``node``, or None where it has to stay as it is."""
    makers = graph.weights_of(node)
    if makers is None:
        return None
    _, channels, *block = graph.stored[makers[0].input[0]].dims
    size = graph.shapes.get(node.input[0], ())[2:]
    if not _has_blocks(node, block) or len(size) != len(block) or not all(size):
        return None
    return _Layer(makers, tuple(block), size, channels)


def _plain(graph: EightBitGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The nodes that say the same: a convolution, and what spreads its outputs."""
    from onnx import helper

    layer = _layer(graph, node)
    if layer is None:
        return None
    places = prod(layer.block)
    axes = range(2, 2 + len(layer.block))

    def places_first(weights: NDArray[Any]) -> NDArray[Any]:
        """(in, out, block) to (block and out, in, 1)."""
        turned = weights.transpose(*axes, 1, 0)
        return turned.reshape(-1, len(weights), *[1] * len(layer.block))

    def repeated(values: NDArray[Any]) -> NDArray[Any]:
        return np.tile(values, places)

    nodes: list[onnx.NodeProto] = []
    changes = (places_first, repeated)
    stored = [
        graph.repeated(maker, change, places, nodes, way=f"places{places}")
        for maker, change in zip(layer.makers, changes, strict=False)
    ]
    flat = f"{node.output[0]}.places"
    ones = [1] * len(layer.block)
    inputs = [node.input[0], *stored]
    nodes.append(helper.make_node("Conv", inputs, [flat], name=node.name, kernel_shape=ones))
    return [*nodes, *graph.rearranged(_spreading(layer), flat, node.output[0])]


def _spreading(layer: _Layer) -> list[tuple[str, Sequence[int]]]:
    """From the channels of every voxel, places first, to its block of voxels."""
    axes = len(layer.block)
    # The last axis of a block stays with the channels: they lie beside each other already.
    apart = (*layer.block[:-1], layer.block[-1] * layer.channels)
    size = [length * step for length, step in zip(layer.size, layer.block, strict=True)]
    # Each axis of the block to behind its own axis of the image.
    woven = [axis for k in range(axes) for axis in (1 + k, 1 + axes + k)]
    return [
        ("Transpose", [0, *range(2, 2 + axes), 1]),
        ("Reshape", [0, *layer.size, *apart]),
        ("Transpose", [0, *woven]),
        ("Reshape", [0, *size, layer.channels]),
        ("Transpose", [0, 1 + axes, *range(1, 1 + axes)]),
    ]


def _has_blocks(node: onnx.NodeProto, block: Sequence[int]) -> bool:
    """Whether every value makes a block of its own: no overlap, no gap, nothing cut off."""
    found = attributes_of(node)
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
