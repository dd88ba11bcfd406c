"""From what the user pointed at to PET/CT studies with masks and outcomes.

A manifest, or a folder with one, is read as it says, and so is a data set with a ``dataset.json``
(autoPET III). In any other folder files are paired by their names (``prognosis_pairs``; HECKTOR and
autoPET are laid out so), DICOM series by their headers (``prognosis_dicom``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from medtool.core.errors import CaseRefused, InputError
from medtool.core.fields import covered_shares
from medtool.core.files import nearest_path
from medtool.core.names import counted
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.layout_files import image_ending, read_from_names
from medtool.data.matching import shown
from medtool.data.nifti import is_synthetic
from medtool.data.volumes import NIFTI_ENDINGS, VOLUME_ENDINGS, read_volume_header
from medtool.dicom.find import find_files
from medtool.dicom.pet_ct import LEAST_COVERED, WELL_COVERED
from medtool.dicom.series import Series
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_dicom import find_dicom_pairs
from medtool.tasks.prognosis_hecktor import hecktor_labels, with_hecktor_tables
from medtool.tasks.prognosis_labels import CHANNELS, CT, LACKING, PET
from medtool.tasks.prognosis_lists import Listed, dataset_in, manifest_in, read_list
from medtool.tasks.prognosis_outcomes import with_strata
from medtool.tasks.prognosis_pairs import RULE, FilePair, file_pairs
from medtool.tasks.segmentation_find import SYNTHETIC, Found, file_row
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.segmentation_reading import reference_to
from medtool.tasks.studies import STUDY_MARK_BYTES

# autoPET III names cases after tracer, patient and study.
AUTOPET_NAMES = r"^(?P<patient>(?:fdg|psma)_[^_]+)_"


def find_pet_ct(source: Source, data: PrognosisDataSection) -> Cohort:
    """Every PET/CT study under ``source``, with its mask and outcome where they are known.

    Raises InputError for a path that does not exist, LabelsError for a table that is wrong,
    UsageError for a pattern that is none.
    """
    found = Found()
    scans: list[Path] = []
    for path in source.paths:
        if not path.exists():
            raise InputError(
                "There is nothing by this name.",
                where=str(path),
                wanted="PET/CT studies",
                nearest=nearest_path(path),
            )
        described = manifest_in(path) or dataset_in(path)
        if described is not None:
            _take_list(found, read_list(described, source, data))
        else:
            scans.append(path)
    paired: set[str] = set()
    for root, paths in _by_root(scans).items():
        paired |= _take_scans(found, root, replace(source, paths=tuple(paths)), data)
    found.cases = [case for case in found.cases if not _left_out(case, source, found)]
    cases = with_strata(_with_patients(_once(found), paired, found, data), data)
    intake: dict[str, Any] = {"series": found.series, "skipped": found.skipped}
    if found.described:
        intake["dataset"] = found.described[0]
    cases.sort(key=lambda case: case.case_id)
    return Cohort(tuple(cases), intake, tuple(found.findings), tuple(found.refused))


def _by_root(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Paths by the folder below which cases are named: files of one folder belong together."""
    roots: dict[Path, list[Path]] = {}
    for path in paths:
        roots.setdefault(path if path.is_dir() else path.parent, []).append(path)
    return roots


def _take_list(found: Found, listed: Listed) -> None:
    found.findings += listed.findings
    found.refused += listed.refused
    found.series += listed.series
    if listed.dataset is not None:
        found.described.append(listed.dataset)
    for case in listed.cases:
        if isinstance(case.inputs[PET], Series):
            found.cases.append(case)
        else:
            _take(found, case)


