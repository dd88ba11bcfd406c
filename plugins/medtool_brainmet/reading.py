"""A case's scan as HU, its grid, and where each slice came from: DICOM series or NIfTI file.

What only pixels can show (undeclared padding, precision, values that are no numbers) comes along
as findings: nobody reads the pixels again to know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtool.core.clock import READING, spent_on
from medtool.core.geometry import Grid
from medtool.core.records import Finding
from medtool.data.dataset_record import ImageReference
from medtool.data.volumes import read_volume
from medtool.dicom.fingerprint import plane_hash
from medtool.dicom.pixels import AIR_HU
from medtool.dicom.series import Series

# Air around a head is near -1000 HU and bone well above 300: pixels in another unit show by
# lacking both (quantiles of the whole scan).
AIR_QUANTILE, LARGEST_AIR_HU = 0.005, -500.0
BONE_QUANTILE, LEAST_BONE_HU = 0.999, 150.0


@dataclass(frozen=True)
class SliceSource:
    """One slice as read: the source image to name, and its place along the normal."""

    instance_number: int | None
    sop_instance_uid: str
    position_mm: float


@dataclass(frozen=True)
class Scan:
    """HU (z, y, x) with grid and sources, as read.

    ``plane_hashes`` are those of the planes as they were stored, constant ones left out; there may
    be more or fewer than slices, where these were resampled.
    """

    volume_hu: NDArray[np.float32]
    grid: Grid
    sources: tuple[SliceSource, ...]
    plane_hashes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def read_scan(source: Any) -> Scan:
    """Read a ``Series`` or a NIfTI path. Raises CaseRefused with the codes of both.

    A file is refused where its header contradicts itself on where its voxels lie.
    """
    if isinstance(source, Series):
        return _read_series(source)
    with spent_on(READING):
        return _read_file(Path(source))


def _read_series(series: Series) -> Scan:
    from medtool.dicom.provenance import provenance
    from medtool.dicom.volume import read_volume as read_planes

    volume = read_planes(series, hashes=True)
    sources = tuple(
        SliceSource(
            origin.nearest.instance_number,
            origin.nearest.sop_instance_uid,
            round(origin.along_normal_mm, 4),
        )
        for origin in provenance(series)
    )
    hashes = tuple(filter(None, volume.plane_hashes))
    return Scan(volume.array, volume.grid, sources, hashes, volume.findings)


def _read_file(path: Path) -> Scan:
    volume = read_volume(ImageReference(path), undefined_as=AIR_HU)
    grid = volume.grid
    normal = np.asarray(grid.direction).reshape(3, 3)[:, 2]
    first_mm = float(normal @ np.asarray(grid.origin_mm))
    sources = tuple(
        SliceSource(None, "", round(first_mm + index * grid.spacing_mm[2], 4))
        for index in range(grid.size[2])
    )
    hashes = tuple(filter(None, map(plane_hash, volume.array)))
    return Scan(volume.array, grid, sources, hashes, volume.findings)


def why_not_hu(volume_hu: NDArray[np.float32]) -> str:
    """What shows that the pixels are no HU of a head; "" where nothing does."""
    low, high = np.quantile(volume_hu, [AIR_QUANTILE, BONE_QUANTILE])
    if low > LARGEST_AIR_HU:
        return f"no air: {AIR_QUANTILE:.1%} of the pixels lie below {low:.0f}, air is near -1000 HU"
    if high < LEAST_BONE_HU:
        return f"no bone: {BONE_QUANTILE:.1%} of the pixels lie below {high:.0f}, bone above 300 HU"
    return ""
