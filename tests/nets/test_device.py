"""Devices by name: what is not there is said, not replaced."""

import pytest
import torch

from medtool.core.errors import MachineError, UsageError
from medtool.nets.device import choose_device, choose_precision

CPU = torch.device("cpu")


def test_names() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(UsageError) as refusal:
        choose_device("cudo")
    assert refusal.value.nearest == "cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_the_machines_fault() -> None:
    with pytest.raises(MachineError):
        choose_device("cuda")


def test_precision() -> None:
    assert choose_precision("auto", CPU) is None
    assert choose_precision("32", CPU) is None
    assert choose_precision("bf16", CPU) is torch.bfloat16
    with pytest.raises(MachineError):
        choose_precision("16", CPU)
    with pytest.raises(UsageError):
        choose_precision("8", CPU)
