"""What this processor can do with numbers of 8 and 16 bits: it decides how fast INT8 is, and how
weights may be rounded.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtool.data.machine import describe_machine

CPU_INFO = Path("/proc/cpuinfo")

# Names of /proc/cpuinfo that matter here, and what they are called in print: x86, then ARM.
INSTRUCTIONS: Mapping[str, str] = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
# What PyTorch calls those that tell x86 processors apart.
NAMES_IN_PYTORCH: Mapping[str, str] = {
    "avx2": "avx2",
    "avx512_f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
}
EXACT_SUMS = frozenset({"AVX-512 VNNI", "AVX-VNNI", "AMX INT8"})
X86 = ("x86_64", "amd64", "i386", "i686", "x86")


def vector_instructions(cpu_info: Path = CPU_INFO) -> tuple[str, ...]:
    """The vector instructions of this processor that matter to networks, by their usual names."""
    flags = _flags(cpu_info) or _flags_by_pytorch()
    return tuple(name for flag, name in INSTRUCTIONS.items() if flag in flags)


def has_vnni(cpu_info: Path = CPU_INFO, machine: str | None = None) -> bool:
    """Whether products of 8-bit numbers are summed exactly, in 32 bits.

    x86 without VNNI adds pairs of them in 16 bits, which can saturate: weights must then leave
    one bit unused (``reduce_range``). ARM has no such instruction, and none is needed there.
    """
    if (machine or platform.machine()).lower() not in X86:
        return True
    return not EXACT_SUMS.isdisjoint(vector_instructions(cpu_info))


def processor_record(cpu_info: Path = CPU_INFO, kind: str | None = None) -> dict[str, Any]:
    """Processor, cores and instructions as plain values, to stand beside a measurement."""
    machine = describe_machine()
    return {
        "processor": machine.processor,
        "cores": machine.cores_usable,
        "instructions": list(vector_instructions(cpu_info)),
        "exact_int8_sums": has_vnni(cpu_info, kind),
        "memory_bytes": machine.memory_limit_bytes or machine.memory_bytes,
        "system": machine.system,
    }


def processor_text() -> str:
    """The same in one line."""
    record = processor_record()
    instructions = ", ".join(record["instructions"]) or "no vector instructions known"
    return f"{record['processor']} ({instructions})"


def _flags(cpu_info: Path) -> frozenset[str]:
    """The flags of the first core that /proc/cpuinfo lists; none where there is no such file."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, words = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(words.split())
    return frozenset()


def _flags_by_pytorch() -> frozenset[str]:
    """The same from PyTorch, which asks the processor itself: for systems without /proc."""
    import torch

    ask = getattr(torch.cpu, "get_capabilities", None)
    found: Mapping[str, Any] = ask() if ask is not None else {}
    return frozenset(flag for name, flag in NAMES_IN_PYTORCH.items() if found.get(name))
