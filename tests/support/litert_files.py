"""Tiny .tflite files, written with the schema that comes with the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

MAGIC = b"TFL3"
VERSION = 3


class TinyGraph:
    """A graph of a few float tensors and operators, built step by step and written."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.codes: list[Any] = []
        self.operators: list[Any] = []

    def tensor(self, name: str, shape: Sequence[int], values: Any = None) -> int:
        """A tensor, constant where it has ``values``; its number."""
        one = schema.TensorT()
        one.name, one.shape, one.type = name, list(shape), schema.TensorType.FLOAT32
        one.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            raw = np.asarray(values, np.float32).reshape(shape).tobytes()
            buffer.data = np.frombuffer(raw, np.uint8)
            self.buffers.append(buffer)
            one.buffer = len(self.buffers) - 1
        self.tensors.append(one)
        return len(self.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        output: int,
        *,
        options: Any = None,
        options_type: int = 0,
        custom: str = "",
    ) -> None:
        """An operator that makes ``output``; with ``custom`` one of that name."""
        kind = schema.OperatorCodeT()
        kind.builtinCode, kind.version = code, 1
        kind.deprecatedBuiltinCode = min(code, 127)
        kind.customCode = custom or None
        self.codes.append(kind)
        one = schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = len(self.codes) - 1, list(inputs), [output]
        one.builtinOptionsType, one.builtinOptions = options_type, options
        self.operators.append(one)

    def write(self, file: Path, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Path:
        """The graph as a file with inputs and outputs of those names."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = _named(inputs), _named(outputs)
        model = schema.ModelT()
        model.version, model.operatorCodes, model.buffers = VERSION, self.codes, self.buffers
        model.subgraphs, model.signatureDefs = [graph], [signature]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), MAGIC)
        file.write_bytes(bytes(builder.Output()))
        return file


def _named(numbers: Mapping[str, int]) -> list[Any]:
    found = []
    for name, number in numbers.items():
        one = schema.TensorMapT()
        one.name, one.tensorIndex = name, number
        found.append(one)
    return found


def write_sum_and_sigmoid(file: Path, *, custom: str = "") -> Path:
    """image (1, 1, 2, 3) to logits = image + 0..5 and probabilities = sigmoid of them.

    With ``custom`` the second is an operator of that name, which nobody has.
    """
    graph, shape = TinyGraph(), (1, 1, 2, 3)
    image = graph.tensor("image", shape)
    offsets = graph.tensor("offsets", shape, np.arange(6))
    logits, chances = graph.tensor("head.conv", shape), graph.tensor("chances", shape)
    graph.operator(
        schema.BuiltinOperator.ADD,
        [image, offsets],
        logits,
        options=schema.AddOptionsT(),
        options_type=schema.BuiltinOptions.AddOptions,
    )
    code = schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.LOGISTIC
    graph.operator(code, [logits], chances, custom=custom)
    return graph.write(file, {"image": image}, {"logits": logits, "probabilities": chances})
