"""Images and masks of a case from their files, checked, on the input's grid and on the planned one.

Axes are those of the arrays: (channels, z, y, x). An image and a mask on different grids are
refused, never resampled to fit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.clock import READING, spent_on
from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding, Prepared, Truth
from medtool.data.case_checks import check_case
from medtool.data.dataset_record import ImageReference, SegmentationCase
from medtool.data.dicom_masks import mask_objects, read_dicom_mask
from medtool.data.grids import require_same_grid
from medtool.data.segmentation_preparation import prepare_image
from medtool.data.volumes import Volume, read_mask, read_volume
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
        mask = _read_mask(case, data)
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
    return read_series(source) if isinstance(source, Series) else read_volume(reference_to(source))


def reference_to(source: Any) -> ImageReference:
    """An input that is no series, as a reference."""
    return source if isinstance(source, ImageReference) else ImageReference(Path(source))


def read_series(series: Series) -> Volume:
    """A DICOM series as a volume, HU for CT. Raises CaseRefused."""
    return Volume(*read_array(series))


def _read_mask(case: Case, data: SegmentationDataSection) -> Volume | None:
    if MASK not in case.references:
        return None
    mask = _mask_at(Path(case.references[MASK]), case, data)
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


def _mask_at(path: Path, case: Case, data: SegmentationDataSection) -> Volume:
    """The mask in a file of its own, or in a DICOM object that was drawn on the case's series."""
    series = next((one for one in case.inputs.values() if isinstance(one, Series)), None)
    if series is None or not mask_objects([path]):
        return read_mask(ImageReference(path))
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
        findings=found.findings,
    )


def pixel_hash(channel: NDArray[Any]) -> str:
    """What tells equal pixels: a hash of all of them."""
    data = np.ascontiguousarray(channel)
    return hashlib.blake2b(data.data, digest_size=HASH_BYTES).hexdigest()


def read_truth(case: Case, data: SegmentationDataSection) -> Truth:
    """The mask of a case on its own grid. Raises CaseRefused."""
    mask = _read_mask(case, data)
    if mask is None:
        return Truth(case.case_id, case.patient_id)
    return Truth(case.case_id, case.patient_id, arrays={MASK: mask.array}, grids={MASK: mask.grid})


def check_images(case: Case, data: SegmentationDataSection) -> list[Finding]:
    """What only voxels show of a case; a refusal where it cannot be used."""
    if any(isinstance(source, Series) for source in case.inputs.values()):
        try:
            return list(read_case(case, data).findings)
        except CaseRefused as refusal:
            what = " ".join(part for part in (refusal.what, refusal.met) if part)
            return [Finding(refusal.code, what, "refusal")]
    names = data.channels or list(case.inputs)
    images = tuple(reference_to(case.inputs[name]) for name in names if name in case.inputs)
    mask = ImageReference(Path(case.references[MASK])) if MASK in case.references else None
    asked = SegmentationCase(case.case_id, case.patient_id, images, mask)
    return list(check_case(asked, names, scheme_of(data)).findings)
