"""The probe of a checkpoint: a small made-up input and what the network answered to it.

With it another machine, device or engine proves that it computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtool.core.checkpoint import RawTensor
from medtool.core.ensemble import member_prefix
from medtool.core.probe_result import (
    TOLERANCE_FLOAT32,
    TOLERANCE_REDUCED,
    ProbeResult,
    output_range,
)
from medtool.core.randomness import generator
from medtool.core.records import DeploymentSpec
from medtool.nets.state import raw_tensor, read_tensors

PROBE_PREFIX = "probe."
INPUT_PREFIX = PROBE_PREFIX + "input."
OUTPUT_PREFIX = PROBE_PREFIX + "output."


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
    size = output_range(lowest, highest)
    return ProbeResult(difference, size, TOLERANCE_REDUCED if reduced else TOLERANCE_FLOAT32)