# --- files and DICOM ----------------------------------------------------------------------
def _take_scans(found: Found, root: Path, source: Source, data: PrognosisDataSection) -> set[str]:
    """Add pairs of files and DICOM studies below ``root``; gives the names of the pairs."""
    files, skipped = find_files(source.paths)
    volumes = [file for file in files if image_ending(file).lower() in VOLUME_ENDINGS]
    pairs, left = file_pairs(volumes, root, data.preparation.answer_grid)
    cases = _complete(pairs, found)
    labels = hecktor_labels(pairs)
    if labels is not None:
        found.described.append(labels)
    places = {pair.base: None for pair in pairs} | {root: None, root.parent: None}
    tables = with_hecktor_tables(cases, list(places), data)
    found.findings += tables.findings
    for case in tables.cases:
        _take(found, case)
    if pairs:
        found.findings += _said(pairs, left, root)
    if len(volumes) < len(files):
        dicom = find_dicom_pairs(source, data)
        named = {str(file) for file in volumes}
        found.cases += dicom.cases
        found.findings += dicom.findings
        found.refused += dicom.refused
        found.series += dicom.intake["series"]
        rows = dicom.intake["skipped"]
        found.skipped += [row for row in rows if str(row["file"]) not in named]
    else:
        found.skipped += [{"file": str(s.file), "code": s.code, "why": s.why} for s in skipped]
    why = "its name says neither PET nor CT, nor whose mask it is"
    found.skipped += [{"file": str(f), "code": "file-unmatched", "why": why} for f in left]
    return {pair.case_id for pair in pairs}


def _complete(pairs: Sequence[FilePair], found: Found) -> list[Case]:
    """The pairs that are whole, as cases; the others are refused."""
    cases = []
    for pair in pairs:
        patient = pair.folder or pair.case_id
        lacking = [channel for channel in CHANNELS if channel not in pair.images]
        if lacking:
            code, kind = LACKING[lacking[0]], lacking[0].upper()
            there = ", ".join(file.name for file in pair.images.values())
            text = f"{there} has no {kind} beside it. {RULE}"
            found.refused.append(RefusedStudy(pair.case_id, patient, "", code, text))
            continue
        findings = []
        if pair.others:
            taken = ", ".join(file.name for file in (*pair.images.values(), pair.mask) if file)
            text = f"{taken} are taken, not " + ", ".join(file.name for file in pair.others)
            findings.append(Finding("files-several", text, "warning"))
        cases.append(
            Case(
                case_id=pair.case_id,
                patient_id=patient,
                study_uid="",
                inputs={name: reference_to(pair.images[name]) for name in CHANNELS},
                folder=pair.folder,
                references={} if pair.mask is None else {MASK: str(pair.mask)},
                findings=tuple(findings),
            )
        )
    return cases


def _said(pairs: Sequence[FilePair], left: Sequence[Path], root: Path) -> list[Finding]:
    findings = [Finding("pairs-rule", RULE)]
    bare = [pair.case_id for pair in pairs if pair.mask is None]
    if bare and len(bare) < len(pairs):
        text = f"{len(bare)} of {len(pairs)} cases have no mask: {shown(bare)}"
        findings.append(Finding("mask-missing", text, "warning"))
    if left:
        text = f"{len(left)} files belong to no case: " + shown([file.name for file in left])
        findings.append(Finding("file-unmatched", text, "warning"))
    return findings


def _take(found: Found, case: Case) -> None:
    """Add a case of files that show one patient, or the reason why it is none."""
    try:
        said, facts = _state(case)
    except CaseRefused as refusal:
        text = " ".join(part for part in (refusal.what, refusal.met) if part)
        found.refused.append(RefusedStudy(case.case_id, case.patient_id, "", refusal.code, text))
        return
    case = replace(case, findings=(*case.findings, *said), facts={**case.facts, **facts})
    found.cases.append(case)
    found.series.append(file_row(case))


