"""Slices and masks of a case from its files: pictures, frames, series and volumes, one slice a row.

Arrays are (slices, rows, columns), in colour (slices, rows, columns, 3). Slices of a volume are
those across its first array axis: the stack's own in DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medtool.core.clock import READING, spent_on
from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding, Truth
from medtool.data.case_checks import CT_CHANNELS
from medtool.data.dataset_record import ImageReference
from medtool.data.grids import require_same_grid
from medtool.data.images import (
    Picture,
    binarised,
    is_flat,
    read_picture,
    read_picture_mask,
    require_one_structure,
)
from medtool.data.layout_files import image_ending
from medtool.data.volumes import NIFTI_ENDINGS, VOLUME_ENDINGS, Volume, read_mask, read_volume
from medtool.dicom.series import Series
from medtool.tasks.segmentation_labels import MASK, structures
from medtool.tasks.segmentation_reading import (
    channels_of,
    read_series,
    reference_to,
    require_declared,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.planar_settings import PlanarDataSection

# What pixels are: whole numbers of 8 bits, Hounsfield units, or anything else.
PixelKind = Literal["8-bit", "hu", "other"]
COLOURS = 3


@dataclass(frozen=True)
class ReadSlices:
    """A case as it was read; ``label`` (slices, rows, columns) holds ids.

    ``grid`` is None where the file does not say how large pixels are or where they lie.
    """

    image: NDArray[Any]
    label: NDArray[Any] | None
    grid: Grid | None
    kind: PixelKind
    findings: tuple[Finding, ...]

    @property
    def size_px(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.image.shape[1]), int(self.image.shape[2])


def read_slices(case: Case, data: PlanarDataSection) -> ReadSlices:
    """Image and mask of a case. Raises CaseRefused with a reason code."""
    names = channels_of(case, data)
    with spent_on(READING):
        parts = [_read_image(case.inputs[name], name) for name in names]
        image = parts[0] if len(parts) == 1 else _stacked(parts, names, case.case_id)
        if MASK not in case.references:
            return image
        label, findings = _read_mask(case.references[MASK], image, data)
    return ReadSlices(image.image, label, image.grid, image.kind, (*image.findings, *findings))


def _read_image(source: Any, name: str) -> ReadSlices:
    if isinstance(source, Series):
        volume = read_series(source)
        kind: PixelKind = "hu" if source.modality == "CT" else "other"
        return ReadSlices(volume.array, None, volume.grid, kind, volume.findings)
    reference = reference_to(source)
    if is_stack(reference.path):
        volume = read_volume(reference)
        kind = "hu" if name.strip().casefold() in CT_CHANNELS else "other"
        return ReadSlices(volume.array, None, volume.grid, kind, volume.findings)
    picture = read_picture(reference)
    kind = _kind_of(picture, name)
    return ReadSlices(picture.array[None], None, picture.grid, kind, picture.findings)


def is_stack(path: Path) -> bool:
    """Whether a file or folder holds a volume; pictures, frames and flat NIfTI files do not."""
    if path.is_dir():
        return True
    ending = image_ending(path).lower()
    return ending in VOLUME_ENDINGS and not (ending in NIFTI_ENDINGS and is_flat(path))


def _kind_of(picture: Picture, name: str) -> PixelKind:
    if picture.array.dtype == np.uint8:
        return "8-bit"
    if picture.modality:
        return "hu" if picture.modality == "CT" else "other"
    return "hu" if name.strip().casefold() in CT_CHANNELS else "other"


def _stacked(parts: list[ReadSlices], names: list[str], where: str) -> ReadSlices:
    """Three grey images as the channels of one in colour."""
    first = parts[0]
    if len(parts) != COLOURS or any(part.image.ndim != 3 for part in parts):
        raise CaseRefused(
            "channels-differ",
            "The channels are none that one picture has.",
            where=where,
            met=", ".join(f"{n} {p.image.shape}" for n, p in zip(names, parts, strict=True)),
            wanted="one image, grey or in colour, or three grey ones",
        )
    for name, part in zip(names[1:], parts[1:], strict=True):
        if first.grid is not None and part.grid is not None:
            require_same_grid(first.grid, part.grid, names=(names[0], name), where=where)
        if part.image.shape != first.image.shape:
            raise CaseRefused(
                "grids-differ",
                "Two channels have different sizes.",
                where=where,
                met=f"{names[0]} {first.image.shape}, {name} {part.image.shape}",
                wanted="one size",
            )
    kind: PixelKind = first.kind if len({part.kind for part in parts}) == 1 else "other"
    findings = tuple(finding for part in parts for finding in part.findings)
    return ReadSlices(np.stack([p.image for p in parts], axis=-1), None, first.grid, kind, findings)


# --- masks --------------------------------------------------------------------------------
def is_binary(data: PlanarDataSection) -> bool:
    """Whether masks show one structure, so that they may be cut at half of their range."""
    return list(structures(data).values()) == [(1,)] and data.ignore_id is None


def _read_mask(
    file: str, image: ReadSlices, data: PlanarDataSection
) -> tuple[NDArray[Any], tuple[Finding, ...]]:
    reference, binary = ImageReference(Path(file)), is_binary(data)
    if is_stack(reference.path):
        mask = _mask_volume(reference, binary=binary)
        label, findings = mask.array, mask.findings
        place: Grid | None = mask.grid
        _require_shape(label, image, file)
    else:
        if len(image.image) != 1:
            raise _other_size(file, "one slice", f"{len(image.image)} slices")
        picture = read_picture_mask(reference, image.size_px, binary=binary)
        label, place, findings = picture.array[None], picture.grid, picture.findings
    if place is not None and image.grid is not None:
        require_same_grid(image.grid, place, names=("image", "mask"), where=file)
    require_declared(label, data, file)
    return label, findings


def _mask_volume(reference: ImageReference, *, binary: bool) -> Volume:
    if not binary:
        return read_mask(reference)
    soft = read_volume(reference)
    require_one_structure(soft.array, str(reference))
    label, findings = binarised(soft.array)
    return Volume(label, soft.grid, (*soft.findings, *findings))


def _require_shape(label: NDArray[Any], image: ReadSlices, where: str) -> None:
    wanted = image.image.shape[:3]
    if label.shape != wanted:
        raise _other_size(where, _size(label.shape), _size(wanted))


def _other_size(where: str, mask: str, image: str) -> CaseRefused:
    return CaseRefused(
        "grids-differ",
        "The mask has another size than its image.",
        where=where,
        met=f"mask {mask}, image {image}",
        wanted="one size; nothing is resampled silently",
    )


def _size(shape: tuple[int, ...]) -> str:
    slices, rows, columns = shape
    return f"{slices} slices of {rows} x {columns} pixels"


def read_slices_truth(case: Case, data: PlanarDataSection) -> Truth:
    """The mask of a case on its own grid, if one is known. Raises CaseRefused."""
    found = read_slices(case, data) if MASK in case.references else None
    if found is None or found.label is None:
        return Truth(case.case_id, case.patient_id)
    grids = {} if found.grid is None else {MASK: found.grid}
    return Truth(case.case_id, case.patient_id, arrays={MASK: found.label}, grids=grids)
