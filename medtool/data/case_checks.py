"""What only voxels show of a segmentation case, and what only all cases together show.

``medtool check`` prints these findings: grids that differ, ids that nobody declared, empty masks,
CT that holds no HU, images that stand there twice, axes that run differently.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Finding
from medtool.data.dataset_record import ImageReference, LabelScheme, SegmentationCase
from medtool.data.grids import grid_text, orientation, same_grid
from medtool.data.images import read_picture, read_picture_mask
from medtool.data.layout_files import image_ending
from medtool.data.matching import shown
from medtool.data.volumes import VOLUME_ENDINGS, read_mask, read_volume
from medtool.dicom.plausible import hu_findings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Channels of these names hold Hounsfield units, as nnU-Net has it too.
CT_CHANNELS = frozenset({"ct"})
DIGEST_BYTES = 16


@dataclass(frozen=True)
class CheckedCase:
    """What was found in one case; ``image_hash`` is "" where no channel could be read.

    ``orientation`` names the axes of a volume (LPS), "" for a picture.
    """

    case_id: str
    patient_id: str
    findings: tuple[Finding, ...]
    image_hash: str = ""
    orientation: str = ""


def check_case(case: SegmentationCase, channels: Sequence[str], labels: LabelScheme) -> CheckedCase:
    """Read images and mask of one case and say everything that is wrong with them.

    What cannot be read is a finding of its code, never an error.
    """
    findings: list[Finding] = []
    if len(case.images) != len(channels):
        text = f"{len(case.images)} images; the data set has {len(channels)} channels"
        findings.append(Finding("channels-differ", text, "refusal"))
        return CheckedCase(case.case_id, case.patient_id, tuple(findings))
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    places: list[_Place] = []
    for channel, reference in zip(channels, case.images, strict=True):
        try:
            seen = _image(reference)
        except CaseRefused as refusal:
            findings.append(_as_finding(refusal))
            continue
        findings += [*seen.findings, *_image_findings(channel, seen)]
        digest.update(np.ascontiguousarray(seen.array).tobytes())
        places.append(_Place(channel, seen.array.shape, seen.grid))
    if case.mask is not None:
        try:
            mask = _mask(case, labels, places)
            findings += [*mask.findings, *label_findings(mask.array, labels)]
            places.append(_Place("mask", mask.array.shape, mask.grid))
        except CaseRefused as refusal:
            findings.append(_as_finding(refusal))
    findings += [_apart(places[0], other) for other in places[1:] if _differ(places[0], other)]
    whole = not any(finding.severity == "refusal" for finding in findings)
    return CheckedCase(
        case.case_id,
        case.patient_id,
        tuple(findings),
        digest.hexdigest() if whole else "",
        orientation(places[0].grid) if places and places[0].grid else "",
    )


def compare_cases(checked: Sequence[CheckedCase]) -> tuple[Finding, ...]:
    """What shows only beside others: the same image twice, axes that run differently."""
    by_hash: dict[str, list[CheckedCase]] = defaultdict(list)
    for one in checked:
        if one.image_hash:
            by_hash[one.image_hash].append(one)
    findings = []
    for same in by_hash.values():
        if len(same) > 1:
            patients = len({one.patient_id for one in same})
            text = f"one image in {len(same)} cases of {patients} patients: "
            text += shown([one.case_id for one in same])
            findings.append(Finding("image-duplicate", text, "warning"))
    axes = Counter(one.orientation for one in checked if one.orientation)
    if len(axes) > 1:
        text = "axes run differently: " + ", ".join(
            f"{name} in {count}" for name, count in axes.most_common()
        )
        findings.append(Finding("orientations-differ", text, "warning"))
    return tuple(findings)


def is_volume(reference: ImageReference) -> bool:
    """Whether a file of this kind holds volumes; pictures and single DICOM files do not."""
    return reference.path.is_dir() or image_ending(reference.path).lower() in VOLUME_ENDINGS


def label_findings(mask: NDArray[Any], labels: LabelScheme) -> list[Finding]:
    """Ids that nobody declared (a refusal), and a mask without any structure (a warning)."""
    ids, counts = np.unique(mask, return_counts=True)
    findings = []
    strange = [(i, n) for i, n in zip(ids, counts, strict=True) if int(i) not in labels.declared]
    if strange:
        met = shown([f"{i} ({n} voxels)" for i, n in strange])
        declared = ", ".join(map(str, sorted(labels.declared)))
        text = f"the mask holds ids that are not declared: {met}; declared are {declared}"
        findings.append(Finding("label-undeclared", text, "refusal"))
    if not any(int(i) not in (0, labels.ignore_id) for i in ids):
        findings.append(Finding("mask-empty", "the mask is all background", "warning"))
    return findings


@dataclass(frozen=True)
class _Seen:
    """An image or mask that was read; ``grid`` is None for a picture."""

    array: NDArray[Any]
    grid: Grid | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Place:
    """Where an image or mask lies: all that is kept of it, so that memory stays small."""

    name: str
    shape: tuple[int, ...]
    grid: Grid | None


def _image(reference: ImageReference) -> _Seen:
    if is_volume(reference):
        volume = read_volume(reference)
        return _Seen(volume.array, volume.grid, volume.findings)
    picture = read_picture(reference)
    return _Seen(picture.array, None, picture.findings)


def _mask(case: SegmentationCase, labels: LabelScheme, places: Sequence[_Place]) -> _Seen:
    """The mask, as its image is: a volume, or a picture of the same size."""
    reference = case.mask or case.images[0]
    if is_volume(reference):
        volume = read_mask(reference)
        return _Seen(volume.array, volume.grid, volume.findings)
    if not places:
        raise CaseRefused("mask-without-image", "The mask has no image to be compared with.")
    binary = labels.declared == {0, 1}
    picture = read_picture_mask(reference, places[0].shape, binary=binary)
    return _Seen(picture.array, None, picture.findings)


def _image_findings(channel: str, seen: _Seen) -> list[Finding]:
    """What the values of one channel show."""
    findings = []
    if seen.array.size and seen.array.min() == seen.array.max():
        text = f"{channel} holds one value only, {float(seen.array.flat[0]):g}"
        findings.append(Finding("image-constant", text, "warning"))
    if seen.grid is None:
        return findings
    if seen.grid.size[2] == 1:
        findings.append(Finding("one-slice", f"{channel} has one slice", "warning"))
    if channel.strip().casefold() in CT_CHANNELS:
        findings += hu_findings(seen.array)
    return findings


def _differ(first: _Place, other: _Place) -> bool:
    if first.grid is not None and other.grid is not None:
        return same_grid(first.grid, other.grid) is not None
    return first.shape[:2] != other.shape[:2]


def _apart(first: _Place, other: _Place) -> Finding:
    """The finding of two grids that differ, with both of them."""
    names = f"{first.name} and {other.name}"
    if first.grid is None or other.grid is None:
        text = f"{names} have different sizes: {first.shape} and {other.shape}"
        return Finding("grids-differ", text, "refusal")
    why = same_grid(first.grid, other.grid)
    text = (
        f"{names} lie on different grids: {why}; {first.name} {grid_text(first.grid)}; "
        f"{other.name} {grid_text(other.grid)}"
    )
    return Finding("grids-differ", text, "refusal")


def _as_finding(refusal: CaseRefused) -> Finding:
    parts = [refusal.what, *(filter(None, [refusal.met, refusal.where]))]
    return Finding(refusal.code, " ".join(parts), "refusal")
