"""What only voxels show of a segmentation case, and what only all cases together show.

``medtool check`` prints these findings: grids that differ, ids that nobody declared, empty masks,
CT that holds no HU, images that stand there twice, axes that run differently.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.names import counted
from medtool.core.records import CheckedCase, Finding
from medtool.data.dataset_record import LabelScheme, SegmentationCase
from medtool.data.grids import grid_text, orientation, same_grid
from medtool.data.matching import shown
from medtool.data.picture_volumes import measured, read_image, read_image_mask
from medtool.data.volumes import Volume
from medtool.dicom.plausible import hu_findings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Channels of these names hold Hounsfield units, as nnU-Net has it too.
CT_CHANNELS = frozenset({"ct"})
DIGEST_BYTES = 16


# Gives an image, or raises CaseRefused.
ReadImage = Callable[[], Volume]
# Gives the mask of an image on this grid; None where no image could be read.
ReadMask = Callable[[Grid | None], Volume]


def check_case(case: SegmentationCase, channels: Sequence[str], labels: LabelScheme) -> CheckedCase:
    """Read images and mask of one case and say everything that is wrong with them.

    What cannot be read is a finding of its code, never an error.
    """
    if len(case.images) != len(channels):
        text = f"{len(case.images)} images; the data set has {len(channels)} channels"
        finding = Finding("channels-differ", text, "refusal")
        return CheckedCase(case.case_id, case.patient_id, (finding,))
    images = [
        (channel, partial(read_image, reference))
        for channel, reference in zip(channels, case.images, strict=True)
    ]
    mask: ReadMask | None = None
    if case.mask is not None:
        mask = partial(read_image_mask, case.mask, binary=labels.is_binary)
    return check_read(case.case_id, case.patient_id, images, mask, labels)


def check_read(
    case_id: str,
    patient_id: str,
    images: Sequence[tuple[str, ReadImage]],
    mask: ReadMask | None,
    labels: LabelScheme,
) -> CheckedCase:
    """As ``check_case``, of images and a mask that are read as they are asked for."""
    findings: list[Finding] = []
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    # Of images only this is kept, so that memory stays small.
    places: list[tuple[str, Grid]] = []
    for channel, read in images:
        try:
            seen = read()
        except CaseRefused as refusal:
            findings.append(_as_finding(refusal))
            continue
        findings += [*seen.findings, *_image_findings(channel, seen)]
        digest.update(np.ascontiguousarray(seen.array).data)
        places.append((channel, seen.grid))
    first = places[0][1] if places else None
    if mask is not None:
        try:
            drawn = mask(first)
            findings += [*drawn.findings, *label_findings(drawn.array, labels)]
            places.append(("mask", drawn.grid))
        except CaseRefused as refusal:
            findings.append(_as_finding(refusal))
    findings += [finding for other in places[1:] for finding in _apart(places[0], other)]
    whole = first is not None and all(finding.severity != "refusal" for finding in findings)
    scan = None if first is None else measured(first)
    return CheckedCase(
        case_id,
        patient_id,
        tuple(findings),
        digest.hexdigest() if whole else "",
        "" if scan is None else orientation(scan),
        is_picture=first is not None and scan is None,
    )


def compare_cases(checked: Sequence[CheckedCase]) -> tuple[Finding, ...]:
    """What shows only beside others: an image twice, axes that differ, pictures among scans."""
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
    pictures = sum(one.is_picture for one in checked)
    scans = sum(bool(one.orientation) for one in checked)
    if pictures and scans:
        text = f"{counted(pictures, 'picture')} and {counted(scans, 'scan')}: pictures do not say "
        text += "how large their pixels are, so that both are trained apart"
        findings.append(Finding("kinds-differ", text, "warning"))
    return tuple(findings)


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


def _image_findings(channel: str, seen: Volume) -> list[Finding]:
    """What the values of one channel show."""
    findings = []
    if seen.array.size and seen.array.min() == seen.array.max():
        text = f"{channel} holds one value only, {float(seen.array.flat[0]):g}"
        findings.append(Finding("image-constant", text, "warning"))
    if measured(seen.grid) is None:
        return findings
    if seen.grid.size[2] == 1:
        findings.append(Finding("one-slice", f"{channel} has one slice", "warning"))
    if channel.strip().casefold() in CT_CHANNELS:
        findings += hu_findings(seen.array)
    return findings


def _apart(first: tuple[str, Grid], other: tuple[str, Grid]) -> list[Finding]:
    """The finding of two grids that differ, with both of them; none where they do not."""
    why = same_grid(first[1], other[1])
    if why is None:
        return []
    text = f"{first[0]} and {other[0]} lie on different grids: {why}; "
    text += "; ".join(f"{name} {grid_text(grid)}" for name, grid in (first, other))
    return [Finding("grids-differ", text, "refusal")]


def _as_finding(refusal: CaseRefused) -> Finding:
    parts = [refusal.what, *(filter(None, [refusal.met, refusal.where]))]
    return Finding(refusal.code, " ".join(parts), "refusal")
