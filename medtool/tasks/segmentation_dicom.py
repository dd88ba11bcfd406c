"""DICOM series with masks: each study with the SEG or RTSTRUCT object that was drawn on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medtool.core.records import Case, Finding
from medtool.data.dicom_masks import MaskObject, find_masks, images_drawn_on
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
    objects, broken = find_masks(sorted(files))
    findings = [Finding(one.code, f"{one.file.name} is {one.why}.", "warning") for one in broken]
    masked, used = [], []
    for case in cases:
        series = case.inputs.get(channel)
        own, said = _drawn_on(series, objects, case) if isinstance(series, Series) else ([], [])
        findings += said
        if not own:
            masked.append(case)
            continue
        first = own[0]
        if len(own) > 1:
            others = ", ".join(one.path.name for one in own[1:])
            text = f"{case.case_id} has several masks: {first.path.name} is taken, not {others}."
            findings.append(Finding("masks-several", text, "warning"))
        used.append(first)
        masked.append(replace(case, references={**case.references, MASK: str(first.path)}))
    if not used:
        return MaskedStudies(tuple(cases), channel, findings=tuple(findings))
    names = sorted({name for one in used for name in one.names})
    called = channel if named else _modality(masked) or channel
    return MaskedStudies(
        tuple(_renamed(case, channel, called) for case in masked),
        called,
        {name: number for number, name in enumerate(names, start=1)},
        frozenset(str(one.path) for one in used),
        tuple(findings),
    )


def _drawn_on(
    series: Series, objects: Sequence[MaskObject], case: Case
) -> tuple[list[MaskObject], list[Finding]]:
    """The objects that were drawn on a series, and what is said of others of its study."""
    own: list[MaskObject] = []
    said: list[Finding] = []
    images = {plane.sop_instance_uid for plane in series.planes}
    for found in objects:
        if series.uid not in found.series_uids:
            if not series.study_uid or found.study_uid != series.study_uid:
                continue
            elsewhere = f"series {', '.join(sorted(found.series_uids)) or 'that it does not name'}"
        else:
            drawn_on = images_drawn_on(found)
            if not drawn_on or drawn_on & images:
                own.append(found)
                continue
            # Phases of one series lie at the same places: only the images tell which was meant.
            elsewhere = f"other images of series {series.uid}"
        text = f"{case.case_id}: the mask {found.path.name} was drawn on {elsewhere}, "
        text += f"and {series.key} is the one that was chosen: the mask is left out."
        said.append(Finding("mask-of-other-series", text, "warning"))
    return own, said


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
