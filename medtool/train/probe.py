"""The probe of a checkpoint: a small made-up input and what the network answered to it.

With it another machine, device or engine proves that it computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtool.core.checkpoint import RawTensor
from medtool.core.ensemble import member_prefix
from medtool.core.randomness import generator
from medtool.core.records import DeploymentSpec
from medtool.nets.state import raw_tensor, read_tensors

PROBE_PREFIX = "probe."
INPUT_PREFIX = PROBE_PREFIX + "input."
OUTPUT_PREFIX = PROBE_PREFIX + "output."
# Largest difference allowed, as a share of the range of the output.
TOLERANCE_FLOAT32 = 1e-4
TOLERANCE_REDUCED = 1e-2


@dataclass(frozen=True)
class ProbeResult:
    """How far an answer is from the one that was stored."""

    largest_difference: float
    output_range: float
    tolerance: float

    @property
    def share(self) -> float:
        """The difference as a share of the output's range."""
        return self.largest_difference / self.output_range

    @property
    def passed(self) -> bool:
        """Whether the answer is the stored one, within the tolerance."""
        return math.isfinite(self.share) and self.share <= self.tolerance


def probe_inputs(spec: DeploymentSpec) -> dict[str, Tensor]:
    """Numbers from a standard normal distribution, the same everywhere, in the spec's shapes."""
    return {
        name: torch.from_numpy(generator("probe", name).standard_normal(shape, dtype="float32"))
        for name, shape in spec.inputs.items()
    }


def make_probe(network: nn.Module, spec: DeploymentSpec) -> Iterator[RawTensor]:
    """The tensors ``probe.input.*`` and ``probe.output.*`` for ``network``, in float32."""
    inputs = probe_inputs(spec)
    for name, tensor in inputs.items():
        yield raw_tensor(INPUT_PREFIX + name, tensor)
    for name, tensor in answer(network, inputs, spec).items():
        yield raw_tensor(OUTPUT_PREFIX + name, tensor)


def answer(
    network: nn.Module, inputs: Mapping[str, Tensor], spec: DeploymentSpec
) -> dict[str, Tensor]:
    """What ``network`` says to ``inputs``, by name of output, on the CPU in float32.

    The network is called as it is, in evaluation mode and without gradients.
    """
    device = next(network.parameters()).device
    was_training = [module for module in network.modules() if module.training]
    network.eval()
    with torch.inference_mode():
        found: Any = network(*(inputs[name].to(device) for name in spec.inputs))
    for module in was_training:
        module.training = True
    if isinstance(found, Tensor):
        found = {spec.outputs[0]: found}
    elif not isinstance(found, Mapping):
        found = dict(zip(spec.outputs, found, strict=True))
    return {name: found[name].float().cpu().clone() for name in spec.outputs}


def has_probe(tensor_names: Mapping[str, Any], *, member: str = "") -> bool:
    """Whether a checkpoint with these tensors holds a probe, of its only model or of ``member``."""
    return any(name.startswith(_prefix(OUTPUT_PREFIX, member)) for name in tensor_names)


def _prefix(prefix: str, member: str) -> str:
    return member_prefix(PROBE_PREFIX, member) + prefix.removeprefix(PROBE_PREFIX)


def check_probe(
    path: Path,
    network: nn.Module,
    spec: DeploymentSpec,
    *,
    reduced: bool = False,
    member: str = "",
) -> ProbeResult:
    """Compare what ``network`` says to the probe of ``path`` with what is stored there.

    ``reduced`` is for arithmetic of less than 32 bits; ``member`` is one of several models.
    """
    inputs = dict(read_tensors(path, _prefix(INPUT_PREFIX, member)))
    wanted = dict(read_tensors(path, _prefix(OUTPUT_PREFIX, member)))
    found = answer(network, inputs, spec)
    difference = max(float((found[n] - wanted[n]).abs().max()) for n in wanted)
    lowest = min(float(tensor.min()) for tensor in wanted.values())
    highest = max(float(tensor.max()) for tensor in wanted.values())
    # A single number has no range of its own; its size, or that of a logit, stands for it.
    size = max(highest - lowest, abs(highest), abs(lowest), 1.0)
    return ProbeResult(difference, size, TOLERANCE_REDUCED if reduced else TOLERANCE_FLOAT32)
