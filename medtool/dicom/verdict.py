"""One group of images becomes one or more ``Series`` with verdict, reasons and facts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from medtool.core.records import Finding
from medtool.dicom import tags
from medtool.dicom.choose import score
from medtool.dicom.classify import class_findings
from medtool.dicom.codes import is_repair
from medtool.dicom.duplicates import Settled, settle_duplicates
from medtool.dicom.group import Group
from medtool.dicom.image import Image
from medtool.dicom.series import Plane, Series, StackGeometry, Verdict
from medtool.dicom.stack import SAME_POSITION_MM, Stack, plane_axes, sort_planes, stack_geometry

# Of findings that many images share, this many are named one by one.
NAMED_IMAGES = 3


def judge(group: Group) -> list[Series]:
    """The series of one group: several where images at the same positions are phases."""
    placed = _placement_findings(group)
    if placed:
        return [_series(Settled(group.images, placed), group, None)]
    broken = any(image.problems for image in group.images)
    broken = broken or any(code != "derived" for code in group.images[0].kind.classes)
    if broken:
        # Pixels of what is refused anyway are not worth reading to tell copies from phases.
        settled = [Settled(group.images)]
    else:
        settled = settle_duplicates(group.images, group.orientation)
    unsettled = broken or any(f.code == "duplicate-positions" for f in settled[0].findings)
    return [_series(part, group, _stack(part, group, is_settled=not unsettled)) for part in settled]


def _placement_findings(group: Group) -> list[Finding]:
    images = group.images
    first = images[0]
    missing = [
        name
        for name, value in (
            ("ImageOrientationPatient", first.frame.orientation),
            ("ImagePositionPatient", first.position),
            ("PixelSpacing", first.frame.spacing_mm),
        )
        if not value
    ]
    if missing:
        text = f"{_count(images)} without {', '.join(missing)}"
        return [Finding("no-position", text, "refusal")]
    return []


def _stack(part: Settled, group: Group, *, is_settled: bool) -> Stack:
    """Geometry of the planes; where several share a position, of one at each, for its codes."""
    thicknesses = [i.frame.thickness_mm for i in part.images if i.frame.thickness_mm is not None]
    planes = [image.plane for image in part.images]
    one_each = planes if is_settled else _one_at_each_position(planes, group)
    stack = stack_geometry(
        one_each,
        group.orientation,
        part.images[0].frame.spacing_mm,
        thickness_mm=median(thicknesses) if thicknesses else None,
    )
    if len(one_each) == len(planes):
        return stack
    refusals = tuple(f for f in stack.findings if f.severity == "refusal")
    return Stack(tuple(planes), None, refusals)


def _one_at_each_position(planes: list[Plane], group: Group) -> list[Plane]:
    axes = plane_axes(group.orientation)
    if axes is None:
        return planes
    distinct: list[Plane] = []
    for plane in sort_planes(planes, axes.normal):
        place = plane.along_normal_mm
        # Written so that positions that are no numbers stay, to be refused as such.
        if not distinct or not place - distinct[-1].along_normal_mm <= SAME_POSITION_MM:
            distinct.append(plane)
    return distinct


def _series(part: Settled, group: Group, stack: Stack | None) -> Series:
    images = part.images
    first = images[0]
    header = first.header
    findings = [
        *class_findings(first.kind.classes, first.kind.image_type),
        *_shared_problems(images),
        *part.findings,
        *(stack.findings if stack is not None else []),
        *_header_warnings(images),
    ]
    if group.told_by:
        text = f"told apart from other images of the series by {group.told_by}"
        findings.append(Finding("split-by-part", text))
    verdict: Verdict = "accepted"
    if any(f.severity == "refusal" for f in findings):
        verdict = "refused"
    elif any(is_repair(f.code) for f in findings):
        verdict = "repaired"
    geometry = stack.geometry if stack is not None else None
    facts = _facts(images, geometry)
    points, reasons = score(facts, verdict, findings)
    return Series(
        key=first.kind.series_uid,
        uid=first.kind.series_uid,
        patient_id=first.kind.patient_id,
        study_uid=first.kind.study_uid,
        accession=header.text(tags.ACCESSION_NUMBER),
        study_date=header.text(tags.STUDY_DATE),
        modality=first.kind.modality,
        description=header.text(tags.SERIES_DESCRIPTION),
        folder=header.path.parent,
        planes=stack.planes if stack is not None else tuple(i.plane for i in images),
        verdict=verdict,
        findings=tuple(findings),
        geometry=geometry,
        score=points,
        score_reasons=reasons,
        files=len({image.plane.path for image in (*images, *part.copies)}),
        facts=facts,
    )


def _shared_problems(images: Sequence[Image]) -> list[Finding]:
    """Problems of single images, one finding a code, with how many and which."""
    by_code: dict[str, list[Finding]] = {}
    for image in images:
        for problem in image.problems:
            by_code.setdefault(problem.code, []).append(problem)
    findings = []
    for code, problems in by_code.items():
        named = "; ".join(dict.fromkeys(p.message for p in problems[:NAMED_IMAGES]))
        count = f"{len(problems)} of {_count(images)}: " if len(images) > 1 else ""
        findings.append(Finding(code, count + named, problems[0].severity))
    return findings


def _header_warnings(images: Sequence[Image]) -> list[Finding]:
    header = images[0].header
    findings = []
    empty = [
        name
        for name, tag in (
            ("StudyInstanceUID", tags.STUDY_INSTANCE_UID),
            ("SeriesInstanceUID", tags.SERIES_INSTANCE_UID),
            ("SOPInstanceUID", tags.SOP_INSTANCE_UID),
        )
        if not header.text(tag)
    ]
    if empty:
        text = f"empty {', '.join(empty)}: taken together because folder and geometry fit"
        findings.append(Finding("no-uid", text, "warning"))
    if not header.text(tags.PATIENT_ID):
        findings.append(Finding("no-patient-id", "PatientID is empty", "warning"))
    if any(image.header.text(tags.LOSSY_IMAGE_COMPRESSION) == "01" for image in images):
        text = "compressed with losses at some time: values are approximate"
        findings.append(Finding("lossy-compression", text, "warning"))
    if any(tags.ENCRYPTED_ATTRIBUTES_SEQUENCE in image.header for image in images):
        text = "some attributes are encrypted; the image is readable"
        findings.append(Finding("encrypted-attributes", text, "warning"))
    return findings


def _facts(images: Sequence[Image], geometry: StackGeometry | None) -> dict[str, Any]:
    """Plain values for tables and for the confounder check; never a name or a birth date."""
    header = images[0].header
    thicknesses = [i.frame.thickness_mm for i in images if i.frame.thickness_mm is not None]
    finite = [value for value in thicknesses if math.isfinite(value)]
    exposures = [v for i in images if (v := i.header.number(tags.EXPOSURE)) is not None]
    facts: dict[str, Any] = {
        "manufacturer": header.text(tags.MANUFACTURER),
        "model": header.text(tags.MODEL_NAME),
        "kernel": Counter(image.kind.kernel for image in images).most_common(1)[0][0],
        "thickness_mm": float(median(finite)) if finite else None,
        "kvp": header.number(tags.KVP),
        "exposure_mas": float(median(exposures)) if exposures else None,
        "image_type": "\\".join(images[0].kind.image_type),
        "frame_of_reference": images[0].kind.frame_of_reference,
        "number": header.integer(tags.SERIES_NUMBER),
        "patient_position": header.text(tags.PATIENT_POSITION),
        "body_part": header.text(tags.BODY_PART),
        "contrast": header.text(tags.CONTRAST_AGENT),
        "sex": header.text(tags.PATIENT_SEX),
        "age": header.text(tags.PATIENT_AGE),
        "window_center": header.number(tags.WINDOW_CENTER),
        "window_width": header.number(tags.WINDOW_WIDTH),
        "transfer_syntax": header.transfer_syntax,
        "sop_class": header.text(tags.SOP_CLASS_UID),
        "slices": len(images),
        "synthetic": header.text(tags.MANUFACTURER) == tags.SYNTHETIC_MANUFACTURER,
    }
    if geometry is not None:
        facts["slice_spacing_mm"] = geometry.slice_spacing_mm
        facts["pixel_spacing_mm"] = (geometry.row_spacing_mm, geometry.column_spacing_mm)
        facts["extent_mm"] = geometry.positions_mm[-1] - geometry.positions_mm[0]
        facts["tilt_degrees"] = geometry.tilt_degrees
    return facts


def _count(images: Sequence[Image]) -> str:
    return f"{len(images)} image{'s' if len(images) != 1 else ''}"
