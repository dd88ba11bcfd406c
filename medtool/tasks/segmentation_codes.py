"""What each label is called in DICOM: coded category, type and place, as the preset gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medtool.core.errors import UsageError
from medtool.core.names import nearest_name
from medtool.dicom.segmentation import ANATOMICAL_STRUCTURE, TISSUE, Code, Segment
from medtool.tasks.segmentation_labels import structures

if TYPE_CHECKING:
    from medtool.tasks.segmentation_settings import SegmentationSettings

CODE_KEYS = ("dicom_category", "dicom_type", "dicom_region")


def dicom_segments(settings: SegmentationSettings) -> list[Segment]:
    """A segment for each label or region, in their order."""
    infer = settings.infer
    return [
        Segment(
            name,
            ids,
            category=_code(infer.dicom_category.get(name)) or ANATOMICAL_STRUCTURE,
            kind=_code(infer.dicom_type.get(name)) or TISSUE,
            region=_code(infer.dicom_region.get(name)),
        )
        for name, ids in structures(settings.data).items()
    ]


def check_codes(settings: SegmentationSettings) -> None:
    """Raises UsageError where a code is of a label that there is not; needs known labels."""
    known = list(structures(settings.data))
    for key in CODE_KEYS:
        for name in getattr(settings.infer, key):
            if name not in known:
                raise UsageError(
                    "A code is given for a label that there is not.",
                    where=f"infer.{key}",
                    met=name,
                    wanted="one of: " + ", ".join(known),
                    nearest=nearest_name(name, known),
                )


def _code(parts: Sequence[str] | None) -> Code | None:
    return None if parts is None else Code(*parts)
