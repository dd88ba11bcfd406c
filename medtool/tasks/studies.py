"""From what the user pointed at to studies: DICOM folders, NIfTI files or a manifest.

A case is a study (imaging session). Of the series that can be read one is chosen by the intake's
score; the others are named among the case's findings. A study with nothing to read is a refused
row of every table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from medtool.core.errors import InputError
from medtool.core.files import nearest_path
from medtool.core.names import safe_file_stem
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.dicom import scan
from medtool.dicom.body_part import BodyPart
from medtool.dicom.choose import choose
from medtool.dicom.document import intake_document
from medtool.dicom.overrule import overruled, reasons_to_stay_refused
from medtool.dicom.series import Intake, Series
from medtool.tasks.study_tables import (
    NIFTI_SUFFIXES,
    ManifestRow,
    VolumeStudies,
    is_manifest,
    nameless_patients,
    nifti_studies,
    read_manifest,
)

PatientKey = Literal["patient-id", "folder", "case"]

# A folder of this name holds the scans of a data set: CTs/<patient>/...
SCANS_FOLDER = "CTs"
STAYS_REFUSED = "It stays refused, though {} says to use it: it cannot be read truly."
# Enough of a hash to tell the studies of one patient apart.
STUDY_MARK_BYTES = 4


@dataclass(frozen=True)
class Study:
    """The series of one imaging session before a case is made of them."""

    patient_id: str
    study_uid: str
    folder: str
    series: tuple[Series, ...]
    findings: tuple[Finding, ...] = ()
    # Given by a manifest; else worked out from the patient.
    case_id: str = ""
    label: float | None = None


MakeCase = Callable[[Study, Source], Case | RefusedStudy]


def find_dicom_studies(
    source: Source, *, patient_key: PatientKey, modalities: Sequence[str], make: MakeCase
) -> Cohort:
    """Every DICOM study under ``source``, of which ``make`` makes a case or a refusal."""
    intake = _read(list(source.paths), source)
    studies = _named(_studies(intake, source.paths, patient_key), patient_key)
    cases, refused = _made(studies, source, make)
    document = _document(intake, studies, cases, modalities)
    return Cohort(tuple(cases), document, (), tuple(refused))


def find_studies(
    source: Source,
    *,
    patient_key: PatientKey,
    modalities: Sequence[str],
    channel: str,
    classes: Mapping[str, float] | None = None,
    body_part: BodyPart | None = None,
    endings: Collection[str] = NIFTI_SUFFIXES,
) -> Cohort:
    """Every study under ``source``; ``classes`` maps values of a manifest's label column.

    ``body_part``: of several series the one that shows it is taken.

    ``endings`` are those of the files that hold volumes.

    Raises InputError for a path that does not exist, LabelsError for a manifest that is none.
    """
    roots, tables, findings = _roots(source.paths)
    manifest = [row for table in tables for row in read_manifest(table, classes or {})]
    folders = [*roots, *(row.image for row in manifest if row.image.is_dir())]
    files = nifti_studies(
        roots, manifest, channel=channel, patient_key=patient_key, endings=endings
    )
    volumes = _with_a_persons_word(files, source)
    intake = _without(_read(folders, source), volumes.files)
    studies = _studies(intake, roots, patient_key)
    studies = _named(_by_manifest(studies, {row.image: row for row in manifest}), patient_key)
    findings += nameless_patients(volumes.cases, patient_key)
    make = partial(_case, modalities=modalities, channel=channel, body_part=body_part)
    cases, refused = _made(studies, source, make)
    cases += volumes.cases
    refused = [*volumes.refused, *refused, *_empty_rows(manifest, studies)]
    document = _document(intake, studies, cases, modalities)
    document["series"] = [*document["series"], *volumes.rows]
    cases.sort(key=lambda case: case.case_id)
    return Cohort(tuple(cases), document, tuple(findings), tuple(refused))


def _read(folders: Sequence[Path], source: Source) -> Intake:
    """The series below ``folders`` after a person's word on each."""
    intake = scan(folders) if folders else Intake((), ())
    return replace(intake, series=tuple(_overruled(one, source) for one in intake.series))


def _made(
    studies: Sequence[Study], source: Source, make: MakeCase
) -> tuple[list[Case], list[RefusedStudy]]:
    cases: list[Case] = []
    refused: list[RefusedStudy] = []
    for study in studies:
        found = make(study, source)
        if isinstance(found, Case):
            cases.append(found)
        else:
            refused.append(found)
    return cases, refused


def _roots(paths: Sequence[Path]) -> tuple[list[Path], list[Path], list[Finding]]:
    """Folders and files to look in, manifests, and what was said about the layout."""
    roots: list[Path] = []
    tables: list[Path] = []
    findings: list[Finding] = []
    for path in paths:
        if not path.exists():
            raise InputError(
                "There is nothing by this name.",
                where=str(path),
                wanted="scans",
                nearest=nearest_path(path),
            )
        if is_manifest(path):
            tables.append(path)
        elif (path / SCANS_FOLDER).is_dir():
            roots.append(path / SCANS_FOLDER)
            text = f"Scans are taken from {path / SCANS_FOLDER}, one folder a patient."
            findings.append(Finding("layout", text))
        else:
            roots.append(path)
    return roots, tables, findings


