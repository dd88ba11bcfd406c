"""Volumes of one case read truly: NIfTI by its own bytes, NRRD and MetaImage through SimpleITK.

What contradicts itself, or would have to be guessed, is refused with a reason code; what was
changed in order to read (float masks, voxels without a number) is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Finding
from medtool.data.dataset_record import ImageReference
from medtool.data.grids import check_grid, require_same_grid
from medtool.data.layout_files import image_ending
from medtool.data.nifti import NiftiHeader, read_header, read_voxels
from medtool.data.nifti_grid import nifti_grid
from medtool.data.series_volume import series_in
from medtool.dicom.volume import read_volume as read_series
from medtool.dicom.volume import series_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NIFTI_ENDINGS = (".nii", ".nii.gz")
ITK_ENDINGS = (".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd")
VOLUME_ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS)
# A label that was resampled or rescaled in floating point is off by less; a soft mask by more.
LABEL_ROUNDING = 0.01


@dataclass(frozen=True)
class Volume:
    """Voxels (z, y, x), where they lie, and what was repaired or is to be looked at.

    Images are float32; masks int16, or int32 where ids are larger.
    """

    array: NDArray[Any]
    grid: Grid
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class VolumeHeader:
    """What is known of a volume before its voxels are read."""

    grid: Grid
    components: int
    findings: tuple[Finding, ...] = ()


def read_volume(reference: ImageReference, *, undefined_as: float | None = None) -> Volume:
    """An image as float32 (z, y, x). ``undefined_as`` takes the place of NaN and infinity, said.

    A folder is read as its DICOM series (HU for CT, in true geometry).

    Raises CaseRefused: ``not-a-volume`` (2D, 4D without a component), ``undefined-values`` (where
    nothing may take their place), ``broken-header``, ``truncated-file`` and the other codes of
    files and grids.
    """
    if reference.path.is_dir():
        return _read_series(reference.path)
    stored, header, scale = _stored(reference)
    array = _scaled(stored, scale)
    findings = list(header.findings)
    may_lack_numbers = stored.dtype.kind == "f" or scale is not None
    if may_lack_numbers and (undefined := ~np.isfinite(array)).any():
        count = int(undefined.sum())
        if undefined_as is None:
            raise CaseRefused(
                "undefined-values",
                "Voxels hold no number.",
                where=str(reference),
                met=f"{count} voxels of {array.size} are NaN or infinite",
                wanted="a number in every voxel",
            )
        array[undefined] = undefined_as
        text = f"{count} voxels hold no number and were set to {undefined_as:g}"
        findings.append(Finding("undefined-values", text, "warning"))
    return Volume(array, header.grid, tuple(findings))


def read_plane(reference: ImageReference) -> Volume:
    """A 2D image, or a volume of one slice, as float32 (1, y, x).

    Raises CaseRefused ``not-a-picture``, and the codes of ``read_volume``.
    """
    stored, header, scale = _stored(reference, least_dimensions=2)
    if len(stored) != 1:
        raise CaseRefused(
            "not-a-picture",
            "The image is a volume.",
            where=str(reference),
            met=f"{len(stored)} slices",
            wanted="one slice",
        )
    return Volume(_scaled(stored, scale), header.grid, header.findings)


def read_mask(reference: ImageReference) -> Volume:
    """A mask as label ids (z, y, x); values a little off whole numbers are rounded, said.

    Raises CaseRefused: ``not-labels`` (values between whole numbers, negative, no numbers) and
    the codes of ``read_volume``.
    """
    stored, header, scale = _stored(reference)
    values = stored if scale is None and stored.dtype.kind in "iu" else _scaled64(stored, scale)
    labels, findings = whole_labels(values, str(reference))
    return Volume(labels, header.grid, (*header.findings, *findings))


def read_volume_header(reference: ImageReference) -> VolumeHeader:
    """Grid and number of components, from the header alone. Raises CaseRefused."""
    if reference.path.is_dir():
        series, said = series_in(reference.path)
        return VolumeHeader(series_grid(series), 1, said)
    if image_ending(reference.path).lower() in NIFTI_ENDINGS:
        header = read_header(reference.path)
        _require_volume(len(header.shape), header.components, reference)
        grid, findings = nifti_grid(header, reference.path)
        return VolumeHeader(grid, header.components, findings)
    reader = _itk_reader(reference.path)
    return _itk_header(reader, reference)


def require_one_grid(references: Sequence[ImageReference], names: Sequence[str]) -> Grid:
    """The grid that all these volumes share, from their headers.

    Raises CaseRefused ``grids-differ`` with both grids, and the codes of ``read_volume``.
    """
    first = read_volume_header(references[0]).grid
    for reference, name in zip(references[1:], names[1:], strict=True):
        other = read_volume_header(reference).grid
        require_same_grid(first, other, names=(names[0], name), where=str(reference))
    return first


def whole_labels(values: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[Finding, ...]]:
    """Label ids from the values of a mask: int16, or int32 where they are larger.

    Raises CaseRefused ``not-labels``.
    """
    findings: tuple[Finding, ...] = ()
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        with np.errstate(invalid="ignore"):
            off = np.abs(values - rounded)
        worst = float(off.max(initial=0.0))
        if not worst <= LABEL_ROUNDING:
            index = int(np.argmax(~(off <= LABEL_ROUNDING)))
            raise _no_labels(where, f"a value {float(values.ravel()[index]):g}")
        if worst > 0:
            count = int(np.count_nonzero(off))
            text = f"{count} values are no whole numbers, by up to {worst:.2g}, and were rounded"
            findings = (Finding("mask-rounded", text, "warning"),)
        values = rounded
    lowest, highest = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        raise _no_labels(where, f"values from {lowest} to {highest}")
    dtype = np.int16 if highest <= np.iinfo(np.int16).max else np.int32
    return np.ascontiguousarray(values, dtype=dtype), findings


def _no_labels(where: str, met: str) -> CaseRefused:
    return CaseRefused(
        "not-labels",
        "The mask holds values that are no labels.",
        where=where,
        met=met,
        wanted=f"whole numbers from 0 on, to within {LABEL_ROUNDING}",
        how="a soft mask has to be cut at a threshold first.",
    )


def _read_series(folder: Path) -> Volume:
    series, said = series_in(folder)
    volume = read_series(series)
    return Volume(volume.array, volume.grid, (*said, *volume.findings))


# Slope and intercept; None where values are stored as they are.
_Scale = tuple[float, float] | None


def _stored(
    reference: ImageReference, *, least_dimensions: int = 3
) -> tuple[NDArray[Any], VolumeHeader, _Scale]:
    """Stored values (z, y, x), the header, and what makes values of them."""
    if image_ending(reference.path).lower() in NIFTI_ENDINGS:
        header = read_header(reference.path)
        _require_volume(len(header.shape), header.components, reference, least_dimensions)
        grid, findings = nifti_grid(header, reference.path)
        stored = read_voxels(reference.path, header, reference.component or 0)
        return stored, VolumeHeader(grid, header.components, findings), _scale(header)
    reader = _itk_reader(reference.path)
    found = _itk_header(reader, reference)
    return _itk_voxels(reader, reference), found, None


def _scale(header: NiftiHeader) -> _Scale:
    return (header.slope, header.intercept) if header.is_scaled else None


def _scaled(stored: NDArray[Any], scale: _Scale) -> NDArray[np.float32]:
    """Values in float32, computed in float64; slice by slice, so that memory stays small."""
    array = np.empty(stored.shape, dtype=np.float32)
    slope, intercept = scale or (1.0, 0.0)
    # What is larger than float32 holds becomes infinite, and is then told as such.
    with np.errstate(over="ignore", invalid="ignore"):
        for index, plane in enumerate(stored):
            array[index] = plane if scale is None else plane * np.float64(slope) + intercept
    return array


def _scaled64(stored: NDArray[Any], scale: _Scale) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.astype(np.float64)
        return values if scale is None else values * scale[0] + scale[1]


def _require_volume(
    dimensions: int, components: int, reference: ImageReference, least_dimensions: int = 3
) -> None:
    """Refuse what is no volume, or no such part of one."""
    met = ""
    if dimensions < least_dimensions:
        met = f"{dimensions} dimensions"
    elif reference.component is None and components > 1:
        met = f"{dimensions} dimensions, {components} volumes in one file"
    elif reference.component is not None and not reference.component < components:
        met = f"{components} volumes in one file, none numbered {reference.component}"
    if met:
        raise CaseRefused(
            "not-a-volume",
            "The image is not a volume.",
            where=str(reference),
            met=met,
            wanted="3 dimensions",
            how="images of several channels are declared as such in the data set.",
        )


def _itk_reader(path: Path) -> Any:
    import SimpleITK as sitk

    # SimpleITK has no annotations.
    reader: Any = sitk.ImageFileReader()  # type: ignore[no-untyped-call]
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(
            path, "broken-header", "The header of the image cannot be read.", error
        ) from error
    return reader


def _itk_header(reader: Any, reference: ImageReference) -> VolumeHeader:
    count, size = reader.GetDimension(), reader.GetSize()
    components = int(reader.GetNumberOfComponents()) * math.prod(size[3:])
    _require_volume(count, components, reference)
    x, y, z = size[:3]
    direction = np.asarray(reader.GetDirection()).reshape(count, count)[:3, :3]
    grid = Grid(
        (x, y, z),
        tuple(reader.GetSpacing()[:3]),
        tuple(reader.GetOrigin()[:3]),
        tuple(direction.ravel().tolist()),
    )
    check_grid(grid, str(reference))
    return VolumeHeader(grid, components)


def _itk_voxels(reader: Any, reference: ImageReference) -> NDArray[Any]:
    """Voxels (z, y, x); channels come last in an array of vectors, first in a 4D one."""
    import SimpleITK as sitk

    try:
        values: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _unreadable(
            reference.path, "damaged-file", "The voxels of the image cannot be read.", error
        ) from error
    if reader.GetNumberOfComponents() > 1:
        values = np.moveaxis(values, -1, 0)
    channels = values.reshape(-1, *values.shape[-3:])
    return np.asarray(channels[reference.component or 0])


def _unreadable(path: Path, code: str, what: str, error: RuntimeError) -> CaseRefused:
    # ITK's last line says what it met; the lines before name its sources.
    return CaseRefused(code, what, where=str(path), met=str(error).strip().splitlines()[-1][-200:])
