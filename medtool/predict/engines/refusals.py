"""Refusals of engines: not installed, a file that one cannot run, an operator that one lacks."""

from __future__ import annotations

import re
from pathlib import Path

from medtool.core.errors import CheckpointError

# How each engine names an operator that it lacks, and where it says so the node.
PATTERNS = (
    # ONNX Runtime: one without an implementation here, one that nobody registered.
    re.compile(
        r"implementation for (?P<operator>[\w.]+)\(\d+\)(?: node with name '(?P<node>[^']*)')"
    ),
    re.compile(r'In Node, \("(?P<node>[^"]*)", (?P<operator>[\w.]+),.*No Op registered'),
    re.compile(r"Fatal error: (?P<operator>[\w.:]+)\(-?\d+\) is not a registered function"),
    # OpenVINO.
    re.compile(r"No conversion rule found for operations: (?P<operator>[\w.]+)"),
    re.compile(r"not support the following ONNX operations: (?P<operator>[\w.]+)"),
    # LiteRT.
    re.compile(r"unresolved custom op: (?P<operator>[\w.:]+\w)"),
    re.compile(r"Didn't find op for builtin opcode '(?P<operator>\w+)'"),
)
LONGEST_MESSAGE = 300
OTHER_ENGINES = (
    "let another engine answer ('medtool infer --engine'); 'medtool doctor' lists those that are "
    "here."
)


def lacking_operator(
    file: Path, engine: str, message: str, layer: str = "", how: str = OTHER_ENGINES
) -> CheckpointError | None:
    """The refusal of a file with an operator that the engine lacks; None for other messages.

    ``layer`` is the one, where the caller knows it; ``how`` says how to go on.
    """
    for pattern in PATTERNS:
        found = pattern.search(message)
        if found is None:
            continue
        parts = found.groupdict()
        node = layer or parts.get("node") or _layer_of(file, parts["operator"])
        return CheckpointError(
            f"The engine '{engine}' cannot run an operator of this model.",
            where=str(file),
            met=f"operator {parts['operator']}" + (f" of the layer {node}" if node else ""),
            how=how,
        )
    return None


def _layer_of(file: Path, operator: str) -> str:
    """The first node of an ONNX file with that operator, where the package onnx is there."""
    if file.suffix != ".onnx":
        return ""
    try:
        import onnx
    except ImportError:
        return ""
    wanted = operator.rpartition(".")[2].rpartition(":")[2]
    graph = onnx.load(file, load_external_data=False).graph
    return next((str(node.name) for node in graph.node if node.op_type == wanted), "")


def cannot_run(file: Path, engine: str, message: str) -> CheckpointError:
    """The refusal of a file that an engine cannot read or run."""
    told = " ".join(message.split())
    return CheckpointError(
        f"The engine '{engine}' cannot run this file.",
        where=str(file),
        met=told[:LONGEST_MESSAGE] + ("..." if len(told) > LONGEST_MESSAGE else ""),
        wanted="a model file that 'medtool optimize' wrote",
    )
