"""From what the user pointed at to cases of slices: pictures, single DICOM frames, series, volumes.

A folder of pairs, a manifest or a described data set is read as everywhere
(``medtool.data.datasets``). In any other folder every picture is a case, every NIfTI file and
every DICOM series; frames that are no stack, such as those of a cine series, are cases of their
own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medtool.core.errors import CaseRefused
from medtool.core.names import safe_file_stem
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.dataset_record import ImageReference
from medtool.data.images import is_flat, pictures_of
from medtool.data.layout_files import PICTURE_ENDINGS, image_ending, image_stem
from medtool.data.nifti import is_synthetic
from medtool.data.volumes import NIFTI_ENDINGS
from medtool.dicom import scan, tags
from medtool.dicom.find import find_files
from medtool.dicom.header import Header
from medtool.dicom.header_reader import read_header
from medtool.dicom.series import Series
from medtool.tasks.planar_planning import with_structure
from medtool.tasks.planar_settings import PlanarDataSection
from medtool.tasks.segmentation_find import (
    SYNTHETIC,
    Found,
    file_row,
    find_images,
    take_studies,
)
from medtool.tasks.segmentation_settings import SegmentationDataSection
from medtool.tasks.studies import series_facts

# What is wrong with frames that are no stack, and only with those.
NO_STACK = "too-few-slices"
ONE_PICTURE_A_PATIENT = "patients-by-case"


def find_slices(source: Source, data: PlanarDataSection, structure: str) -> Cohort:
    """Every case under ``source``; ``structure`` is what masks show whose labels nobody names.

    Raises what ``find_images`` raises.
    """
    named = with_structure(data, structure)
    cohort = find_images(source, named, take_scans=take_slices)
    return replace(cohort, cases=tuple(map(_with_facts, cohort.cases)))


def take_slices(found: Found, path: Path, source: Source, data: SegmentationDataSection) -> None:
    """Pictures, series and single frames below ``path``, each a case."""
    take_studies(found, path, source, data)
    _take_frames(found, path, data)
    _take_pictures(found, path, data)


def _channel(data: SegmentationDataSection) -> str:
    return data.channels[0] if data.channels else "image"


# --- frames that are no stack -------------------------------------------------------------
def _take_frames(found: Found, path: Path, data: SegmentationDataSection) -> None:
    """Frames of studies that were refused since they are no stack, as cases of their own."""
    lost = {(s.patient_id, s.study_uid) for s in found.refused if s.code == NO_STACK}
    if not lost:
        return
    frames: list[Case] = []
    keys: set[str] = set()
    for series in scan([path]).series:
        codes = {f.code for f in series.findings if f.severity == "refusal"}
        if (series.patient_id, series.study_uid) in lost and codes == {NO_STACK}:
            keys.add(series.key)
            frames += _frame_cases(series, _channel(data))
    frames = _told_apart(frames)
    found.cases += frames
    found.refused = [s for s in found.refused if (s.patient_id, s.study_uid) not in lost]
    found.series = [row for row in found.series if row["key"] not in keys]
    found.series += [file_row(case) for case in frames]
    text = f"{len(frames)} DICOM images belong to no stack: each is a case of its own."
    found.findings.append(Finding("frames-alone", text))


def _frame_cases(series: Series, channel: str) -> list[Case]:
    cases = []
    for plane in series.planes:
        several = plane.pixels.frames_in_file > 1
        name = f"{image_stem(plane.path)}_{plane.frame}" if several else image_stem(plane.path)
        reference = ImageReference(plane.path, plane.frame if several else None)
        cases.append(
            Case(
                case_id=safe_file_stem(f"{series.patient_id}_{name}"),
                patient_id=series.patient_id,
                study_uid=series.study_uid,
                inputs={channel: reference},
                accession=series.accession,
                study_date=series.study_date,
                folder=series.folder.name,
                facts=series_facts(series),
            )
        )
    return cases


# --- pictures -----------------------------------------------------------------------------
def _take_pictures(found: Found, path: Path, data: SegmentationDataSection) -> None:
    files, _ = find_files([path])
    # A flat file of three dimensions is a volume of one slice: the search for studies has it.
    known = {v for case in found.cases for v in case.inputs.values() if isinstance(v, Path)}
    pictures = [file for file in files if _is_picture(file) and file not in known]
    taken = {str(file) for file in pictures}
    cases: list[Case] = []
    for file in pictures:
        cases += _picture_cases(file, _channel(data), found)
    cases = _told_apart(cases)
    found.cases += cases
    found.skipped = [row for row in found.skipped if row["file"] not in taken]
    # One of two dimensions is no volume, which is what the search for studies refuses it for.
    flat = {file for file in pictures if _is_nifti(file)}
    rows = [row for row in found.series if Path(row["folder"]) / row["description"] in flat]
    refused = {row["case"] for row in rows}
    found.refused = [study for study in found.refused if study.case_id not in refused]
    found.series = [row for row in found.series if row not in rows]
    found.series += [file_row(case) for case in cases]
    if cases:
        text = f"Pictures do not say whose they are: each of {len(cases)} counts as a patient."
        found.findings.append(Finding(ONE_PICTURE_A_PATIENT, text, "warning"))


def _is_picture(file: Path) -> bool:
    if image_ending(file).lower() in PICTURE_ENDINGS:
        return True
    return _is_nifti(file) and is_flat(file)


def _is_nifti(file: Path) -> bool:
    return image_ending(file).lower() in NIFTI_ENDINGS


def _picture_cases(file: Path, channel: str, found: Found) -> list[Case]:
    """The pages of one file; one that cannot be read is a refused row."""
    stem = safe_file_stem(image_stem(file))
    try:
        references = pictures_of(file)
    except CaseRefused as refusal:
        found.refused.append(RefusedStudy(stem, stem, "", refusal.code, str(refusal)))
        return []
    names = [stem if r.component is None else f"{stem}_{r.component}" for r in references]
    return [
        Case(name, name, "", {channel: reference}, folder=file.parent.name)
        for name, reference in zip(names, references, strict=True)
    ]


def _told_apart(cases: Sequence[Case]) -> list[Case]:
    """Cases of one name in several folders take their folder's name before it."""
    several = {n for n, count in Counter(case.case_id for case in cases).items() if count > 1}
    renamed = []
    for case in cases:
        if case.case_id in several:
            name = safe_file_stem(f"{case.folder}_{case.case_id}")
            patient = name if case.patient_id == case.case_id else case.patient_id
            case = replace(case, case_id=name, patient_id=patient)
        renamed.append(case)
    return renamed


# --- facts --------------------------------------------------------------------------------
def _with_facts(case: Case) -> Case:
    """The case with what its file says: whether anybody was scanned, and on what."""
    (source, *_) = case.inputs.values()
    if case.facts.get(SYNTHETIC) or isinstance(source, Series):
        return case
    path = source.path if isinstance(source, ImageReference) else Path(source)
    return replace(case, facts={**case.facts, **_facts_of(path)})


def _facts_of(path: Path) -> dict[str, Any]:
    if _is_nifti(path):
        return {SYNTHETIC: is_synthetic(path)}
    if path.is_dir() or image_ending(path).lower() in PICTURE_ENDINGS:
        return {SYNTHETIC: False}
    header = read_header(path)
    if not isinstance(header, Header):
        return {SYNTHETIC: False}
    maker = header.text(tags.MANUFACTURER)
    return {"manufacturer": maker, SYNTHETIC: maker == tags.SYNTHETIC_MANUFACTURER}
