"""Which device computes, and in what arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from medtool.core.errors import MachineError, UsageError
from medtool.core.names import nearest_name

if TYPE_CHECKING:
    from medtool.core.progress import Reporter

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "32", "bf16", "16")


def choose_device(name: str = "auto") -> torch.device:
    """The device for ``name``; ``auto`` is CUDA, else Apple's, else the processor.

    ``cuda:1`` names one of several. Raises UsageError for an unknown name, MachineError for a
    device that this machine does not have.
    """
    require_known_device(name)
    kind = name.split(":")[0]
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if kind == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[kind]:
        raise MachineError(
            f"This machine has no device '{kind}' that PyTorch can use.",
            met=f"PyTorch {torch.__version__}",
            wanted="a device and a PyTorch built for it",
            how="use --device cpu; 'medtool doctor' says what this machine can do.",
        )
    return torch.device(name)


def require_known_device(name: str) -> None:
    """Raises UsageError for a name that is no device's, whatever this machine has."""
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise UsageError(
            f"There is no device named '{name}'.",
            met=name,
            wanted=", ".join(DEVICES),
            nearest=nearest_name(kind, DEVICES, {"gpu": "cuda"}),
        )


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The type for autocast on ``device``, or None for plain 32-bit arithmetic.

    ``auto`` is bfloat16 where a CUDA device computes in it, 32-bit elsewhere: on processors
    without bfloat16 units it is slower, and results would differ from machine to machine.
    Raises UsageError for an unknown name, MachineError where the device cannot compute so.
    """
    if name not in PRECISIONS:
        raise UsageError(
            f"There is no precision named '{name}'.",
            met=name,
            wanted=", ".join(PRECISIONS),
            nearest=nearest_name(name, PRECISIONS),
        )
    if name == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bfloat16 else None
    if name == "16" and device.type == "cpu":
        raise MachineError(
            "This processor does not compute in 16-bit floats.",
            wanted="--precision 32 or bf16 on a CPU",
            how="leave --precision out, or use bf16.",
        )
    return {"32": None, "bf16": torch.bfloat16, "16": torch.float16}[name]


def computes_slowly(precision: torch.dtype | None, device: torch.device) -> bool:
    """Whether a processor has no units for this arithmetic, so that oneDNN imitates it.

    Convolutions in bfloat16 took 23 to 40 times as long as in float32 on such a processor.
    """
    if precision is not torch.bfloat16 or device.type != "cpu":
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def warn_of_precision(name: str, device: torch.device, reporter: Reporter) -> None:
    """Say so before hours are lost with an arithmetic that this processor only imitates."""
    if computes_slowly(choose_precision(name, device), device):
        reporter.warn(
            "This processor has no bfloat16 units: --precision bf16 is many times slower here "
            "than --precision 32."
        )
