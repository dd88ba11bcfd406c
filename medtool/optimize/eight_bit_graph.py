"""An eight-bit model's graph, layers of which are written in other ways that say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Change: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]


class EightBitGraph:
    """Names of a model's graph: its stored tensors, and makers, users and shapes of values.

    A free axis has the size 0. ``makers`` and ``users`` are those of the model as it was given.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self.model = model
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        # What was made so far for weights and biases: layers may share them.
        self._changed: set[str] = set()
        for node in model.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.shapes = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info)
        }

    def change(
        self,
        kind: str,
        others_for: Callable[[EightBitGraph, onnx.NodeProto], Sequence[onnx.NodeProto] | None],
    ) -> int:
        """Put what ``others_for`` gives for a node of a ``kind`` in its place, unless it is None.

        Gives how many nodes were replaced.
        """
        nodes: list[onnx.NodeProto] = []
        count = 0
        for node in list(self.model.graph.node):
            others = others_for(self, node) if node.op_type == kind else None
            nodes.extend([node] if others is None else others)
            count += others is not None
        if count:
            del self.model.graph.node[:]
            self.model.graph.node.extend(nodes)
            self._drop_unused()
        return count

    def weights_of(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """What makes floats of the stored weights of a layer, and of its bias where it has one.

        None where these are not stored in eight bits, or a value before or behind the layer is not.
        """
        makers = [self._eight_bits(name) for name in node.input[1:]]
        before = self.makers.get(node.input[0])
        if before is None or before.op_type != "DequantizeLinear":
            return None
        if [user.op_type for user in self.users.get(node.output[0], [])] != ["QuantizeLinear"]:
            return None
        return None if None in makers or not makers else [one for one in makers if one is not None]

    def _eight_bits(self, name: str) -> onnx.NodeProto | None:
        """The node that makes floats of stored integers, where ``name`` is made so."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        return maker if all(one in self.stored for one in maker.input) else None

    def repeated(
        self,
        maker: onnx.NodeProto,
        change: Change,
        times: int,
        nodes: list[onnx.NodeProto],
        *,
        way: str,
    ) -> str:
        """The name of what ``maker`` makes when its stored integers are changed by ``change`` and
        scales and zeros belong to ``times`` as many channels, which come first; a new maker goes to
        ``nodes``. Layers that share weights share what is made of them in the same ``way``, which
        names everything that ``change`` depends on.
        """
        from onnx import helper, numpy_helper

        output = f"{maker.output[0]}.{way}"
        if output in self._changed:
            return output
        stored, scale, *zeros = (numpy_helper.to_array(self.stored[one]) for one in maker.input)
        # A single zero may stand for the scales of many channels.
        channels = [scale, *(np.resize(zero, scale.shape) for zero in zeros)]
        found = [change(stored), *(np.tile(one, times) if one.ndim else one for one in channels)]
        names = [f"{output}.{number}" for number in range(len(found))]
        for name, values in zip(names, found, strict=True):
            self.store(name, np.asarray(values, order="C"))
        own = f"{maker.name}/{way}"
        nodes.append(helper.make_node("DequantizeLinear", names, [output], name=own, axis=0))
        self._changed.add(output)
        return output

    def are_symmetric(self, maker: onnx.NodeProto) -> bool:
        """Whether a stored 0 is the number 0 in every channel of what ``maker`` makes."""
        from onnx import numpy_helper

        zeros = maker.input[2:]
        return not any(numpy_helper.to_array(self.stored[name]).any() for name in zeros)

    def store(self, name: str, values: NDArray[Any]) -> None:
        """Keep ``values`` in the model."""
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(values, name))

    def rearranged(
        self, steps: Sequence[tuple[str, Sequence[int]]], source: str, target: str
    ) -> list[onnx.NodeProto]:
        """Nodes that make ``target`` of ``source``, one for each of ``steps``.

        They are Transpose, with the axes in their new order, and Reshape, with sizes of which a 0
        keeps what was there.
        """
        from onnx import helper

        nodes, name = [], source
        for number, (kind, numbers) in enumerate(steps, 1):
            following = target if number == len(steps) else f"{target}.{number}"
            inputs, attributes = [name], dict[str, Any]()
            if kind == "Transpose":
                attributes["perm"] = list(numbers)
            else:
                inputs.append(f"{following}.shape")
                self.store(inputs[-1], np.array(numbers, np.int64))
            own = f"{following}/{kind}"
            nodes.append(helper.make_node(kind, inputs, [following], name=own, **attributes))
            name = following
        return nodes

    def _drop_unused(self) -> None:
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


def attributes_of(node: onnx.NodeProto) -> Mapping[str, Any]:
    """Values of a node's attributes by name."""
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}
