"""OpenVINO: fastest on processors of Intel and AMD. Reads its own .xml and ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.predict.engines.contract import OPENVINO
from medtool.predict.engines.refusals import cannot_run, lacking_operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Where a processor has bfloat16 units it computes in them unless told not to.
ARITHMETIC: Mapping[str, tuple[str, str]] = {
    "32": ("f32", "float32"),
    "bf16": ("bf16", "bfloat16"),
    "16": ("f16", "float16"),
}


class OpenVinoEngine:
    """A model compiled for this processor. Raises CheckpointError for a file that it cannot run."""

    name = OPENVINO

    def __init__(self, file: Path, *, threads: int, precision: str = "32") -> None:
        from medtool.predict.engines.openvino_import import openvino_core

        hint, self.arithmetic = ARITHMETIC[precision]
        self.threads = threads
        self._file = file
        try:
            core = openvino_core()
            model = core.read_model(file)
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "INFERENCE_NUM_THREADS": threads,
                    "PERFORMANCE_HINT": "LATENCY",
                },
            )
        except RuntimeError as error:
            text = str(error)
            raise lacking_operator(file, OPENVINO, text) or cannot_run(
                file, OPENVINO, text
            ) from error
        self._request = compiled.create_infer_request()
        self._types = {
            one.get_any_name(): one.get_element_type().to_dtype() for one in compiled.inputs
        }
        self._shapes = {one.get_any_name(): one.get_partial_shape() for one in compiled.inputs}
        self._outputs = {one.get_any_name(): one for one in compiled.outputs}
        self.input_names = tuple(self._types)
        self.output_names = tuple(self._outputs)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs by name, all or those asked for, of inputs by name.

        Raises CheckpointError where it cannot answer such inputs.
        """
        asked = self.output_names if outputs is None else outputs
        fed = {
            name: np.ascontiguousarray(inputs[name], dtype=self._types[name])
            for name in self.input_names
        }
        for name, array in fed.items():
            self._require_shape(name, array)
        try:
            self._request.infer(fed)
        except RuntimeError as error:
            raise cannot_run(self._file, OPENVINO, str(error)) from error
        # Its memory is used again by the next call.
        return {
            name: np.array(self._request.get_tensor(self._outputs[name]).data) for name in asked
        }

    def _require_shape(self, name: str, array: NDArray[Any]) -> None:
        """OpenVINO passes over an input of another shape and answers for the one before, without a
        word.
        """
        wanted = self._shapes[name]
        fits = wanted.rank.is_dynamic or (
            len(wanted) == array.ndim
            and all(
                axis.is_dynamic or axis.get_length() == size
                for axis, size in zip(wanted, array.shape, strict=True)
            )
        )
        if not fits:
            met = f"{name} of the shape {list(array.shape)}, not {wanted}"
            raise cannot_run(self._file, OPENVINO, met)
