"""Stage 1: where the brain is, by HU and 3D morphology; no network, no atlas.

Head -> bone -> soft tissue inside -> what survives an erosion and hangs together -> grown back ->
holes filled. A brain of implausible volume (open skull, metal, another body part) is replaced by
the head as a whole and flagged; nothing here raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool.core.geometry import Triple
from medtool.core.records import Finding
from medtool_brainmet import morphology
from medtool_brainmet.morphology import Mask

if TYPE_CHECKING:
    from medtool_brainmet.settings import ExtractionSection

# Everything denser than this, in one piece, is the head; a table is another piece.
HEAD_HU = -300.0
# Masks are worked out on pixels of about this size: finer ones only cost time.
WORKING_PIXEL_MM = 1.0
# Below this coverage a scan is not a whole head, and a small brain no fault.
FULL_HEAD_MM = 120.0
# No brain is lower than this, a small child's aside: what lies beyond such a scan is not seen.
PARTIAL_HEAD_MM = 100.0
# A brain lies inside bone; of a mask with less than this share there, it is no brain. With half the
# skull gone (craniectomy) a sixth is left; of other parts of the body there is nothing.
LEAST_ENCLOSED_SHARE = 0.1


@dataclass(frozen=True)
class BrainMask:
    """The mask on the grid of the scan (z, y, x), and how far it is to be trusted.

    ``volume_ml`` and ``enclosed_share`` (in bone, slice by slice) are those of the candidate, also
    where ``fallback`` says that the whole head was taken instead.
    """

    mask: Mask
    volume_ml: float
    enclosed_share: float
    full_head: bool
    fallback: bool
    findings: tuple[Finding, ...]


def extract_brain(
    volume_hu: NDArray[np.float32], spacing_mm: Triple, settings: ExtractionSection
) -> BrainMask:
    """The brain in ``volume_hu`` (z, y, x); spacing is (x, y, z) in mm. Never raises."""
    working, working_mm = _coarser(np.nan_to_num(volume_hu, nan=-1024.0), spacing_mm)
    head = morphology.fill_slices(morphology.largest_component(working > HEAD_HU))
    bone = morphology.close(working > settings.bone_hu, settings.bone_closing_mm, working_mm)
    soft = (working >= settings.low_hu) & (working <= settings.high_hu)
    inside = head & soft & ~bone
    core = morphology.largest_component(morphology.erode(inside, settings.erosion_mm, working_mm))
    brain = morphology.dilate(core, settings.erosion_mm, working_mm) & inside
    brain = morphology.fill_volume(morphology.fill_slices(brain))
    voxel_ml = float(np.prod(working_mm)) / 1000.0
    volume_ml = float(brain.sum()) * voxel_ml
    enclosed = morphology.fill_slices(bone)
    enclosed_share = float((brain & enclosed).sum()) / max(1.0, float(brain.sum()))
    extent_mm = _extent_mm(head, working_mm[2])
    full_head = extent_mm >= FULL_HEAD_MM
    finding = _judge(volume_ml, enclosed_share, full_head=full_head, settings=settings)
    chosen = brain if finding is None else head
    return BrainMask(
        mask=_finer(chosen, volume_hu.shape),
        volume_ml=volume_ml,
        enclosed_share=enclosed_share,
        full_head=full_head,
        fallback=finding is not None,
        findings=(*([] if finding is None else [finding]), *_said_of_coverage(extent_mm)),
    )


def _judge(
    volume_ml: float, enclosed_share: float, *, full_head: bool, settings: ExtractionSection
) -> Finding | None:
    """Why the candidate is not taken for a brain, or None."""
    low_ml, high_ml = settings.least_volume_ml, settings.largest_volume_ml
    if volume_ml == 0.0 or enclosed_share < LEAST_ENCLOSED_SHARE:
        return Finding(
            "no-brain",
            f"no brain was found inside a skull ({volume_ml:.0f} mL of soft tissue, "
            f"{enclosed_share:.0%} of it inside bone)",
            "refusal",
        )
    if volume_ml > high_ml or (full_head and volume_ml < low_ml):
        return Finding(
            "brain-volume",
            f"the brain that was found has {volume_ml:.0f} mL, expected are {low_ml:.0f} to "
            f"{high_ml:.0f} mL in a whole head; the whole head is used instead",
            "warning",
        )
    return None


def _said_of_coverage(extent_mm: float) -> tuple[Finding, ...]:
    """A warning where the scan is too short for a whole head."""
    if extent_mm >= PARTIAL_HEAD_MM:
        return ()
    text = (
        f"the scan shows {extent_mm:.0f} mm of a head, a whole one has {PARTIAL_HEAD_MM:.0f} mm "
        "and more: nothing is said of what lies outside it"
    )
    return (Finding("partial-head", text, "warning"),)


def _coarser(
    volume_hu: NDArray[np.float32], spacing_mm: Triple
) -> tuple[NDArray[np.float32], Triple]:
    """The volume with pixels averaged in blocks up to about WORKING_PIXEL_MM, and its spacing."""
    x_mm, y_mm, z_mm = spacing_mm
    _, rows, columns = volume_hu.shape
    factors = [max(1, int(WORKING_PIXEL_MM / step + 0.05)) for step in (x_mm, y_mm)]
    if factors == [1, 1]:
        return volume_hu, spacing_mm
    width, height = max(1, columns // factors[0]), max(1, rows // factors[1])
    smaller = np.stack(
        [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in volume_hu]
    )
    return smaller, (x_mm * columns / width, y_mm * rows / height, z_mm)


def _finer(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask on the grid of the scan, by nearest pixel."""
    if mask.shape == shape:
        return mask
    size = (shape[2], shape[1])
    planes = [
        cv2.resize(plane.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
        for plane in mask
    ]
    return np.stack(planes).astype(bool)


def _extent_mm(mask: Mask, step_mm: float) -> float:
    """Length along z of the slices that hold anything."""
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    return 0.0 if held.size == 0 else float(held[-1] - held[0] + 1) * step_mm
