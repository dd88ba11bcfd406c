"""What a processor says of itself."""

import platform
from pathlib import Path

import pytest

from medtool.optimize.processor import X86, has_vnni, processor_record, vector_instructions

OLD = "processor\t: 0\nmodel name\t: Some\nflags\t\t: fpu sse2 avx avx2 fma\n"
NEW = OLD.replace("fma", "fma avx512f avx512_vnni avx512_bf16 amx_int8")
LAPTOP = OLD.replace("fma", "fma avx_vnni")
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.fixture
def cpu_info(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("text", "instructions", "exact"),
    [
        (OLD, ("AVX2",), False),
        (NEW, ("AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16", "AMX INT8"), True),
        (LAPTOP, ("AVX2", "AVX-VNNI"), True),
    ],
)
def test_an_x86_processor_sums_8_bit_products_exactly_only_with_vnni(
    cpu_info: Path, text: str, instructions: tuple[str, ...], exact: bool
) -> None:
    cpu_info.write_text(text)
    assert vector_instructions(cpu_info) == instructions
    assert has_vnni(cpu_info, machine="x86_64") is exact


def test_arm_needs_no_vnni(cpu_info: Path) -> None:
    cpu_info.write_text(ARM)
    assert vector_instructions(cpu_info) == ("NEON", "dot product", "I8MM")
    assert has_vnni(cpu_info, machine="aarch64")


@pytest.mark.skipif(platform.machine().lower() not in X86, reason="PyTorch tells of x86 only")
def test_without_proc_pytorch_says_the_same_as_proc(tmp_path: Path) -> None:
    assert vector_instructions(tmp_path / "none") == vector_instructions()


@pytest.mark.parametrize(
    ("text", "instructions", "exact"),
    [(OLD, ["AVX2"], False), (LAPTOP, ["AVX2", "AVX-VNNI"], True)],
)
def test_the_record_names_processor_and_instructions(
    cpu_info: Path, text: str, instructions: list[str], exact: bool
) -> None:
    cpu_info.write_text(text)
    record = processor_record(cpu_info, "AMD64")
    assert record["instructions"] == instructions
    assert record["exact_int8_sums"] is exact
    # Of this machine, whatever its instructions are.
    assert record["processor"]
    assert record["cores"] >= 1
