"""Slices of one size and one scale, and what leads back to the input.

Arrays of a prepared case: ``image`` float16 (slices, rows, columns) of 0 to 1, in colour
(slices, rows, columns, 3); where a mask is known ``label`` uint8 (slices, rows, columns). The grid
``image`` is the input's; a case whose file does not say how large pixels are has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.records import Case, CheckedCase, Finding, Prepared
from medtool.data.case_checks import label_findings
from medtool.data.grids import orientation
from medtool.data.picture_volumes import SPACING_UNKNOWN
from medtool.tasks.planar_reading import COLOURS, PixelKind, ReadSlices, read_slices
from medtool.tasks.segmentation_labels import scheme_of
from medtool.tasks.segmentation_reading import pixel_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid
    from medtool.tasks.planar_settings import PlanarPreparationSection, PlanarSettings

FULL_8_BIT = 255.0
# What pixels have to be where the scale is that of one kind.
WANTED: dict[str, tuple[PixelKind, str]] = {
    "8-bit": ("8-bit", "pictures of 8 bits a channel"),
    "window": ("hu", "CT in HU: DICOM, or volumes of a channel named CT"),
}


def prepare_slices(case: Case, settings: PlanarSettings) -> Prepared:
    """The case as the network will see it. Raises CaseRefused."""
    found = read_slices(case, settings.data)
    preparation = settings.data.preparation
    _require_usable(found, settings, case.case_id)
    rows, columns = preparation.size_px
    size = (rows, columns)
    scaled = _scaled(found.image, preparation)
    arrays: dict[str, NDArray[Any]] = {
        "image": np.stack([_resized(plane, size) for plane in scaled]).astype(np.float16)
    }
    labelled: list[int] = []
    if found.label is not None:
        arrays["label"] = np.stack([_resized_label(plane, size) for plane in found.label])
        labelled = [int(n) for n, plane in enumerate(arrays["label"]) if plane.any()]
    facts: dict[str, Any] = {
        "slices": len(found.image),
        "size_px": list(found.size_px),
        "labelled_slices": labelled,
        "slice_hashes": [pixel_hash(found.image)],
    }
    findings = list(found.findings)
    if found.grid is None:
        text = "The picture does not say how large a pixel is: no mL and no mm can be given"
        findings.append(Finding(SPACING_UNKNOWN, text, "warning"))
    else:
        facts["spacing_mm"] = list(found.grid.spacing_mm)
    grids: dict[str, Grid] = {} if found.grid is None else {"image": found.grid}
    return Prepared(case.case_id, arrays, grids, facts=facts, findings=tuple(findings))


def check_slices(case: Case, settings: PlanarSettings) -> CheckedCase:
    """What only pixels show of a case; a refusal where it cannot be used."""
    try:
        found = read_slices(case, settings.data)
        _require_usable(found, settings, case.case_id)
    except CaseRefused as refusal:
        what = " ".join(part for part in (refusal.what, refusal.met) if part)
        finding = Finding(refusal.code, what, "refusal")
        return CheckedCase(case.case_id, case.patient_id, (finding,))
    findings = list(found.findings)
    if found.image.size and found.image.min() == found.image.max():
        text = f"the image holds one value only, {float(found.image.flat[0]):g}"
        findings.append(Finding("image-constant", text, "warning"))
    if found.label is not None:
        findings += label_findings(found.label, scheme_of(settings.data))
    return CheckedCase(
        case.case_id,
        case.patient_id,
        tuple(findings),
        pixel_hash(found.image),
        # A single slice lies as it was cut; stacks are compared.
        orientation(found.grid) if found.grid is not None and len(found.image) > 1 else "",
    )


def _require_usable(found: ReadSlices, settings: PlanarSettings, where: str) -> None:
    """Refuse colour where the network takes grey, and pixels of another kind than the scale's."""
    channels, intensity = settings.model.input_channels, settings.data.preparation.intensity
    if found.image.ndim == 4 and channels != COLOURS:
        raise CaseRefused(
            "channels-differ",
            "The picture is in colour, and the network takes grey ones.",
            where=where,
            met=f"{found.image.shape[-1]} channels",
            wanted=f"{channels}",
            how=f"model.input_channels = {COLOURS} takes both.",
        )
    if intensity in WANTED and found.kind != WANTED[intensity][0]:
        raise CaseRefused(
            "scale-differs",
            f"The model scales its input as {intensity}, and these pixels are none such.",
            where=where,
            met=f"{found.image.dtype} pixels" + (" in HU" if found.kind == "hu" else ""),
            wanted=WANTED[intensity][1],
            how="data.preparation.intensity = percentiles takes every kind, in a new training.",
        )


def _scaled(image: NDArray[Any], preparation: PlanarPreparationSection) -> NDArray[np.float32]:
    """The image as 0 to 1."""
    low, high = _ends(image, preparation)
    scaled: NDArray[np.float32] = image.astype(np.float32)
    scaled -= np.float32(low)
    # Of an image of one value nothing is stretched.
    scaled /= np.float32(high - low) if high > low else np.float32(1)
    return np.clip(scaled, 0, 1, out=scaled)


def _ends(image: NDArray[Any], preparation: PlanarPreparationSection) -> tuple[float, float]:
    """The values that become 0 and 1."""
    if preparation.intensity == "8-bit":
        return 0.0, FULL_8_BIT
    if preparation.intensity == "window":
        half = preparation.window_width_hu / 2
        return preparation.window_level_hu - half, preparation.window_level_hu + half
    asked = (preparation.low_percentile, preparation.high_percentile)
    low, high = np.percentile(image, asked)
    return float(low), float(high)


def _resized(plane: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """A slice (rows, columns) or in colour at another size: means of areas where it shrinks."""
    import cv2

    rows, columns = size_px
    if plane.shape[:2] == (rows, columns):
        return plane
    shrinks = rows <= plane.shape[0] and columns <= plane.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (columns, rows), interpolation=how), dtype=np.float32)


def _resized_label(plane: NDArray[Any], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    import cv2

    rows, columns = size_px
    ids = plane.astype(np.uint8)
    if ids.shape == (rows, columns):
        return ids
    how = cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(ids, (columns, rows), interpolation=how), dtype=np.uint8)