def _state(case: Case) -> tuple[list[Finding], dict[str, Any]]:
    """How PET and CT of files lie to one another, and facts of both. Raises CaseRefused."""
    grids = {name: read_volume_header(case.inputs[name]).grid for name in CHANNELS}
    covered = covered_shares(grids[PET], grids[CT])
    share = " x ".join(f"{part:.0%}" for part in covered)
    if min(covered) < LEAST_COVERED:
        raise CaseRefused(
            "fields-apart",
            "PET and CT show different parts of the patient.",
            where=case.case_id,
            met=f"a CT that covers {share} of the PET",
            wanted=f"at least {LEAST_COVERED:.0%} along each axis",
        )
    text = f"files name no frame of reference; by their positions the CT covers {share} of the PET"
    findings = [Finding("pair-frame-unknown", text, "warning")]
    if covered[2] < WELL_COVERED:
        text = f"the CT covers only {covered[2]:.0%} of the PET's length"
        findings.append(Finding("pair-partly-covered", text, "warning"))
    files = [case.inputs[name].path for name in CHANNELS]
    return findings, {
        "slices": grids[PET].size[2],
        "slice_spacing_mm": grids[PET].spacing_mm[2],
        "pixel_spacing_mm": grids[PET].spacing_mm[0],
        SYNTHETIC: bool(case.facts.get(SYNTHETIC))
        or any(
            image_ending(file).lower() in NIFTI_ENDINGS and is_synthetic(file) for file in files
        ),
    }


def _left_out(case: Case, source: Source, found: Found) -> bool:
    """Whether a person left out a case of files, which is then a refused row."""
    pet = case.inputs[PET]
    said = [source.series_overrides.get(name) for name in (case.case_id, str(pet))]
    if isinstance(pet, Series) or False not in said:
        return False
    text = f"A person left the files out ({source.overrides_from})."
    found.refused.append(
        RefusedStudy(case.case_id, case.patient_id, "", "left-out-by-person", text)
    )
    found.series = [
        {**row, "chosen": False} if row["case"] == case.case_id and row["key"] == str(pet) else row
        for row in found.series
    ]
    return True


# --- names --------------------------------------------------------------------------------
def _once(found: Found) -> list[Case]:
    """Cases of which no two have one name, under which answers are written.

    What is refused takes a mark behind its name where another has that name.
    """
    cases: dict[str, Case] = {}
    for case in found.cases:
        if cases.setdefault(case.case_id.casefold(), case) is not case:
            text = f"Another case is called {case.case_id} as well."
            found.refused.append(
                RefusedStudy(case.case_id, case.patient_id, case.study_uid, "case-twice", text)
            )
    taken = set(cases)
    for index, study in enumerate(found.refused):
        if study.case_id.casefold() in taken:
            text = f"{study.patient_id}|{study.study_uid}|{study.message}"
            mark = blake2b(text.encode(), digest_size=STUDY_MARK_BYTES).hexdigest()
            found.refused[index] = replace(study, case_id=f"{study.case_id}_{mark}")
        taken.add(found.refused[index].case_id.casefold())
    return list(cases.values())


def _with_patients(
    cases: Sequence[Case], paired: set[str], found: Found, data: PrognosisDataSection
) -> list[Case]:
    """Cases whose patients are those that a pattern finds in their names, where there is one."""
    names = [case.case_id for case in cases]
    pattern = data.patient_pattern
    if not pattern and names and all(re.match(AUTOPET_NAMES, name) for name in names):
        pattern = AUTOPET_NAMES
    if not pattern or not names:
        found.findings += _patients_by_place([c for c in cases if c.case_id in paired])
        return list(cases)
    patients, said = read_from_names(names, pattern, "patient")
    found.findings += said
    return [
        replace(case, patient_id=patients.get(case.case_id) or case.patient_id) for case in cases
    ]


def _patients_by_place(paired: Sequence[Case]) -> list[Finding]:
    """What stands for the patients of files that were found by their names, said once."""
    below = [case for case in paired if case.folder]
    if not paired:
        return []
    said = []
    if below:
        folders = len({case.folder for case in below})
        where = f"{counted(len(below), 'pair')} in {counted(folders, 'folder')}"
        said.append(f"the folder stands for the patient ({where})")
    if len(below) < len(paired):
        said.append(
            f"each of {counted(len(paired) - len(below), 'pair')} is taken for a patient of its own"
        )
    text = f"Files name no patient: {'; '.join(said)}. A manifest CSV can name the patients, or "
    text += "data.patient_pattern take them from names."
    return [Finding("patients-by-place", text, "warning")]
