"""Convolutions whose weights the quantiser of LiteRT cannot take whole, split along their outputs.

ai-edge-quantizer 0.10 works off weights of more than 32 MiB of float32 in parts, and then mixes up
the scales of the channels. Several convolutions of fewer outputs, one behind another, are the same
in float; a batch norm behind the layer is multiplied into its weights first, as the converter would
do it itself.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, fx

from medtool.core.errors import CheckpointError
from medtool.optimize.export import NETWORK_PREFIX

# Bytes of float32 that the quantiser takes whole.
LARGEST_WEIGHT_BYTES = 32 * 1024 * 1024
FLOAT_BYTES = 4
# In these operators of torch the axis of a weight's outputs; transposed ones have theirs second.
OUTPUT_AXES: Mapping[str, int] = {
    "aten.conv1d.default": 0,
    "aten.conv2d.default": 0,
    "aten.conv3d.default": 0,
    "aten.conv_transpose1d.default": 1,
    "aten.conv_transpose2d.input": 1,
    "aten.conv_transpose3d.input": 1,
    "aten.linear.default": 0,
}
BATCH_NORM = "aten.batch_norm.default"
# Activations of each value by itself: they stay right behind each part, where they cost nothing.
ACTIVATIONS = ("aten.relu.default", "aten.relu_.default")
# Which argument of each operator says how many groups there are.
GROUPS_ARGUMENT = 6
# A tensor of two axes goes through the quantiser at any size.
FLAT = 2
# Axes of the weights of a convolution in three dimensions.
VOLUME = 5


@dataclass(frozen=True)
class WeightedLayer:
    """An operator with weights in a traced network, and the layer that it is."""

    node: fx.Node
    parameter: str
    name: str
    axis: int
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Of its weights in float32."""
        return prod(self.shape) * FLOAT_BYTES


def weighted_layers(traced: fx.GraphModule) -> list[WeightedLayer]:
    """Layers with weights in the order of the graph, named as in the checkpoint."""
    found = []
    for node in traced.graph.nodes:
        axis = OUTPUT_AXES.get(str(node.target)) if node.op == "call_function" else None
        if axis is None or node.args[1].op != "get_attr":
            continue
        parameter = str(node.args[1].target)
        weights = _tensor(traced, parameter)
        name = parameter.rpartition(".")[0].removeprefix(NETWORK_PREFIX)
        found.append(WeightedLayer(node, parameter, name, axis, tuple(weights.shape)))
    return found


def require_flat(traced: fx.GraphModule) -> None:
    """Raises CheckpointError that names the first layer with volumes: LiteRT's runtime has none.

    The converter takes them, into an operator that no interpreter runs.
    """
    for layer in weighted_layers(traced):
        if len(layer.shape) == VOLUME:
            raise CheckpointError(
                "LiteRT lacks an operator of this network.",
                met=f"{layer.name}: a convolution in three dimensions",
                wanted="networks that answer slices",
                how="leave 'litert' out of the formats; ONNX Runtime and OpenVINO run this model.",
            )


def split_large(
    traced: fx.GraphModule, *, largest_bytes: int = LARGEST_WEIGHT_BYTES
) -> dict[str, int]:
    """Split, in place, layers of more than ``largest_bytes``; names and how many parts each became.

    Raises CheckpointError that names a layer with groups, whose outputs do not all read the same.
    """
    made: dict[str, int] = {}
    for layer in weighted_layers(traced):
        if layer.size_bytes <= largest_bytes or len(layer.shape) <= FLAT:
            continue
        if len(layer.node.args) > GROUPS_ARGUMENT and layer.node.args[GROUPS_ARGUMENT] != 1:
            raise too_large(layer)
        _fold_batch_norm(traced, layer)
        made[layer.name] = _split(traced, layer, largest_bytes)
    if made:
        traced.graph.eliminate_dead_code()
        traced.delete_all_unused_submodules()
        traced.recompile()
    return made


def too_large(layer: WeightedLayer) -> CheckpointError:
    """The refusal of a layer that can be neither quantised nor split."""
    return CheckpointError(
        "A layer is too large for LiteRT's quantiser.",
        met=f"{layer.name}: weights of {layer.size_bytes / 2**20:.0f} MiB that cannot be split",
        wanted=f"at most {LARGEST_WEIGHT_BYTES // 2**20} MiB of float32",
        how="train or prune a narrower network, or take ONNX Runtime's INT8.",
    )


