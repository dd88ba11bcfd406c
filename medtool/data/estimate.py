"""How long and how large a preparation will be, from one case that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtool.core.clock import about
from medtool.core.records import Case
from medtool.data.cache import input_bytes
from medtool.data.machine import free_disk_bytes
from medtool.dicom.series import Series

# Bytes that a worker holds for each voxel of a volume in float32: the volume, a shifted or
# resampled copy, masks and their distance maps (measured on head CT: 20 to 26).
MEMORY_BYTES_PER_VOXEL = 32
# Python with numpy, scipy, SimpleITK and OpenCV loaded.
PROCESS_BYTES = 350_000_000
# A file of unknown kind: compressed volumes unfold to about this multiple.
UNFOLDING = 4
BYTES_PER_STORED_VOXEL = 2


@dataclass(frozen=True)
class Weight:
    """``work``: voxels to read; ``memory_bytes``: what a worker may hold while it prepares."""

    work: int
    memory_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What is left to do after one case was measured."""

    cases: int
    workers: int
    seconds: float
    cache_bytes: int
    free_bytes: int

    def text(self) -> str:
        """One line for a person who waits."""
        return (
            f"Preparing {self.cases} more cases takes about {about(self.seconds)} with "
            f"{max(1, self.workers)} workers and {self.cache_bytes / 1e6:.0f} MB of disk "
            f"({self.free_bytes / 1e9:.1f} GB free)."
        )

    def as_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return dict(self.__dict__)


def case_weight(case: Case) -> Weight:
    """How much of a case there is to read, from headers and sizes of files alone."""
    voxels = 0
    paths = {}
    for name, value in case.inputs.items():
        if isinstance(value, Series):
            voxels += sum(plane.pixels.rows * plane.pixels.columns for plane in value.planes)
        else:
            paths[name] = value
    if paths:
        from dataclasses import replace

        stored = input_bytes(replace(case, inputs=paths))
        voxels += stored * UNFOLDING // BYTES_PER_STORED_VOXEL
    return Weight(max(1, voxels), PROCESS_BYTES + voxels * MEMORY_BYTES_PER_VOXEL)


def estimate(
    pilot: Case,
    pilot_s: float,
    pilot_bytes: int,
    missing: Sequence[Case],
    workers: int,
    folder: Path,
) -> Estimate:
    """Seconds and bytes for ``missing``, in proportion to what ``pilot`` took."""
    share = sum(case_weight(case).work for case in missing) / case_weight(pilot).work
    return Estimate(
        cases=len(missing),
        workers=workers,
        seconds=share * pilot_s / max(1, min(workers, len(missing) or 1)),
        cache_bytes=round(share * pilot_bytes),
        free_bytes=free_disk_bytes(folder),
    )
