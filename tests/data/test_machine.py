"""Cores and memory under control groups of both versions, laid out by hand."""

from __future__ import annotations

import os
from pathlib import Path

from medtool.data.machine import (
    available_memory_bytes,
    describe_machine,
    free_disk_bytes,
    memory_limit_bytes,
    usable_cores,
)

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _proc(tmp_path: Path, cgroup: str) -> Path:
    proc = tmp_path / "proc"
    _write(
        proc,
        {
            "self/cgroup": cgroup,
            "meminfo": "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 6000000 kB\n",
        },
    )
    return proc


def test_version_two_takes_the_tightest_group_on_the_way_up(tmp_path: Path) -> None:
    proc, groups = _proc(tmp_path, "0::/slurm/job1\n"), tmp_path / "cg"
    _write(
        groups,
        {
            "slurm/job1/memory.max": "max\n",
            "slurm/job1/memory.current": "1000\n",
            "slurm/job1/cpu.max": "max 100000\n",
            "slurm/memory.max": "4000000000\n",
            "slurm/memory.current": "3500000000\n",
            "slurm/memory.stat": "anon 1\ninactive_file 100000000\n",
            "slurm/cpu.max": "50000 100000\n",
        },
    )
    assert memory_limit_bytes(proc=proc, cgroups=groups) == 4_000_000_000
    assert available_memory_bytes(proc=proc, cgroups=groups) == 600_000_000
    assert usable_cores(proc=proc, cgroups=groups) == 1


def test_version_one(tmp_path: Path) -> None:
    proc = _proc(tmp_path, "5:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/\n")
    groups = tmp_path / "cg"
    _write(
        groups,
        {
            "memory/memory.limit_in_bytes": "2000000000\n",
            "memory/memory.usage_in_bytes": "500000000\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert memory_limit_bytes(proc=proc, cgroups=groups) == 2_000_000_000
    assert available_memory_bytes(proc=proc, cgroups=groups) == 1_500_000_000
    assert usable_cores(proc=proc, cgroups=groups) == CORES


def test_no_limit_is_the_machines_memory(tmp_path: Path) -> None:
    proc, groups = _proc(tmp_path, "4:memory:/\n"), tmp_path / "cg"
    _write(groups, {"memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert memory_limit_bytes(proc=proc, cgroups=groups) == 8_000_000 * 1024
    assert available_memory_bytes(proc=proc, cgroups=groups) == 6_000_000 * 1024


def test_a_machine_that_says_nothing_still_has_a_core(tmp_path: Path) -> None:
    assert usable_cores(proc=tmp_path, cgroups=tmp_path) == CORES


def test_this_machine(tmp_path: Path) -> None:
    machine = describe_machine()
    assert 1 <= machine.cores_usable <= machine.cores
    assert f"{machine.cores_usable} cores" in machine.text()
    assert free_disk_bytes(tmp_path / "not" / "there") > 0
