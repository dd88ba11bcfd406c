"""Engines that run model files: ONNX Runtime, OpenVINO, LiteRT; PyTorch for comparison.

torch is imported in ``pytorch`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medtool.core.errors import MachineError, UsageError
from medtool.data.machine import usable_cores
from medtool.predict.engines.contract import LITERT, ONNX_RUNTIME, OPENVINO, Engine
from medtool.predict.engines.presence import require_engine

__all__ = ["Engine", "engines_for", "open_engine", "require_device"]

# Devices that every engine has.
AUTO_DEVICE, PROCESSOR = EVERYWHERE = ("auto", "cpu")
# Which engines read a file, by its ending; the first is taken where nobody chose.
READERS: Mapping[str, tuple[str, ...]] = {
    ".onnx": (ONNX_RUNTIME, OPENVINO),
    ".xml": (OPENVINO,),
    ".tflite": (LITERT,),
}


def engines_for(file: Path) -> tuple[str, ...]:
    """The engines that read such a file; () for other files."""
    return READERS.get(file.suffix.lower(), ())


def open_engine(
    file: Path,
    *,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "32",
    arithmetic: str = "",
) -> Engine:
    """The model ``file``, loaded and ready.

    ``precision`` (32, bf16, 16) is what the file leaves open, for engines that can choose;
    ``threads`` by default are all that this process may use. ``device`` (auto, cpu, cuda) is for
    ONNX Runtime, which has GPUs where it was built for them; ``arithmetic`` (int8, float32), where
    it is known, says which parts of a GPU's software can take the file. Raises UsageError for a
    file that the engine does not read, MachineError where the engine is not installed,
    CheckpointError for a file that cannot be run or that has an operator that the engine lacks.
    """
    readers = engines_for(file)
    name = readers[0] if engine == "auto" and readers else engine
    if name != "auto":
        require_engine(name)
    if name not in readers:
        raise UsageError(
            "This engine does not read such a file.",
            where=str(file),
            met=f"--engine {engine}",
            wanted=" or ".join(readers) or f"a file that ends in {', '.join(READERS)}",
        )
    require_device(file, name, device, arithmetic=arithmetic)
    count = threads or usable_cores()
    if name == ONNX_RUNTIME:
        from medtool.predict.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(file, threads=count, device=device, arithmetic=arithmetic)
    if name == LITERT:
        from medtool.predict.engines.litert_runtime import LitertEngine

        return LitertEngine(file, threads=count)
    from medtool.predict.engines.openvino_runtime import OpenVinoEngine

    return OpenVinoEngine(file, threads=count, precision=precision)


def require_device(file: Path, engine: str, device: str, *, arithmetic: str = "") -> None:
    """Raises MachineError where ``engine``, which is installed, was not built for ``device``.

    No file is opened: what comes before long work can ask. Whether a GPU is ready ``open_engine``
    says.
    """
    if device in EVERYWHERE:
        return
    if engine != ONNX_RUNTIME:
        raise MachineError(
            f"The engine '{engine}' computes on the processor here.",
            where=str(file),
            met=f"--device {device}",
            wanted=f"--device {PROCESSOR}, or the engine {ONNX_RUNTIME} built for a GPU",
            how="leave --device out.",
        )
    from medtool.predict.engines.onnx_runtime import require_built_for

    require_built_for(device, arithmetic=arithmetic, where=str(file))
