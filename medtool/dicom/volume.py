"""From a stack of planes to one volume in true geometry.

Planes decode in threads, each straight into its place in one preallocated float32 volume, where
they are rescaled; nothing else of the size of the volume exists, but for memory that is kept for
the next one and is the system's to take. Only an unevenly spaced series needs a second volume,
because its slices are made of two planes each.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.clock import READING, spent_on
from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.large_arrays import array_to_fill
from medtool.core.records import Finding
from medtool.core.threads import run_in_threads
from medtool.dicom.decode import check_pixel_format
from medtool.dicom.fingerprint import plane_hash
from medtool.dicom.pixels import AIR_HU, PlaneReader, check_rescale, measure
from medtool.dicom.plausible import hu_findings
from medtool.dicom.resample import blended_slice, blends
from medtool.dicom.series import Series, StackGeometry
from medtool.dicom.shear import Lattice, output_lattice, shifted_plane

if TYPE_CHECKING:
    import SimpleITK
    from numpy.typing import NDArray

# 4,096 slices of 1024 x 1024: beyond it is no scan, or no machine that reads it.
MAX_VOLUME_BYTES = 2**34


@dataclass(frozen=True)
class Volume:
    """What was read: ``array`` (z, y, x) float32, its grid, and what only pixels could show.

    ``plane_hashes`` are those of the source planes in order (``fingerprint.plane_hash``), as
    measured and before any shear or resampling; () where they were not asked for.
    """

    array: NDArray[np.float32]
    grid: Grid
    findings: tuple[Finding, ...] = ()
    plane_hashes: tuple[str, ...] = ()


def read_volume(series: Series, *, threads: int | None = None, hashes: bool = False) -> Volume:
    """Pixels of a series in HU (CT) or as rescaled (others), on the grid of ``series_grid``.

    Outside the field of view and padding are -1024 HU in CT, 0 in others. ``threads``: None takes
    the cores this process may use. ``hashes``: hash the planes as well. Raises CaseRefused, with
    the codes of ``medtool.dicom.codes``; ``not-hu`` when the values of a CT cannot be Hounsfield
    units.
    """

    def allocate(grid: Grid) -> NDArray[np.float32]:
        return array_to_fill(grid.size[::-1])

    with spent_on(READING):
        return _read(series, threads, allocate, hashes=hashes)


def read_array(series: Series, *, threads: int | None = None) -> tuple[NDArray[np.float32], Grid]:
    """Values (z, y, x) float32 and their grid; ``read_volume`` without its findings."""
    volume = read_volume(series, threads=threads)
    return volume.array, volume.grid


def read(series: Series, *, threads: int | None = None) -> SimpleITK.Image:
    """The series as an image: float32, HU for CT, LPS, true geometry.

    Gantry tilt is sheared out and uneven steps are resampled: ``medtool.dicom.provenance`` leads
    back to the source planes. Raises as ``read_volume`` does.
    """
    images: list[SimpleITK.Image] = []

    def allocate(grid: Grid) -> NDArray[np.float32]:
        image, array = _image_and_its_memory(grid)
        images.append(image)
        return array

    with spent_on(READING):
        _read(series, threads, allocate)
    return images[0]


def series_grid(series: Series) -> Grid:
    """The grid that ``read`` gives, without reading pixels; refuses what has no geometry."""
    geometry = _checked(series)
    return _grid(series, geometry, output_lattice(series.planes, geometry))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(
    series: Series,
    threads: int | None,
    allocate: Callable[[Grid], NDArray[np.float32]],
    *,
    hashes: bool = False,
) -> Volume:
    """``allocate`` gives the memory (z, y, x) of the result, and is called once."""
    geometry = _checked(series)
    lattice = output_lattice(series.planes, geometry)
    grid = _grid(series, geometry, lattice)
    source = replace(grid, size=(*grid.size[:2], len(series.planes)))
    for volume in (grid, source):
        _check_size(volume)
    array = allocate(grid)
    planes = array
    if geometry.is_resampled:
        planes = array_to_fill(source.size[::-1])
    job = _Job(series, lattice, planes, hashing=hashes)
    threads = threads or usable_cores()
    run_in_threads(job.fill, len(series.planes), threads)
    if geometry.is_resampled:
        _resample(threads, geometry, job, array)
    findings = dict.fromkeys(finding for found in job.findings for finding in found)
    if series.modality == "CT":
        findings |= dict.fromkeys(_plausible(series, array))
    return Volume(array, grid, tuple(findings), tuple(job.hashes) if hashes else ())


def _plausible(series: Series, array: NDArray[np.float32]) -> tuple[Finding, ...]:
    findings = hu_findings(array)
    for finding in findings:
        if finding.severity == "refusal":
            raise CaseRefused(
                finding.code,
                "The values of this CT are no Hounsfield units.",
                where=str(series.folder),
                met=finding.message,
            )
    return findings


def _image_and_its_memory(grid: Grid) -> tuple[SimpleITK.Image, NDArray[np.float32]]:
    """A new image on the grid, and an array (z, y, x) that writes into its very memory.

    SimpleITK only lends its memory for reading, or copies. A volume and its copy are twice what a
    laptop should need, and nobody else can hold this image yet.
    """
    import ctypes

    import SimpleITK

    image = SimpleITK.Image(list(grid.size), SimpleITK.sitkFloat32)  # type: ignore[no-untyped-call]
    image.SetSpacing(grid.spacing_mm)  # type: ignore[no-untyped-call]
    image.SetOrigin(grid.origin_mm)  # type: ignore[no-untyped-call]
    image.SetDirection(grid.direction)  # type: ignore[no-untyped-call]
    lent = SimpleITK.GetArrayViewFromImage(image)
    memory = memoryview((ctypes.c_float * lent.size).from_address(lent.ctypes.data))
    return image, np.asarray(memory, dtype=np.float32).reshape(grid.size[::-1])


class _Job:
    """Fills a volume plane by plane, from any number of threads."""

    def __init__(
        self, series: Series, lattice: Lattice, planes: NDArray[np.float32], *, hashing: bool
    ) -> None:
        self.series = series
        self.hashing = hashing
        self.hashes = [""] * len(series.planes)
        self.lattice = lattice
        self.planes = planes
        self.is_ct = series.modality == "CT"
        self.findings: list[tuple[Finding, ...]] = [()] * len(series.planes)
        # Packed to bits: only uneven series need them, and they should cost little.
        self.invalid: list[NDArray[np.uint8] | None] = [None] * len(series.planes)
        self._readers = threading.local()

    def fill(self, index: int) -> None:
        """Read plane ``index`` into its place."""
        plane, geometry = self.series.planes[index], self.series.geometry
        reader = self._reader()
        stored, found = reader.stored(plane)
        sheared = geometry is not None and geometry.is_sheared
        own = np.empty(stored.shape, dtype=np.float32) if sheared else self.planes[index]
        measured = measure(plane, stored, own, is_ct=self.is_ct)
        invalid = measured.padding
        if self.hashing:
            self.hashes[index] = plane_hash(own)
        if sheared:
            column, row = self.lattice.shifts_px[index]
            air = AIR_HU if self.is_ct else 0.0
            invalid = shifted_plane(
                own, measured.padding, (float(column), float(row)), self.planes[index], air
            )
        self.findings[index] = (*found, *measured.findings)
        if invalid is not None and geometry is not None and geometry.is_resampled:
            self.invalid[index] = np.packbits(invalid)

    def invalid_mask(self, index: int) -> NDArray[np.bool_] | None:
        """Where plane ``index`` has no measurement."""
        packed = self.invalid[index]
        if packed is None:
            return None
        shape = self.planes.shape[1:]
        bits = np.unpackbits(packed, count=shape[0] * shape[1])
        return bits.reshape(shape).astype(bool)

    def _reader(self) -> PlaneReader:
        reader: PlaneReader | None = getattr(self._readers, "reader", None)
        if reader is None:
            reader = self._readers.reader = PlaneReader(bytearray())
        return reader


def _resample(threads: int, geometry: StackGeometry, job: _Job, array: NDArray[np.float32]) -> None:
    parts = blends(geometry.positions_mm, geometry.target_positions_mm)

    def fill(index: int) -> None:
        masks = {plane: job.invalid_mask(plane) for plane in parts[index].planes}
        blended_slice(job.planes, masks, parts[index], array[index])

    run_in_threads(fill, len(parts), threads)


def _checked(series: Series) -> StackGeometry:
    """The geometry, after refusing what cannot be read whatever its pixels are."""
    geometry = series.geometry
    if geometry is None or not series.planes:
        refusal = next((f for f in series.findings if f.severity == "refusal"), None)
        raise CaseRefused(
            refusal.code if refusal else "invalid-geometry",
            "The series does not make a volume.",
            where=str(series.folder),
            met=refusal.message if refusal else "no geometry",
        )
    for plane in series.planes:
        check_pixel_format(plane.pixels)
        if not plane.has_modality_lut:
            check_rescale(plane)
        if (plane.pixels.rows, plane.pixels.columns) != (geometry.rows, geometry.columns):
            raise CaseRefused(
                "mixed-sizes",
                "Planes of one series differ in size.",
                where=str(plane.path),
                met=f"{plane.pixels.rows} x {plane.pixels.columns}",
                wanted=f"{geometry.rows} x {geometry.columns}",
            )
    return geometry


def _grid(series: Series, geometry: StackGeometry, lattice: Lattice) -> Grid:
    row, column = np.asarray(geometry.row_direction), np.asarray(geometry.column_direction)
    normal = np.asarray(geometry.normal)
    origin = (
        np.asarray(series.planes[0].position_mm)
        + row * lattice.origin_px[0] * geometry.column_spacing_mm
        + column * lattice.origin_px[1] * geometry.row_spacing_mm
        + normal * (geometry.target_positions_mm[0] - geometry.positions_mm[0])
    )
    direction = np.stack([row, column, normal], axis=1)
    return Grid(
        (lattice.columns, lattice.rows, len(geometry.target_positions_mm)),
        (geometry.column_spacing_mm, geometry.row_spacing_mm, geometry.slice_spacing_mm),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(v) for v in direction.ravel()),
    )


def _check_size(grid: Grid) -> None:
    columns, rows, slices = grid.size
    if slices * rows * columns * 4 > MAX_VOLUME_BYTES:
        raise CaseRefused(
            "too-large",
            "The series announces a volume larger than any scan.",
            met=f"{slices} x {rows} x {columns} voxels",
            wanted=f"at most {MAX_VOLUME_BYTES} bytes",
        )
