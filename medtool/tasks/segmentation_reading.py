"""Images and masks of a case from their files, checked, on the input's grid and on the planned one.

Axes are those of the arrays: (channels, z, y, x). An image and a mask on different grids are
refused, never resampled to fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.clock import READING, spent_on
from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, CheckedCase, Finding, Prepared, Truth
from medtool.data.case_checks import check_read
from medtool.data.dataset_record import ImageReference
from medtool.data.dicom_masks import mask_objects, read_dicom_mask
from medtool.data.grids import require_same_grid
from medtool.data.picture_volumes import (
    SPACING_UNKNOWN,
    is_of_pictures,
    is_volume,
    measured,
    read_image,
    read_image_mask,
)
from medtool.data.segmentation_preparation import prepare_image
from medtool.data.volumes import Volume
from medtool.dicom import read_array
from medtool.dicom.series import Series
from medtool.dicom.volume import series_grid
from medtool.tasks.segmentation_labels import MASK, scheme_of, structures
from medtool.tasks.segmentation_plan import plan_of
from medtool.tasks.segmentation_settings import SegmentationDataSection, SegmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Half a byte of difference is no duplicate: a hash of all voxels.
HASH_BYTES = 16


@dataclass(frozen=True)
class ReadCase:
    """One case as it was read: ``image`` float32 (channels, z, y, x), ``label`` (z, y, x)."""

    image: NDArray[np.float32]
    label: NDArray[Any] | None
    grid: Grid
    findings: tuple[Finding, ...]


def channels_of(case: Case, data: SegmentationDataSection) -> list[str]:
    """Names of the channels to read, in order. Raises CaseRefused where the case lacks one."""
    names = data.channels or list(case.inputs)
    missing = [name for name in names if name not in case.inputs]
    if missing or not names:
        raise CaseRefused(
            "channels-differ",
            "The case has other channels than the model.",
            met=", ".join(case.inputs) or "none",
            wanted=", ".join(names) or "an image",
        )
    return names


def read_case(case: Case, data: SegmentationDataSection) -> ReadCase:
    """Images and mask of a case. Raises CaseRefused with a reason code."""
    names = channels_of(case, data)
    with spent_on(READING):
        volumes = [_read_input(case.inputs[name]) for name in names]
        mask = _read_mask(case, data, volumes[0].grid)
    first = volumes[0]
    for name, volume in zip(names[1:], volumes[1:], strict=True):
        require_same_grid(first.grid, volume.grid, names=(names[0], name), where=case.case_id)
    if mask is not None:
        require_same_grid(first.grid, mask.grid, names=("image", "mask"), where=case.case_id)
    findings = [f for volume in volumes for f in volume.findings]
    return ReadCase(
        image=np.stack([volume.array for volume in volumes]),
        label=None if mask is None else mask.array,
        grid=first.grid,
        findings=(*findings, *(() if mask is None else mask.findings)),
    )


def _read_input(source: Any) -> Volume:
    return read_series(source) if isinstance(source, Series) else read_image(reference_to(source))


def reference_to(source: Any) -> ImageReference:
    """An input that is no series, as a reference."""
    return source if isinstance(source, ImageReference) else ImageReference(Path(source))


def read_series(series: Series) -> Volume:
    """A DICOM series as a volume, HU for CT. Raises CaseRefused."""
    return Volume(*read_array(series))


def _read_mask(case: Case, data: SegmentationDataSection, image: Grid | None) -> Volume | None:
    if MASK not in case.references:
        return None
    mask = _mask_on(case, data, image)
    require_declared(mask.array, data, case.references[MASK])
    return mask


def require_declared(mask: NDArray[Any], data: SegmentationDataSection, where: str) -> None:
    """Raise CaseRefused ``label-undeclared`` where a mask holds ids that mean nothing."""
    undeclared = _undeclared(mask, data)
    if undeclared:
        raise CaseRefused(
            "label-undeclared",
            "The mask holds ids that no label declares.",
            where=where,
            met=", ".join(map(str, undeclared)),
            wanted="one of: "
            + ", ".join(
                f"{name} {'+'.join(map(str, ids))}" for name, ids in data.label_ids.items()
            ),
        )


def _mask_on(case: Case, data: SegmentationDataSection, image: Grid | None) -> Volume:
    """The mask in a file of its own, or in a DICOM object that was drawn on the case's series."""
    path = Path(case.references[MASK])
    series = next((one for one in case.inputs.values() if isinstance(one, Series)), None)
    if series is None or not mask_objects([path]):
        return read_image_mask(ImageReference(path), image, binary=scheme_of(data).is_binary)
    # A structure is one label; regions that share ids are none that DICOM names.
    ids = {name: ids[0] for name, ids in structures(data).items() if len(ids) == 1}
    array, findings = read_dicom_mask(path, series, ids)
    return Volume(array, series_grid(series), findings)


