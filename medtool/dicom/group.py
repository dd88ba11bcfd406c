"""Which images belong to one stack.

A DICOM series may hold several stacks (scout and slices, two kernels, two phases), and with empty
UIDs a folder may hold several series. Images are grouped by what makes a stack by itself; then
parts that differ in thickness, acquisition or kind of image are told apart only where they cover
the same stretch of the patient (a head in two thicknesses is one stack).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medtool.dicom import tags
from medtool.dicom.image import Image
from medtool.dicom.stack import ORIENTATION_TOLERANCE, SAME_POSITION_MM, along, plane_axes

# PixelSpacing that agrees to this is one spacing (decimal strings are rounded).
SPACING_DIGITS = 4

_INVALID = (math.nan,) * 6

# Told apart only where positions overlap, in this order.
OVERLAP_KEYS: tuple[tuple[str, Callable[[Image], Hashable]], ...] = (
    ("ImageType", lambda image: image.kind.image_type[2:]),
    ("SliceThickness", lambda image: image.frame.thickness_mm),
    ("AcquisitionNumber", lambda image: image.header.integer(tags.ACQUISITION_NUMBER)),
)


@dataclass
class Group:
    """Images of one stack, ascending along its normal, and how it was told from its siblings."""

    images: list[Image]
    orientation: tuple[float, ...]
    told_by: str = ""


def group_images(images: Sequence[Image]) -> list[Group]:
    """Stacks in order of first appearance; images without geometry make groups of their own."""
    buckets: dict[Hashable, list[Image]] = {}
    directions: dict[Hashable, list[tuple[float, ...]]] = {}
    for image in images:
        kind, frame, pixels = image.kind, image.frame, image.plane.pixels
        # Kernel, frame of reference and class of image are part of the kind; ImageType is not
        # told apart yet. Where the series UID is empty, the folder stands for it.
        key = (
            kind.patient_id,
            kind.study_uid,
            kind.series_uid or image.header.path.parent,
            kind.modality,
            kind.classes,
            kind.frame_of_reference,
            kind.kernel,
            frame.stack,
            pixels.rows,
            pixels.columns,
            _rounded(frame.spacing_mm),
        )
        direction = _nearest_direction(frame.orientation, directions.setdefault(key, []))
        placed = all(map(math.isfinite, image.plane.position_mm))
        buckets.setdefault((key, direction, placed), []).append(image)
    return [group for bucket in buckets.values() for group in _stacks(bucket)]


@lru_cache(maxsize=256)
def _rounded(spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, SPACING_DIGITS) for value in spacing_mm)


def _nearest_direction(
    orientation: tuple[float, ...], known: list[tuple[float, ...]]
) -> tuple[float, ...]:
    """The orientation that was seen before within the tolerance, else this one from now on."""
    if orientation in known:
        return orientation
    if not all(math.isfinite(value) for value in orientation):
        return _INVALID
    for other in known:
        if len(other) == len(orientation) and all(
            abs(a - b) <= ORIENTATION_TOLERANCE for a, b in zip(other, orientation, strict=True)
        ):
            return other
    known.append(orientation)
    return orientation


def _stacks(images: list[Image]) -> list[Group]:
    orientation = Counter(image.frame.orientation for image in images).most_common(1)[0][0]
    axes = plane_axes(orientation)
    if axes is None or any(value != value for i in images for value in i.plane.position_mm):
        return [Group(images, orientation)]
    placed = sorted(
        ((along(image.plane.position_mm, axes.normal), image) for image in images),
        key=lambda pair: (pair[0], pair[1].plane.sop_instance_uid, str(pair[1].plane.path)),
    )
    groups = [(placed, "")]
    for name, key in OVERLAP_KEYS:
        groups = [
            (part, told_by if len(parts) == 1 else name)
            for stack, told_by in groups
            for parts in [_apart(stack, key)]
            for part in parts
        ]
    return [Group([image for _, image in stack], orientation, told_by) for stack, told_by in groups]


Placed = list[tuple[float, Image]]


def _apart(stack: Placed, key: Callable[[Image], Hashable]) -> list[Placed]:
    """Split by ``key`` where parts overlap; parts that follow one another stay together."""
    parts: dict[Hashable, Placed] = {}
    for place, image in stack:
        parts.setdefault(key(image), []).append((place, image))
    if len(parts) == 1 or not _has_two_at_one_stretch(list(parts.values())):
        return [stack]
    # Parts are laid into the first stack where they cover nothing that is there already.
    stacks: list[list[Placed]] = []
    for name in sorted(parts, key=_sortable):
        part = parts[name]
        free = (s for s in stacks if not any(_overlap(part, other) for other in s))
        target = next(free, None)
        if target is None:
            stacks.append([part])
        else:
            target.append(part)
    return [sorted((p for part in s for p in part), key=lambda pair: pair[0]) for s in stacks]


def _has_two_at_one_stretch(parts: list[Placed]) -> bool:
    by_start = sorted(parts, key=lambda part: part[0][0])
    reach = by_start[0][-1][0]
    for part in by_start[1:]:
        if part[0][0] < reach + SAME_POSITION_MM:
            return True
        reach = max(reach, part[-1][0])
    return False


def _overlap(first: Placed, second: Placed) -> bool:
    return (
        first[0][0] < second[-1][0] + SAME_POSITION_MM
        and second[0][0] < first[-1][0] + SAME_POSITION_MM
    )


def _sortable(value: Any) -> tuple[bool, Any]:
    """None first; numbers and tuples of one kind among themselves."""
    return (value is not None, value if value is not None else 0)
