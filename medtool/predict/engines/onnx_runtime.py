"""ONNX files by ONNX Runtime: the engine that runs everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import MachineError
from medtool.predict.engines.contract import INT8, ONNX_RUNTIME
from medtool.predict.engines.refusals import cannot_run, lacking_operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What numbers a graph's input takes.
TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
# Of its log only errors: what it warns of concerns those who write graphs.
ERRORS_ONLY = 3


# What computes, as ONNX Runtime calls it; on a GPU the first that is there is asked first.
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
GPU = (TENSORRT, CUDA)
# CUDA would compute float32 with fewer bits, so that answers would depend on the machine.
FULL_FLOAT32 = {"use_tf32": 0}
GPU_BUILD = "pip install onnxruntime-gpu in place of onnxruntime, or "


def providers_for(
    device: str, available: Sequence[str], *, arithmetic: str = "", where: str = ""
) -> list[str]:
    """What is to compute on ``device`` (auto, cpu, cuda), the processor behind all else.

    ``where`` is the file, for the refusal. TensorRT is left out for files in eight bits: it takes
    activations only whose zero is 0, which these are not. Raises MachineError where ONNX Runtime
    was not built for the device that was asked for.
    """
    possible = (CUDA,) if arithmetic == INT8 else GPU
    of_gpu = [name for name in possible if name in available]
    asked = device.partition(":")[0]
    if asked not in ("auto", "cpu") and not (asked == "cuda" and of_gpu):
        raise MachineError(
            "This ONNX Runtime was not built for this device.",
            where=where,
            met=f"--device {device}; {', '.join(available)}",
            wanted=" or ".join(possible) if asked == "cuda" else "--device auto, cpu or cuda",
            how=f"{GPU_BUILD if asked == 'cuda' else ''}use --device cpu.",
        )
    return [*of_gpu, CPU] if asked in ("auto", "cuda") else [CPU]


def require_built_for(device: str, *, arithmetic: str = "", where: str = "") -> None:
    """Raises MachineError as ``providers_for``, for the ONNX Runtime that is installed."""
    import onnxruntime

    providers_for(device, onnxruntime.get_available_providers(), arithmetic=arithmetic, where=where)


def with_options(providers: Sequence[str], device: str) -> list[str | tuple[str, dict[str, int]]]:
    """``providers`` as a session takes them: of several GPUs the one that ``device`` names."""
    number = device.partition(":")[2]
    own = {"device_id": int(number)} if number.isdecimal() else {}
    return [
        (name, own | (FULL_FLOAT32 if name == CUDA else {})) if name in GPU else name
        for name in providers
    ]


class OnnxRuntimeEngine:
    """A session of ONNX Runtime. Raises CheckpointError for a file that it cannot run, MachineError
    where the device that was asked for is not ready.
    """

    name = ONNX_RUNTIME

    def __init__(
        self, file: Path, *, threads: int, device: str = "cpu", arithmetic: str = ""
    ) -> None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        names = providers_for(device, available, arithmetic=arithmetic, where=str(file))
        providers = with_options(names, device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        self.threads = threads
        self.arithmetic = "float32"
        self._file = file
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # its errors have no common kind of their own
            text = str(error)
            raise lacking_operator(file, ONNX_RUNTIME, text) or cannot_run(
                file, ONNX_RUNTIME, text
            ) from error
        # Where a GPU is not ready it goes on by the processor, and says so in its log alone.
        self.device = "cpu" if self._session.get_providers() == [CPU] else "cuda"
        if self.device == "cpu" and device not in ("auto", "cpu"):
            raise MachineError(
                "ONNX Runtime cannot compute on this device.",
                where=str(file),
                met=f"--device {device}; it took {', '.join(self._session.get_providers())}",
                wanted=" or ".join(GPU),
                how="see that the driver and the libraries of CUDA fit onnxruntime-gpu, or use "
                "--device cpu.",
            )
        self._types = {one.name: TYPES[one.type] for one in self._session.get_inputs()}
        self.input_names = tuple(self._types)
        self.output_names = tuple(one.name for one in self._session.get_outputs())
        # Else what nobody asked for is computed too.
        self._only_asked = onnxruntime.RunOptions()
        self._only_asked.only_execute_path_to_fetches = True
        self._only_asked.log_severity_level = ERRORS_ONLY

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs by name, all or those asked for, of inputs by name.

        Raises CheckpointError where it cannot answer such inputs.
        """
        asked = list(self.output_names if outputs is None else outputs)
        fed = {
            name: np.ascontiguousarray(inputs[name], dtype=self._types[name])
            for name in self.input_names
        }
        try:
            found = self._session.run(asked, fed, self._only_asked)
        except Exception as error:  # as above
            raise cannot_run(self._file, ONNX_RUNTIME, str(error)) from error
        return dict(zip(asked, found, strict=True))
