"""PyTorch as an engine: what others are compared with, and baselines that need no export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medtool.predict.engines.contract import PYTORCH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from medtool.core.records import DeploymentSpec


class PyTorchEngine:
    """An exported module (``Task.exported``) run by PyTorch, eagerly or compiled."""

    name = PYTORCH

    def __init__(
        self,
        module: nn.Module,
        spec: DeploymentSpec,
        *,
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> None:
        self._module: Any = module.eval()
        self._call: Any = torch.compile(module) if compiled else module
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
        """Outputs by name, all or those asked for, of inputs by name."""
        tensors = [
            torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.input_names
        ]
        with (
            torch.inference_mode(),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bfloat16),
        ):
            found = self._call(*tensors)
        named = dict(zip(self.output_names, found, strict=True))
        asked = self.output_names if outputs is None else outputs
        return {name: named[name].float().numpy() for name in asked}
