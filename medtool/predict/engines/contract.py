"""What an engine is: a program that runs a model file, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Engines by the name that --engine takes.
ONNX_RUNTIME = "onnxruntime"
OPENVINO = "openvino"
LITERT = "litert"
PYTORCH = "pytorch"
# Measures them and takes the fastest.
AUTO_ENGINE = "auto"
# What the layers of a file compute in, where it is not floating point.
INT8 = "int8"


class Engine(Protocol):
    """A model that is loaded and ready; one call at a time."""

    @property
    def name(self) -> str:
        """One of the names above."""

    @property
    def arithmetic(self) -> str:
        """float32, bfloat16, ...: what the engine was asked to compute in, where the file leaves
        it open.
        """

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs in the order of the file."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs in the order of the file."""

    @property
    def threads(self) -> int:
        """Threads that it computes with."""

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs by name, all or those asked for, of inputs by name."""