def _tensor(traced: fx.GraphModule, name: str) -> Tensor:
    found: Tensor = operator.attrgetter(name)(traced)
    return found


def _argument(traced: fx.GraphModule, node: fx.Node, number: int) -> Tensor | None:
    """A constant tensor that ``node`` takes; None where it takes none."""
    argument = node.args[number] if len(node.args) > number else None
    return _tensor(traced, str(argument.target)) if isinstance(argument, fx.Node) else None


@torch.no_grad()
def _fold_batch_norm(traced: fx.GraphModule, layer: WeightedLayer) -> None:
    """Multiply the batch norm behind ``layer``, if there is one, into its weights."""
    users = list(layer.node.users)
    if len(users) != 1 or str(users[0].target) != BATCH_NORM:
        return
    norm = users[0]
    scale, shift, mean, variance = (_argument(traced, norm, number) for number in range(1, 5))
    if mean is None or variance is None:
        return
    epsilon = float(norm.args[7])  # type: ignore[arg-type]
    weights = _tensor(traced, layer.parameter).double()
    factor = torch.rsqrt(variance.double() + epsilon)
    if scale is not None:
        factor = factor * scale.double()
    bias = _argument(traced, layer.node, 2)
    offset = -mean.double() if bias is None else bias.double() - mean.double()
    offset = offset * factor
    if shift is not None:
        offset = offset + shift.double()
    shape = [1] * weights.ndim
    shape[layer.axis] = -1
    _set(traced, layer, (weights * factor.reshape(shape)).float(), offset.float())
    norm.replace_all_uses_with(layer.node)
    traced.graph.erase_node(norm)


def _set(traced: fx.GraphModule, layer: WeightedLayer, weights: Tensor, bias: Tensor) -> None:
    """Let ``layer`` have other weights and a bias."""
    arguments: list[Any] = list(layer.node.args)
    arguments += [None] * (3 - len(arguments))
    with traced.graph.inserting_before(layer.node):
        for number, (name, values) in enumerate((("weight", weights), ("bias", bias)), start=1):
            arguments[number] = _constant(traced, layer, f"folded_{name}", values)
    layer.node.args = tuple(arguments)


def _constant(traced: fx.GraphModule, layer: WeightedLayer, name: str, values: Tensor) -> fx.Node:
    """A node that gives a new constant of the layer's own module."""
    owner, _, _ = layer.parameter.rpartition(".")
    traced.get_submodule(owner).register_buffer(name, values.contiguous())
    return traced.graph.get_attr(f"{owner}.{name}" if owner else name)


@torch.no_grad()
def _split(traced: fx.GraphModule, layer: WeightedLayer, largest_bytes: int) -> int:
    """Several layers of fewer outputs, brought together, in the place of ``layer``."""
    node = layer.node
    users = list(node.users)
    activated = len(users) == 1 and str(users[0].target) in ACTIVATIONS
    replaced = users[0] if activated else node
    weights, bias = _argument(traced, node, 1), _argument(traced, node, 2)
    if weights is None:
        raise too_large(layer)
    outputs = layer.shape[layer.axis]
    together = largest_bytes * outputs // layer.size_bytes
    if together < 1:
        raise too_large(layer)
    parts = ceil(outputs / together)
    pieces = torch.tensor_split(weights, parts, dim=layer.axis)
    biases = [None] * parts if bias is None else torch.tensor_split(bias, parts)
    made = []
    with traced.graph.inserting_before(node):
        for number, (piece, its_bias) in enumerate(zip(pieces, biases, strict=True)):
            own = f"part_{number}"
            arguments: list[Any] = [
                node.args[0],
                _constant(traced, layer, f"{own}_weight", piece),
                None if its_bias is None else _constant(traced, layer, f"{own}_bias", its_bias),
            ]
            part = traced.graph.call_function(node.target, (*arguments, *node.args[3:]))  # type: ignore[arg-type]
            if activated:
                part = traced.graph.call_function(torch.ops.aten.relu.default, (part,))
            made.append(part)
        joined = traced.graph.call_function(torch.ops.aten.cat.default, (made, 1))
    replaced.replace_all_uses_with(joined)
    for old in dict.fromkeys((replaced, node)):
        traced.graph.erase_node(old)
    return parts
