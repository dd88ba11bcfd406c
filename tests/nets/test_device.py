"""Devices by name: what is not there is said, not replaced."""

import re
from pathlib import Path

import pytest
import torch

from medtool.core.errors import MachineError, UsageError
from medtool.nets.device import (
    choose_device,
    choose_precision,
    computes_slowly,
    warn_of_precision,
)

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


# What oneDNN wants of an x86 processor before it computes convolutions in bfloat16 itself.
BFLOAT16_FLAGS = {"avx512vl", "avx512bw", "avx512dq"}
CPU_FACTS = Path("/proc/cpuinfo")


def _flags() -> set[str]:
    if not CPU_FACTS.is_file():
        return set()
    found = re.search(r"^flags\s*:(.*)$", CPU_FACTS.read_text(), re.MULTILINE)
    return set(found[1].split()) if found else set()


@pytest.mark.skipif("avx2" not in _flags(), reason="no x86 processor that says its flags")
def test_a_processor_without_units_is_slow_in_bfloat16() -> None:
    has_units = _flags() >= BFLOAT16_FLAGS
    assert computes_slowly(torch.bfloat16, CPU) is not has_units
    assert not computes_slowly(None, CPU)
    assert not computes_slowly(torch.bfloat16, torch.device("cuda"))


class _Warnings:
    """A reporter that keeps what a user must not miss."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.texts.append(text)

    def progress(self, description: str, total: int | None):  # noqa: ANN201 - never called here
        raise AssertionError(description)


def test_slow_arithmetic_is_said() -> None:
    heard = _Warnings()
    for name in ("auto", "32", "bf16"):
        warn_of_precision(name, CPU, heard)
    assert len(heard.texts) == computes_slowly(torch.bfloat16, CPU)
    assert all("--precision bf16" in text for text in heard.texts)
