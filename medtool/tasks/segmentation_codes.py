"""What each label is called in DICOM: coded category, type and place, as the preset gives them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from medtool.config.document import read_document
from medtool.config.find import shipped_presets
from medtool.core.errors import UsageError
from medtool.core.names import nearest_name
from medtool.dicom.segmentation import ANATOMICAL_STRUCTURE, TISSUE, Code, Segment
from medtool.tasks.segmentation_labels import structures

if TYPE_CHECKING:
    from medtool.core.progress import Reporter
    from medtool.tasks.segmentation import SegmentationTask
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


def check_codes(task: SegmentationTask) -> None:
    """Raises UsageError where a code is of a label that there is not; needs known labels.

    Not for labels of which a preset that ships with the task has codes: it fits many data sets,
    and ``tell_of_codes`` says which of them are of no use here.
    """
    known = list(structures(task.settings.data))
    for key, name in _absent(task):
        if name not in _shipped_labels(task.name, type(task).__module__):
            raise UsageError(
                "A code is given for a label that there is not.",
                where=f"infer.{key}",
                met=name,
                wanted="one of: " + ", ".join(known),
                nearest=nearest_name(name, known),
            )


def tell_of_codes(task: SegmentationTask, reporter: Reporter) -> None:
    """Say which codes of the preset are of labels that the data do not have."""
    absent = list(dict.fromkeys(name for _, name in _absent(task)))
    if not absent:
        return
    infer, known = task.settings.infer, structures(task.settings.data)
    bare = [name for name in known if name not in infer.dicom_type]
    called = f"; without one in infer.dicom_type DICOM SEG calls {', '.join(bare)} tissue"
    reporter.say(
        f"The preset has DICOM codes of labels that the data do not have: {', '.join(absent)}"
        f"{called if bare else ''}."
    )


def _absent(task: SegmentationTask) -> list[tuple[str, str]]:
    """The key and the label of each code whose label there is not."""
    known = structures(task.settings.data)
    return [
        (key, name)
        for key in CODE_KEYS
        for name in getattr(task.settings.infer, key)
        if name not in known
    ]


@cache
def _shipped_labels(task: str, module: str) -> frozenset[str]:
    """Labels of which a preset that comes with the task has codes."""
    files = [read_document(one.file, one.label) for one in shipped_presets(task, module)]
    tables = [file.values.get("infer") or {} for file in files]
    return frozenset(name for infer in tables for key in CODE_KEYS for name in infer.get(key, ()))


def _code(parts: Sequence[str] | None) -> Code | None:
    return None if parts is None else Code(*parts)