def _without(intake: Intake, files: frozenset[Path]) -> Intake:
    """The intake without files that are cases of their own."""
    return replace(intake, skipped=tuple(s for s in intake.skipped if s.file not in files))


def _studies(intake: Intake, roots: Sequence[Path], patient_key: PatientKey) -> list[Study]:
    grouped: dict[tuple[str, str], list[Series]] = {}
    folder_of: dict[str, str] = {}
    for series in intake.series:
        folder = top_folder(series.folder, roots)
        folder_of[series.key] = folder
        patient = folder if patient_key == "folder" else series.patient_id or folder
        # Without a study's UID its folder tells it apart.
        grouped.setdefault((patient, series.study_uid or f"in {series.folder}"), []).append(series)
    studies = []
    for (patient, _), members in sorted(grouped.items()):
        findings: tuple[Finding, ...] = ()
        if patient_key != "folder" and not members[0].patient_id:
            text = f"There is no PatientID; the folder's name '{patient}' stands for the patient."
            findings = (Finding("patient-id-missing", text, "warning"),)
        folder = folder_of[members[0].key]
        studies.append(Study(patient, members[0].study_uid, folder, tuple(members), findings))
    return studies


def top_folder(folder: Path, roots: Sequence[Path]) -> str:
    """The first folder below the root that ``folder`` is in; the root's own name at its top."""
    for root in sorted(roots, key=lambda root: len(root.parts), reverse=True):
        if folder.is_relative_to(root):
            parts = folder.relative_to(root).parts
            return parts[0] if parts else root.resolve().name
    return folder.name


def _by_manifest(studies: list[Study], rows: Mapping[Path, ManifestRow]) -> list[Study]:
    """Studies below a folder that a manifest names take case, patient and label from it."""
    named = []
    for study in studies:
        folder = study.series[0].folder
        row = next((rows[p] for p in (folder, *folder.parents) if p in rows), None)
        if row is not None:
            study = replace(study, case_id=row.case_id, patient_id=row.patient_id, label=row.label)
        named.append(study)
    return named


def _empty_rows(rows: Sequence[ManifestRow], studies: Sequence[Study]) -> list[RefusedStudy]:
    """Folders that a manifest names and that hold no series at all."""
    full = {
        parent
        for study in studies
        for folder in {series.folder for series in study.series}
        for parent in (folder, *folder.parents)
    }
    text = "The manifest names a folder without any DICOM series."
    return [
        RefusedStudy(row.case_id, row.patient_id, "", "no-usable-series", text)
        for row in rows
        if row.image.is_dir() and row.image not in full
    ]


def _named(studies: Sequence[Study], patient_key: PatientKey) -> list[Study]:
    """Studies with case ids: the patient's, with a mark of the study where there are several."""
    wanted = [study.case_id or safe_file_stem(study.patient_id) for study in studies]
    several = {name for name, count in Counter(wanted).items() if count > 1}
    named = []
    for study, name in zip(studies, wanted, strict=True):
        if name in several:
            text = f"{study.patient_id}|{study.study_uid or study.series[0].folder.name}"
            name = f"{name}_{blake2b(text.encode(), digest_size=STUDY_MARK_BYTES).hexdigest()}"
        patient = name if patient_key == "case" else study.patient_id
        named.append(replace(study, case_id=name, patient_id=patient))
    return named


def _case(
    study: Study,
    source: Source,
    *,
    modalities: Sequence[str],
    channel: str,
    body_part: BodyPart | None,
) -> Case | RefusedStudy:
    """The study as a case with its chosen series, or why it has none."""
    right = [series for series in study.series if series.modality in modalities]
    candidates, findings = after_persons_word(right, source)
    chosen, others = choose(candidates, body_part=body_part)
    in_vain = said_in_vain(study.series, modalities, source)
    findings += in_vain
    if chosen is None:
        asked = [one for one in right if _overrule(one, source)]
        code, message = _refusal(study.series, asked or right, source, modalities)
        if in_vain:
            code = f"{code};{in_vain[0].code}"
            message = " ".join(finding.message for finding in in_vain)
        return RefusedStudy(study.case_id, study.patient_id, study.study_uid, code, message)
    for other in others:
        text = (
            f"Series '{other.description}' ({other.key}) was not chosen: score "
            f"{other.score:g} against {chosen.score:g} ({'; '.join(other.score_reasons)})."
        )
        findings.append(Finding("not-chosen", text))
    return Case(
        case_id=study.case_id,
        patient_id=study.patient_id,
        study_uid=study.study_uid,
        inputs={channel: chosen},
        accession=chosen.accession,
        study_date=chosen.study_date,
        folder=study.folder,
        label=study.label,
        facts=series_facts(chosen),
        findings=(*study.findings, *findings, *chosen.findings),
    )


