"""PyTorch as an engine: what others are compared with, and baselines that need no export."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from medtool.core.errors import MachineError
from medtool.predict.engines.contract import PYTORCH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from medtool.core.records import DeploymentSpec

# What PyTorch calls it where there is no compiler of C++, or CXX names none.
NO_COMPILER = "InvalidCxxCompiler"
HOW_TO_COMPILE = (
    "no compiler of C++ is found: install one (g++ on Linux, clang++ on a Mac, Visual C++ on "
    "Windows), or name yours in the variable CXX"
)
# Compilers print many lines; this is what says why.
FAULT = re.compile(r"(?:fatal )?error: .+")
LONGEST_REASON = 300


class PyTorchEngine:
    """An exported module (``Task.exported``) run by PyTorch, eagerly or compiled.

    Compiled, each shape of the inputs is compiled by itself when it first comes, which takes a
    minute, and again where another one came between.
    """

    name = PYTORCH
    # What was compiled last, by whichever engine: it undid what was compiled before.
    _latest: ClassVar[Sequence[object]] = ()

    def __init__(
        self,
        module: nn.Module,
        spec: DeploymentSpec,
        *,
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> None:
        self._module: Any = module.eval()
        self._compiled = compiled
        self._call: Any = module
        if compiled:
            with _without_warnings():
                self._call = torch.compile(module, dynamic=False)
        self._shapes: list[tuple[int, ...]] = []
        self._bfloat16 = bfloat16
        self.arithmetic = "bfloat16" if bfloat16 else "float32"
        self.input_names = tuple(spec.inputs)
        self.output_names = spec.outputs

    @property
    def threads(self) -> int:
        """Threads that torch computes with in this process."""
        return torch.get_num_threads()

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs by name, all or those asked for, of inputs by name.

        Raises MachineError where the module cannot be compiled.
        """
        tensors = [
            torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.input_names
        ]
        with (
            torch.inference_mode(),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bfloat16),
        ):
            found = self._answer_compiled(tensors) if self._compiled else self._call(*tensors)
        named = dict(zip(self.output_names, found, strict=True))
        asked = self.output_names if outputs is None else outputs
        return {name: named[name].float().numpy() for name in asked}

    def _answer_compiled(self, tensors: Sequence[Tensor]) -> Any:
        shapes = [(torch.get_num_threads(),), *(tuple(one.shape) for one in tensors)]
        if shapes == self._shapes and PyTorchEngine._latest is self._shapes:
            return self._call(*tensors)
        # PyTorch keeps eight compilations of a piece of code, of all models, threads and shapes
        # together, and computes what comes after them eagerly.
        _forget_compiled()
        try:
            with _without_warnings():
                found = self._call(*tensors)
        except Exception as error:  # of PyTorch, of compilers, of the system: no common kind
            raise MachineError(
                "torch.compile cannot compile this network here.",
                met=_cause(error),
                how="answer without it; 'medtool bench --no-compile' leaves it out.",
            ) from error
        self._shapes = PyTorchEngine._latest = shapes
        return found


def why_not_compiled() -> str:
    """Why torch.compile makes nothing on this machine, in a line; "" where it does.

    It is tried, on an addition, which takes seconds: a compiler alone is not enough, for it needs
    headers and libraries.
    """
    _forget_compiled()
    try:
        with torch.inference_mode(), _without_warnings():
            torch.compile(_one_more, dynamic=False)(torch.zeros(8))
    except Exception as error:  # noqa: BLE001 - as above; it is told
        return _cause(error)
    return ""


def _forget_compiled() -> None:
    torch.compiler.reset()
    PyTorchEngine._latest = ()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Those of torch's compiler, on parts of torch that it uses itself and on its own work."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _one_more(values: Tensor) -> Tensor:
    return values + 1


def _cause(error: Exception) -> str:
    """The line of a failed compilation that says why."""
    text = str(error)
    if NO_COMPILER in text:
        return HOW_TO_COMPILE
    faults = FAULT.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return str(next(iter([*faults, *lines]), type(error).__name__))[:LONGEST_REASON]
