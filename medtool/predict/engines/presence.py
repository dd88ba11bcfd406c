"""Which engines are installed here, and how to get those that are not; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from medtool.core.errors import MachineError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.predict.engines.contract import LITERT, ONNX_RUNTIME, OPENVINO, PYTORCH


@dataclass(frozen=True)
class EngineHere:
    """One engine; ``version`` is "" where it is not installed."""

    name: str
    version: str
    installed: bool
    install_line: str
    note: str


@dataclass(frozen=True)
class _Known:
    module: str
    packages: tuple[str, ...]
    install_line: str
    note: str


KNOWN: Mapping[str, _Known] = {
    ONNX_RUNTIME: _Known(
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"),
        'pip install "medtool[onnxruntime]"',
        "runs everywhere; the default",
    ),
    OPENVINO: _Known(
        "openvino",
        ("openvino",),
        'pip install "medtool[openvino]"',
        "fastest on processors of Intel and AMD",
    ),
    LITERT: _Known(
        "ai_edge_litert",
        ("ai-edge-litert",),
        'pip install "medtool[tflite]"',
        "for phones and tablets",
    ),
    PYTORCH: _Known("torch", ("torch",), "pip install medtool", "answers from checkpoints"),
}
# What people call them.
SYNONYMS = {"ort": ONNX_RUNTIME, "onnx": ONNX_RUNTIME, "tflite": LITERT, "torch": PYTORCH}


def engines_here() -> list[EngineHere]:
    """Every engine that medtool knows, installed or not."""
    return [_engine(name) for name in KNOWN]


def _engine(name: str) -> EngineHere:
    known = KNOWN[name]
    there = find_spec(known.module) is not None
    return EngineHere(
        name, _version(known.packages) if there else "", there, known.install_line, known.note
    )


def _version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


def require_known(name: str) -> None:
    """Raises UnknownNameError for a name that is no engine's."""
    if name not in KNOWN:
        raise UnknownNameError(
            f"There is no engine named '{name}'.",
            met=f"--engine {name}",
            wanted=", ".join(KNOWN),
            nearest=nearest_name(name, KNOWN, SYNONYMS),
        )


def require_engine(name: str) -> None:
    """Raises UnknownNameError for a name that is none, MachineError where it is not installed."""
    require_known(name)
    engine = _engine(name)
    if not engine.installed:
        raise MachineError(
            f"The engine '{name}' is not installed.",
            wanted=f"the package {KNOWN[name].packages[0]}",
            how=f"{engine.install_line}; 'medtool doctor' lists the engines that are here.",
        )