def _overrule(series: Series, source: Source) -> bool | None:
    """What a person said of this series, by its key or its UID."""
    for name in (series.key, series.uid):
        if name in source.series_overrides:
            return source.series_overrides[name]
    return None


def _overruled(series: Series, source: Source) -> Series:
    """The series as a person wants it, where what the rules refuse can be overruled."""
    return overruled(series, source.overrides_from) if _overrule(series, source) else series


def _with_a_persons_word(volumes: VolumeStudies, source: Source) -> VolumeStudies:
    """Files that are cases of their own, after a person's word on each."""
    said = source.series_overrides
    out = [case for case in volumes.cases if said.get(case.case_id) is False]
    text = f"A person left the file out ({source.overrides_from})."
    refused = [
        RefusedStudy(case.case_id, case.patient_id, "", "left-out-by-person", text) for case in out
    ]
    refused += [
        replace(
            study,
            code=f"{study.code};cannot-be-overruled",
            message=f"{study.message} {STAYS_REFUSED.format(source.overrides_from)}",
        )
        if said.get(study.case_id)
        else study
        for study in volumes.refused
    ]
    names = {case.case_id for case in out}
    return replace(
        volumes,
        cases=tuple(case for case in volumes.cases if case.case_id not in names),
        refused=tuple(refused),
        rows=tuple(
            {**row, "chosen": row["chosen"] and row["case"] not in names} for row in volumes.rows
        ),
    )


def said_in_vain(
    series: Sequence[Series], modalities: Sequence[str], source: Source
) -> list[Finding]:
    """What is said of series that a person wants and that stay refused."""
    findings = []
    for one in series:
        if not _overrule(one, source):
            continue
        why = list(reasons_to_stay_refused(one))
        if one.modality not in modalities:
            why.append(f"its modality is {one.modality or 'not known'}")
        if why:
            text = f"Series {one.key}: {'; '.join(why)}. "
            text += STAYS_REFUSED.format(source.overrides_from)
            findings.append(Finding("cannot-be-overruled", text, "warning"))
    return findings


def after_persons_word(
    series: Sequence[Series], source: Source
) -> tuple[list[Series], list[Finding]]:
    """Usable series to choose from, after a person's word; what is said of it."""
    said = {one.key: _overrule(one, source) for one in series}
    asked = [one for one in series if said[one.key] and one.verdict != "refused"]
    if asked:
        text = "Series {} was chosen by a person ({})."
        return asked, [
            Finding("chosen-by-person", text.format(one.key, source.overrides_from))
            for one in asked
        ]
    usable = [one for one in series if one.verdict != "refused" and said[one.key] is not False]
    dropped = [one for one in series if said[one.key] is False]
    text = "Series {} was left out by a person ({})."
    return usable, [
        Finding("left-out-by-person", text.format(one.key, source.overrides_from))
        for one in dropped
    ]


def _refusal(
    series: Sequence[Series], right: Sequence[Series], source: Source, modalities: Sequence[str]
) -> tuple[str, str]:
    """Codes and sentences of a study without a usable series: all of its largest series."""
    if not right:
        met = ", ".join(sorted({one.modality or "none" for one in series}))
        wanted = " or ".join(modalities)
        return "wrong-modality", f"The study's modality is {met}; this task reads {wanted}."
    if any(_overrule(one, source) is False and one.verdict != "refused" for one in right):
        return "left-out-by-person", "Every usable series was left out by a person."
    largest = max(right, key=lambda one: (len(one.planes), one.files))
    refusals = [finding for finding in largest.findings if finding.severity == "refusal"]
    if not refusals:
        return "no-usable-series", "No series of this study can be read."
    codes = dict.fromkeys(finding.code for finding in refusals)
    return ";".join(codes), "; ".join(dict.fromkeys(finding.message for finding in refusals))


def series_facts(series: Series) -> dict[str, object]:
    """Plain values of the chosen series for tables and for the search for confounders."""
    facts: dict[str, object] = {**series.facts, "slices": len(series.planes)}
    if series.geometry is not None:
        facts["slice_spacing_mm"] = series.geometry.slice_spacing_mm
        facts["pixel_spacing_mm"] = series.geometry.column_spacing_mm
        facts["tilt_degrees"] = series.geometry.tilt_degrees
    return facts


def _document(
    intake: Intake,
    studies: Sequence[Study],
    cases: Sequence[Case],
    modalities: Sequence[str],
) -> dict[str, Any]:
    """The document of ``check --json``."""
    case_of = {series.key: study.case_id for study in studies for series in study.series}
    chosen = {
        series.key
        for case in cases
        for series in case.inputs.values()
        if isinstance(series, Series)
    }
    wrong = Finding("wrong-modality", f"This task reads {' or '.join(modalities)} only.", "refusal")
    findings = {
        series.key: [wrong] for series in intake.series if series.modality not in modalities
    }
    document: dict[str, Any] = intake_document(
        intake, case_of=case_of, chosen=chosen, findings=findings
    )
    return document