def _undeclared(mask: NDArray[Any], data: SegmentationDataSection) -> list[int]:
    """Ids of ``mask`` that mean nothing; none where the labels are not known yet."""
    if not data.label_ids:
        return []
    declared = {0, *(number for ids in data.label_ids.values() for number in ids)}
    if data.ignore_id is not None:
        declared.add(data.ignore_id)
    return sorted({int(value) for value in np.unique(mask)} - declared)


def prepare_images(case: Case, settings: SegmentationSettings) -> Prepared:
    """The case on the planned grid, with what is needed to find the way back."""
    found = read_case(case, settings.data)
    said = _scale_findings(found.grid, settings.data.preparation.spacing_mm, case.case_id)
    plan, configuration = plan_of(settings)
    arrays, facts = prepare_image(
        found.image,
        found.label,
        found.grid,
        plan,
        configuration,
        case_id=case.case_id,
        classes=list(structures(settings.data).values()),
    )
    return Prepared(
        case_id=case.case_id,
        arrays=arrays,
        grids={"image": found.grid},
        facts={**facts, "slice_hashes": [pixel_hash(channel) for channel in found.image]},
        findings=(*found.findings, *said),
    )


def _scale_findings(grid: Grid, planned_mm: Sequence[float], where: str) -> tuple[Finding, ...]:
    """What is said of a picture, which does not say how large its pixels are.

    Raises CaseRefused where the plan is in mm: a picture cannot be brought to that.
    """
    if measured(grid) is not None:
        return ()
    if not is_of_pictures(planned_mm):
        raise CaseRefused(
            "not-a-volume",
            "The image is a picture, and the model wants scans in mm.",
            where=where,
            met="a picture, which does not say how large its pixels are",
            wanted="a volume of " + " x ".join(f"{value:.3g}" for value in planned_mm) + " mm",
            how="pictures and scans are trained apart.",
        )
    text = "The picture does not say how large a pixel is: no mL and no mm can be given"
    return (Finding(SPACING_UNKNOWN, text, "warning"),)


def pixel_hash(channel: NDArray[Any]) -> str:
    """What tells equal pixels: a hash of all of them."""
    data = np.ascontiguousarray(channel)
    return hashlib.blake2b(data.data, digest_size=HASH_BYTES).hexdigest()


def read_truth(case: Case, data: SegmentationDataSection) -> Truth:
    """The mask of a case on its own grid, which that of a picture has not. Raises CaseRefused."""
    file = case.references.get(MASK)
    # Pictures of masks have the size of their images, and lie where those do.
    alone = file is None or is_volume(ImageReference(Path(file))) or not case.inputs
    image = None if alone else _read_input(next(iter(case.inputs.values()))).grid
    mask = _read_mask(case, data, image)
    if mask is None:
        return Truth(case.case_id, case.patient_id)
    grid = measured(mask.grid)
    return Truth(
        case.case_id,
        case.patient_id,
        arrays={MASK: mask.array},
        grids={} if grid is None else {MASK: grid},
    )


def check_images(case: Case, data: SegmentationDataSection) -> CheckedCase:
    """What only voxels show of a case; a refusal where it cannot be used."""
    names = data.channels or list(case.inputs)
    missing = [name for name in names if name not in case.inputs]
    if missing or not names:
        text = f"{len(case.inputs)} images ({', '.join(case.inputs) or 'none'}); "
        text += f"the data set has the channels {', '.join(names) or 'none'}"
        finding = Finding("channels-differ", text, "refusal")
        return CheckedCase(case.case_id, case.patient_id, (finding,))
    images = [(name, partial(_read_input, case.inputs[name])) for name in names]
    mask = partial(_mask_on, case, data) if MASK in case.references else None
    return check_read(case.case_id, case.patient_id, images, mask, scheme_of(data))
