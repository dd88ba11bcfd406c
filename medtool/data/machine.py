"""What this machine gives to us: cores, memory and disk, as far as its control group allows."""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medtool.core.errors import MachineError

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
# Control groups without a limit say "max" (version 2) or a number near 2^63 (version 1).
NO_LIMIT_BYTES = 1 << 60


# What a worker holds for a usual head CT; the largest case of a cohort may need more.
USUAL_WORKER_BYTES = 1_000_000_000
# Share of the free memory that workers may plan with: the parent and the system need some.
MEMORY_SHARE = 0.8
# Disk that must stay free beside what was estimated.
DISK_RESERVE_BYTES = 200_000_000


@dataclass(frozen=True)
class Machine:
    """A machine in a few words, for run.json and for people."""

    system: str
    processor: str
    cores: int
    cores_usable: int
    memory_bytes: int | None
    memory_limit_bytes: int | None
    python: str

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return dict(self.__dict__)

    def text(self) -> str:
        """One line."""
        memory = self.memory_limit_bytes or self.memory_bytes
        gigabytes = f", {memory / 1e9:.0f} GB" if memory else ""
        return f"{self.cores_usable} cores of {self.processor}{gigabytes}, {self.system}"


def usable_cores(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Cores that this process may use: affinity and the quota of the control group; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cpu_quota(proc, cgroups)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def memory_limit_bytes(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """The most memory that this process may ever have: the control group's or the machine's."""
    limits = [limit for limit in (_cgroup_limit(proc, cgroups), memory_bytes(proc=proc)) if limit]
    return min(limits, default=None)


def available_memory_bytes(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Memory that is free now, inside the control group and on the machine; None if unknown."""
    free = []
    available = _meminfo(proc, "MemAvailable")
    if available is not None:
        free.append(available)
    for folder, limit_name, usage_name in _memory_files(proc, cgroups):
        limit, usage = _number(folder / limit_name), _number(folder / usage_name)
        if limit is not None and usage is not None:
            free.append(max(0, limit - usage + _reclaimable(folder)))
    if free:
        return min(free)
    return memory_bytes(proc=proc)


def memory_bytes(*, proc: Path = PROC) -> int | None:
    """The machine's memory; None where the system does not say."""
    total = _meminfo(proc, "MemTotal")
    if total is not None:
        return total
    if sys.platform == "win32":
        return _windows_memory_bytes()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def sensible_workers(memory_of_each_bytes: int = 0) -> int:
    """Worker processes that cores and free memory allow; at least 1."""
    cores = usable_cores()
    available = available_memory_bytes()
    if available is None:
        return cores
    need = max(memory_of_each_bytes, USUAL_WORKER_BYTES)
    return max(1, min(cores, int(available * MEMORY_SHARE) // need))


def free_disk_bytes(path: Path) -> int:
    """Free bytes where ``path`` is, or would be."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def require_disk(needed_bytes: int, folder: Path, *, what: str, how: str) -> None:
    """Raise MachineError where ``needed_bytes`` for ``what`` and a reserve are not free."""
    free, wanted = free_disk_bytes(folder), needed_bytes + DISK_RESERVE_BYTES
    if wanted <= free:
        return
    raise MachineError(
        f"The disk is too small for {what}.",
        where=str(folder),
        met=f"{free / 1e9:.1f} GB free",
        wanted=f"about {wanted / 1e9:.1f} GB",
        how=how,
    )


def describe_machine() -> Machine:
    """This machine, without its name or its user's."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        cores_usable=usable_cores(),
        memory_bytes=memory_bytes(),
        memory_limit_bytes=memory_limit_bytes(),
        python=platform.python_version(),
    )


def _processor() -> str:
    for line in _lines(PROC / "cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file of a control group; None for "max", none or no such file."""
    text = next(iter(_lines(path)), "").strip()
    if not text.lstrip("-").isdigit():
        return None
    value = int(text)
    return value if 0 <= value < NO_LIMIT_BYTES else None


def _meminfo(proc: Path, name: str) -> int | None:
    for line in _lines(proc / "meminfo"):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _group_folders(proc: Path, cgroups: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folder and version of every control group of this process, from its own to the root.

    Inside a container the path that /proc names may not exist: the root that is mounted is ours.
    """
    for line in _lines(proc / "self" / "cgroup"):
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names == "":
            root, version = cgroups, 2
        elif controller in names.split(","):
            root, version = cgroups / controller, 1
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for part in (inner, *inner.parents):
            yield root / part, version


def _memory_files(proc: Path, cgroups: Path) -> Iterator[tuple[Path, str, str]]:
    for folder, version in _group_folders(proc, cgroups, "memory"):
        if version == 2:
            yield folder, "memory.max", "memory.current"
        else:
            yield folder, "memory.limit_in_bytes", "memory.usage_in_bytes"


def _cgroup_limit(proc: Path, cgroups: Path) -> int | None:
    limits = [_number(folder / name) for folder, name, _ in _memory_files(proc, cgroups)]
    return min((limit for limit in limits if limit is not None), default=None)


def _reclaimable(folder: Path) -> int:
    """File pages that the group holds and the kernel gives back when asked."""
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _cpu_quota(proc: Path, cgroups: Path) -> float | None:
    quotas = []
    for folder, version in _group_folders(proc, cgroups, "cpu"):
        if version == 2:
            words = next(iter(_lines(folder / "cpu.max")), "").split()
            if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
                quotas.append(int(words[0]) / int(words[1]))
        else:
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
            if quota and period:
                quotas.append(quota / period)
    return min(quotas, default=None)


def _windows_memory_bytes() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "free", "f1", "f2", "f3", "f4", "f5")
            ),
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    windows = getattr(ctypes, "windll", None)
    if windows is None or not windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.total)
