"""LiteRT (TensorFlow Lite): the engine of phones and tablets, fast in eight bits everywhere.

Its files have inputs of one size. Those of ours answer one image a call and name inputs and outputs
as the ONNX file does, channels before rows and columns as there; several images are asked one by
one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CheckpointError
from medtool.predict.engines.contract import LITERT
from medtool.predict.engines.refusals import cannot_run, lacking_operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Which node a message of its speaks of.
NODE_NUMBER = re.compile(r"Node number (\d+)")
STDERR = 2


class LitertEngine:
    """An interpreter with its kernels for processors (XNNPACK).

    Raises CheckpointError for a file that it cannot run.
    """

    name = LITERT

    def __init__(self, file: Path, *, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.threads = threads
        self._file = file
        self.arithmetic = "float32"
        try:
            with _no_chatter():
                self._interpreter: Any = Interpreter(model_path=str(file), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _refused(file, str(error)) from error
        signatures = self._interpreter.get_signature_list()
        if len(signatures) != 1:
            raise _refused(file, f"{len(signatures)} signatures, which name inputs and outputs")
        self._call = self._interpreter.get_signature_runner()
        self._inputs: Mapping[str, Any] = self._call.get_input_details()
        (names,) = signatures.values()
        self.input_names = tuple(names["inputs"])
        self.output_names = tuple(names["outputs"])

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs by name, all or those asked for, of inputs by name.

        Raises CheckpointError where it cannot answer such inputs.
        """
        fed = {
            name: np.ascontiguousarray(inputs[name], dtype=self._inputs[name]["dtype"])
            for name in self.input_names
        }
        try:
            answers = [self._call(**one) for one in self._calls(fed)]
        except (ValueError, RuntimeError) as error:
            raise cannot_run(self._file, LITERT, str(error)) from error
        asked = self.output_names if outputs is None else outputs
        if len(answers) == 1:
            return {name: answers[0][name] for name in asked}
        return {name: np.concatenate([answer[name] for answer in answers]) for name in asked}

    def _calls(self, fed: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        """What the file takes at a time: everything, or one image where there are more."""
        counts = {len(array) for array in fed.values()}
        single = all(self._inputs[name]["shape"][0] == 1 for name in fed)
        if not single or len(counts) != 1:
            yield dict(fed)
            return
        for number in range(counts.pop()):
            yield {name: array[number : number + 1] for name, array in fed.items()}


@contextmanager
def _no_chatter() -> Iterator[None]:
    """It writes to the terminal that it found its own kernels, and has no switch for that."""
    kept = os.dup(STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(nowhere)
        os.close(kept)


def _refused(file: Path, message: str) -> CheckpointError:
    found = NODE_NUMBER.search(message)
    layer = _layer_of(file, int(found[1])) if found else ""
    return lacking_operator(file, LITERT, message, layer) or cannot_run(file, LITERT, message)


def _layer_of(file: Path, number: int) -> str:
    """What the node ``number`` of the file makes: nodes of these files have no names themselves."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(file.read_bytes()).Subgraphs(0)
    made = graph.Operators(number).Outputs(0)
    return str(graph.Tensors(made).Name().decode())
