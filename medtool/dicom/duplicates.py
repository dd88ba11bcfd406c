"""Several images at one position: copies are dropped, phases are split, the rest is refused.

Two images are copies when their values after rescale are equal in every pixel and no header
element tells them apart as phases. What differs is never dropped ("first wins"): either one
element separates all of them into complete stacks, or the stack is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom import tags
from medtool.dicom.image import Image
from medtool.dicom.stack import SAME_POSITION_MM, along, plane_axes

Key = Callable[[Image], Hashable]


def _text_of(tag: int) -> Key:
    return lambda image: image.header.text(tag)


# Elements that tell phases apart (PS3.3): what they say is taken even if a phase is incomplete.
PHASES: tuple[tuple[str, Key], ...] = (
    ("TemporalPosition", lambda image: image.frame.temporal),
    ("TriggerTime", _text_of(tags.TRIGGER_TIME)),
    ("EchoNumbers", _text_of(tags.ECHO_NUMBERS)),
    ("EchoTime", _text_of(tags.ECHO_TIME)),
    ("AcquisitionNumber", _text_of(tags.ACQUISITION_NUMBER)),
    ("ImageType", lambda image: image.kind.image_type),
    ("SliceThickness", lambda image: image.frame.thickness_mm),
    ("ContrastBolusAgent", _text_of(tags.CONTRAST_AGENT)),
)
# Elements that only suggest phases: taken where each phase then has the same positions.
HINTS: tuple[tuple[str, Key], ...] = (
    ("AcquisitionTime", _text_of(tags.ACQUISITION_TIME)),
    ("ContentTime", _text_of(tags.CONTENT_TIME)),
)


@dataclass
class Settled:
    """One stack without duplicates, or one that must be refused for them.

    ``copies`` are the images that were dropped because they equal one of ``images``.
    """

    images: list[Image]
    findings: list[Finding] = field(default_factory=list)
    copies: list[Image] = field(default_factory=list)


def settle_duplicates(images: Sequence[Image], orientation: Sequence[float]) -> list[Settled]:
    """Stacks of images at distinct positions along the normal; reads pixels of duplicates only."""
    axes = plane_axes(orientation)
    if axes is None:
        return [Settled(list(images))]
    places = [along(image.plane.position_mm, axes.normal) for image in images]
    clusters = _clusters(list(images), places)
    if all(len(cluster) == 1 for cluster in clusters):
        return [Settled(list(images))]
    kept, dropped = _without_copies(clusters)
    findings = []
    if dropped:
        names = ", ".join(image.plane.path.name for image in dropped[:5])
        more = f" and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        findings.append(
            Finding(
                "duplicate-dropped",
                f"{len(dropped)} identical cop{'y' if len(dropped) == 1 else 'ies'} of slices "
                f"dropped, equal in every pixel ({names}{more})",
            )
        )
    flat = [image for cluster in kept for image in cluster]
    if all(len(cluster) == 1 for cluster in kept):
        return [Settled(flat, findings, dropped)]
    stacks = _phases(kept)
    if stacks is None:
        several = sum(len(cluster) > 1 for cluster in kept)
        message = f"{several} positions hold several different images that nothing tells apart"
        findings.append(Finding("duplicate-positions", message, "refusal"))
        return [Settled(flat, findings, dropped)]
    name, parts = stacks
    parts[0].copies = dropped
    uneven = len({len(part.images) for part in parts}) > 1
    for part in parts:
        message = f"one of {len(parts)} stacks at the same positions, told apart by {name}"
        part.findings = [*findings, Finding("split-by-phase", message, "note"), *part.findings]
        if uneven:
            message = "the stacks at these positions have different numbers of slices"
            part.findings.append(Finding("unequal-phases", message, "warning"))
    return parts


def real_values(image: Image) -> NDArray[np.float64]:
    """Values after rescale (rows, columns). Raises CaseRefused where pixels cannot be read."""
    from medtool.dicom.pixels import stored_values

    plane = image.plane
    return np.asarray(stored_values(plane), dtype=np.float64) * plane.slope + plane.intercept


def _clusters(images: list[Image], places: list[float]) -> list[list[Image]]:
    order = sorted(range(len(images)), key=lambda k: places[k])
    clusters: list[list[Image]] = []
    last = -np.inf
    for k in order:
        if clusters and places[k] - last <= SAME_POSITION_MM:
            clusters[-1].append(images[k])
        else:
            clusters.append([images[k]])
            last = places[k]
    return clusters


def _without_copies(clusters: list[list[Image]]) -> tuple[list[list[Image]], list[Image]]:
    kept: list[list[Image]] = []
    dropped: list[Image] = []
    for cluster in clusters:
        unique: list[Image] = []
        # By hashes, so that each image is read once: a file may hold thousands at one position.
        likes = Counter(map(_likeness, cluster))
        seen: set[Hashable] = set()
        for image in sorted(cluster, key=_stable):
            likeness = _likeness(image)
            digest = _digest(image) if likes[likeness] > 1 else b""
            (dropped if digest and (likeness, digest) in seen else unique).append(image)
            seen.add((likeness, digest))
        kept.append(unique)
    return kept, dropped


def _stable(image: Image) -> tuple[int, str, str, int]:
    plane = image.plane
    return (plane.instance_number or 0, plane.sop_instance_uid, str(plane.path), plane.frame)


def _likeness(image: Image) -> Hashable:
    """What copies share beside their pixels: the phase, and the place to the last digit."""
    return (*(key(image) for _, key in PHASES), image.plane.position_mm)


def _digest(image: Image) -> bytes:
    """Equal for equal values in images of one size; b"" where pixels cannot be read."""
    try:
        values = real_values(image)
    except CaseRefused:
        # What cannot be read cannot be called a copy.
        return b""
    # Minus zero becomes zero.
    return blake2b(str(values.shape).encode() + (values + 0.0).tobytes()).digest()


def _phases(clusters: list[list[Image]]) -> tuple[str, list[Settled]] | None:
    for name, key in PHASES:
        parts = _parts(clusters, key)
        if parts is not None:
            return name, parts
    for name, key in HINTS:
        parts = _parts(clusters, key)
        if parts is not None and all(len(part.images) == len(clusters) for part in parts):
            return name, parts
    return _by_number(clusters)


def _parts(clusters: list[list[Image]], key: Key) -> list[Settled] | None:
    """One stack for each value of ``key``, if each then has one image at a position."""
    parts: dict[Hashable, list[Image]] = {}
    for cluster in clusters:
        values = [key(image) for image in cluster]
        if len(set(values)) < len(values):
            return None
        for value, image in zip(values, cluster, strict=True):
            parts.setdefault(value, []).append(image)
    # Values that differ from slice to slice (times of slices) tell no phases apart.
    if len(parts) > max(len(cluster) for cluster in clusters):
        return None
    return [Settled(part) for _, part in sorted(parts.items(), key=lambda item: str(item[0]))]


def _by_number(clusters: list[list[Image]]) -> tuple[str, list[Settled]] | None:
    """Blocks of InstanceNumber, where each block is one complete pass over the positions."""
    count = len(clusters)
    images = [image for cluster in clusters for image in cluster]
    numbers = [image.plane.instance_number for image in images]
    known = [number for number in numbers if number is not None]
    if len(set(known)) < len(images):
        return None
    rank = {number: k for k, number in enumerate(sorted(known))}
    for name, block in (
        ("blocks of InstanceNumber", lambda image: rank[image.plane.instance_number] // count),
        (
            "alternation of InstanceNumber",
            lambda image: rank[image.plane.instance_number] % (len(images) // count),
        ),
    ):
        parts = _parts(clusters, block)
        if parts is not None and all(len(part.images) == count for part in parts):
            return name, parts
    return None
