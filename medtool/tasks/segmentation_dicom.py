"""DICOM series with masks: each study with the SEG or RTSTRUCT object that was drawn on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medtool.core.records import Case, Finding
from medtool.data.dicom_masks import MaskObject, mask_objects
from medtool.dicom.series import Series
from medtool.tasks.segmentation_labels import MASK

# What intake says of files that are DICOM and no image.
OTHER_OBJECT = "not-an-image"


@dataclass(frozen=True)
class MaskedStudies:
    """Cases with their masks; ``labels`` (name -> id) are those of all masks together.

    ``channel`` is what the images are called, ``taken`` the files that are masks of a case.
    """

    cases: tuple[Case, ...]
    channel: str
    labels: Mapping[str, int] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()


def with_masks(
    cases: Sequence[Case], skipped: Sequence[Mapping[str, Any]], channel: str, *, named: bool
) -> MaskedStudies:
    """The cases that are DICOM series with the objects among ``skipped`` that name their series.

    Where there are masks and nobody ``named`` the channel, it is named after the modality, which
    says how its values are normalised.
    """
    files = [Path(str(row["file"])) for row in skipped if row["code"] == OTHER_OBJECT]
    of_series: dict[str, list[MaskObject]] = {}
    for found in mask_objects(sorted(files)):
        for uid in found.series_uids:
            of_series.setdefault(uid, []).append(found)
    masked, findings, used = [], [], []
    for case in cases:
        series = case.inputs.get(channel)
        objects = of_series.get(series.uid, []) if isinstance(series, Series) else []
        if not objects:
            masked.append(case)
            continue
        first = objects[0]
        if len(objects) > 1:
            others = ", ".join(one.path.name for one in objects[1:])
            text = f"{case.case_id} has several masks: {first.path.name} is taken, not {others}."
            findings.append(Finding("masks-several", text, "warning"))
        used.append(first)
        masked.append(replace(case, references={**case.references, MASK: str(first.path)}))
    if not used:
        return MaskedStudies(tuple(cases), channel)
    names = sorted({name for one in used for name in one.names})
    called = channel if named else _modality(masked) or channel
    return MaskedStudies(
        tuple(_renamed(case, channel, called) for case in masked),
        called,
        {name: number for number, name in enumerate(names, start=1)},
        frozenset(str(one.path) for one in used),
        tuple(findings),
    )


def _modality(cases: Sequence[Case]) -> str:
    """The modality of every case; "" where they differ or are no DICOM."""
    found = {
        value.modality if isinstance(value, Series) else ""
        for case in cases
        for value in case.inputs.values()
    }
    return found.pop() if len(found) == 1 else ""


def _renamed(case: Case, before: str, after: str) -> Case:
    return replace(
        case, inputs={after if k == before else k: value for k, value in case.inputs.items()}
    )
