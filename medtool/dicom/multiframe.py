"""Functional groups of enhanced and legacy-converted multi-frame objects (PS3.3 C.7.6.16).

Each fact of a frame is looked up in its own groups first, then in the shared ones. What is in
neither is missing: geometry is never taken from elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame's facts; () or None where the object does not say. Lengths in mm."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    thickness_mm: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    image_type: tuple[str, ...]
    stack: str
    temporal: str


def frames_of(dataset: Dataset, count: int) -> list[Frame]:
    """All frames of a multi-frame object in their stored order."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    own = list(dataset.get("PerFrameFunctionalGroupsSequence", None) or [])
    return [_frame(own[k] if k < len(own) else None, shared) for k in range(count)]


def _frame(own: Dataset | None, shared: Dataset | None) -> Frame:
    def group(keyword: str) -> Dataset | None:
        return _first(own, keyword) or _first(shared, keyword)

    measures = group("PixelMeasuresSequence")
    rescale = group("PixelValueTransformationSequence")
    content = group("FrameContentSequence")
    kind = group("CTImageFrameTypeSequence") or group("MRImageFrameTypeSequence")
    kind = kind or group("PETFrameTypeSequence")
    thickness = _numbers(measures, "SliceThickness")
    slope, intercept = _numbers(rescale, "RescaleSlope"), _numbers(rescale, "RescaleIntercept")
    return Frame(
        position=_numbers(group("PlanePositionSequence"), "ImagePositionPatient"),
        orientation=_numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient"),
        spacing_mm=_numbers(measures, "PixelSpacing"),
        thickness_mm=thickness[0] if thickness else None,
        slope=slope[0] if slope else None,
        intercept=intercept[0] if intercept else None,
        rescale_type=_text(rescale, "RescaleType"),
        image_type=tuple(part.upper() for part in _texts(kind, "FrameType")),
        stack=_text(content, "StackID"),
        temporal=_text(content, "TemporalPositionIndex"),
    )


def _first(dataset: Dataset | None, keyword: str) -> Dataset | None:
    items = dataset.get(keyword, None) if dataset is not None else None
    # An empty item counts as absent, so that the shared group is asked.
    return items[0] if items else None


def _value(dataset: Dataset | None, keyword: str) -> Any:
    try:
        return dataset.get(keyword, None) if dataset is not None else None
    except Exception:  # noqa: BLE001 - a value that pydicom cannot convert counts as not a number
        return math.nan


def _numbers(dataset: Dataset | None, keyword: str) -> tuple[float, ...]:
    value = _value(dataset, keyword)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return (math.nan,)


def _texts(dataset: Dataset | None, keyword: str) -> tuple[str, ...]:
    value = _value(dataset, keyword)
    if value is None:
        return ()
    return (value.strip(),) if isinstance(value, str) else tuple(str(v).strip() for v in value)


def _text(dataset: Dataset | None, keyword: str) -> str:
    value = _value(dataset, keyword)
    return "" if value is None else str(value).strip()
