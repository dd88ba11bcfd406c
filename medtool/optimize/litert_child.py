"""Converts a traced network to .tflite files: run by the Python that has the converter.

It is given the path of a job (JSON) and imports nothing of medtool, which is not installed there.
Beside the files it leaves what it found as JSON. See ``litert.py``, which writes the job.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("torch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")
# Operators with weights: what costs arithmetic, and what can be left in float by name.
WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "FULLY_CONNECTED",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
)
# Where each of them has its weights.
WEIGHTS_INPUT = 1
# How close the weights of a layer are to those of an operator, relative to the largest, to be the
# same: a batch norm behind the layer was multiplied into them.
SAME = 1e-3


class Graph:
    """A .tflite file's operators, and what each reads and makes."""

    def __init__(self, file: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
        names = {
            number: name
            for name, number in vars(schema.BuiltinOperator).items()
            if isinstance(number, int)
        }
        self.graph = model.subgraphs[0]
        self.buffers = model.buffers
        self.kinds = [
            names[
                max(
                    model.operatorCodes[one.opcodeIndex].builtinCode,
                    model.operatorCodes[one.opcodeIndex].deprecatedBuiltinCode,
                )
            ]
            for one in self.graph.operators
        ]

    def weights(self, number: int) -> Any:
        """Values of the weights of an operator; None where they are no constant."""
        if self.kinds[number] not in WEIGHTED:
            return None
        tensor = self.graph.tensors[self.graph.operators[number].inputs[WEIGHTS_INPUT]]
        data = self.buffers[tensor.buffer].data
        return None if data is None else np.asarray(data).view(np.float32).reshape(tensor.shape)

    def scope(self, number: int) -> str:
        """A pattern that only this operator fits, as the quantiser looks for it: by its results."""
        made = self.graph.operators[number].outputs
        return "^" + "".join(re.escape(self._name(one)) + ";" for one in made) + "?$"

    def _name(self, tensor: int) -> str:
        name = self.graph.tensors[tensor].name
        return name.decode() if isinstance(name, bytes) else str(name)

    def ends(self) -> set[int]:
        """Operators before the first layer with weights, those after the last, and the last."""
        return self._reached(list(self.graph.inputs), forward=True, last=False) | self._reached(
            list(self.graph.outputs), forward=False, last=True
        )

    def _reached(self, tensors: list[int], *, forward: bool, last: bool) -> set[int]:
        found: set[int] = set()
        waiting, seen = tensors, set()
        while waiting:
            tensor = waiting.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            for number, one in enumerate(self.graph.operators):
                near, far = (one.inputs, one.outputs) if forward else (one.outputs, one.inputs)
                if tensor not in near:
                    continue
                weighted = self.kinds[number] in WEIGHTED
                if last or not weighted:
                    found.add(number)
                if not weighted:
                    waiting += [int(other) for other in far]
        return found


def fingerprint(weights: Any) -> Any:
    """The first output's weights, sorted by size and over their largest: what no layout changes."""
    sizes = np.sort(np.abs(np.asarray(weights, np.float32)).ravel())
    return sizes / max(float(sizes[-1]), 1e-30)


def first_output(kind: str, weights: Any) -> Any:
    """Weights of an operator that make its first output."""
    return weights[..., 0] if kind == "DEPTHWISE_CONV_2D" else weights[0]


def layers_of(graph: Graph, program: Any, layers: dict[str, list[Any]]) -> dict[int, str]:
    """Which layer each operator with weights is; ``layers`` has name and output axis of each
    parameter.
    """
    known = []
    for parameter, (name, axis) in layers.items():
        tensor = program.state_dict[parameter].detach().numpy()
        known.append((name, tensor.size, fingerprint(np.take(tensor, 0, axis))))
    found: dict[int, str] = {}
    for number, kind in enumerate(graph.kinds):
        weights = graph.weights(number)
        if weights is None:
            continue
        own = fingerprint(first_output(kind, weights))
        for place, (name, size, other) in enumerate(known):
            if size == weights.size and len(own) == len(other) and near(own, other):
                found[number] = name
                del known[place]
                break
    return found


def near(own: Any, other: Any) -> bool:
    """Whether two fingerprints are one layer's."""
    return bool(np.abs(own - other).max() < SAME)


class Inputs:
    """Calibration inputs, read one at a time, as often as the quantiser wants."""

    def __init__(self, folders: list[str], names: list[str]) -> None:
        self.folders = folders
        self.names = names

    def __len__(self) -> int:
        return len(self.folders)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for folder in self.folders:
            yield {name: np.load(Path(folder) / f"{name}.npy") for name in self.names}


def convert(job: dict[str, Any]) -> Any:
    """The float file; gives the program that it was made of."""
    import litert_torch
    import torch

    program = torch.export.load(job["program"])
    traced: Any = program.module()

    class Exported(torch.nn.Module):
        """Inputs and outputs by name: the converter then names them so in the file."""

        def __init__(self) -> None:
            super().__init__()
            self.traced = traced

        def forward(self, **inputs: Any) -> dict[str, Any]:
            found = self.traced(*(inputs[name] for name in job["inputs"]))
            return dict(zip(job["outputs"], found, strict=True))

    # The file names tensors after the class.
    Exported.__module__, Exported.__qualname__ = "medtool", "Network"
    example = {
        name: torch.from_numpy(np.load(Path(job["example"]) / f"{name}.npy"))
        for name in job["inputs"]
    }
    litert_torch.convert(Exported(), sample_kwargs=example).export(job["float"])
    return program


def quantise(job: dict[str, Any], graph: Graph, floats: set[int]) -> None:
    """The file in eight bits: weights a scale a channel, activations a scale a tensor."""
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    recipe = recipe_manager.RecipeManager()
    every = TFLOperationName.ALL_SUPPORTED
    recipe.add_static_config(".*", every, activation_num_bits=8, weight_num_bits=8)
    # What goes in and comes out is float, as in the ONNX file.
    for border in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipe.add_quantization_config(".*", border, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for number in sorted(floats):
        recipe.add_quantization_config(
            graph.scope(number), every, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    calibrator = Calibrator(
        job["float"], num_threads=job["threads"], qsv_update_func=min_max_update
    )
    (signature,) = calibrator.get_signature_list()
    calibrator.calibrate({signature: Inputs(job["calibration"], job["inputs"])}, recipe)
    made = quantizer.Quantizer(job["float"], recipe.get_quantization_recipe())
    found = made.quantize(calibrator.get_model_qsvs(), enable_progress_report=False)
    Path(job["int8"]).write_bytes(bytes(found.quantized_model))


def stay_offline() -> None:
    """Packages of the converter may ask for updates: nobody is told that somebody converts."""
    import socket

    def refuse(*_: object) -> None:
        raise OSError("the converter works offline")

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, refuse)


def say(step: str) -> None:
    """One line for whoever waits."""
    sys.stdout.write(f"step: {step}\n")
    sys.stdout.flush()


def main(path: str) -> None:
    """Do the job."""
    stay_offline()
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    say("convert")
    program = convert(job)
    graph = Graph(Path(job["float"]))
    names = layers_of(graph, program, job["layers"])
    found: dict[str, Any] = {
        "versions": {package: version(package) for package in PACKAGES},
        "layers": len(names),
        "unnamed": sum(kind in WEIGHTED for kind in graph.kinds) - len(names),
    }
    if job["int8"]:
        say("quantise")
        ends = graph.ends()
        floats = ends | {n for n, name in names.items() if name in job["float_layers"]}
        quantise(job, graph, floats)
        kept = dict.fromkeys(names[number] for number in sorted(floats) if number in names)
        found["float_layers"] = list(kept)
    Path(job["found"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
