"""PET/CT studies that a list names: a manifest CSV, or the dataset.json of autoPET III.

A manifest has columns ``case``, ``image_pet`` (or ``image_suv``), ``image_ct`` and, where they are
known, ``patient``, ``mask``, the time with its unit in its name (``time_days``) and ``event``;
further columns are covariates. An image is a file, or a folder of DICOM slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medtool.core.errors import InputError, LabelsError
from medtool.core.records import Case, Finding, RefusedStudy, Source
from medtool.data.dataset_record import SegmentationCase, SegmentationDataset
from medtool.data.datasets import DESCRIPTION, NNUNET_FOLDERS, read_dataset
from medtool.data.foreign_table import read_foreign_table
from medtool.data.manifest_layout import CHANNEL_PREFIX, is_table, read_manifest
from medtool.dicom import scan
from medtool.dicom.document import intake_document
from medtool.dicom.series import Series
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_dicom import paired_case
from medtool.tasks.prognosis_labels import CHANNELS, CT, LACKING, PET, TRUE_RISK
from medtool.tasks.prognosis_outcomes import OutcomeColumns, outcome_columns, read_outcomes
from medtool.tasks.segmentation_find import SYNTHETIC
from medtool.tasks.segmentation_labels import MASK, scheme_of
from medtool.tasks.studies import Study

# What the channel of a manifest, or of a data set's description, is called.
CHANNEL_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("pet", "pt", "suv", "suvbw"), PET),
    **dict.fromkeys(("ct", "ctres"), CT),
}
# Beside the manifest of a synthetic cohort: columns case and true_log_hazard.
TRUE_RISK_FILE, TRUE_RISK_COLUMN = "true_risk.csv", "true_log_hazard"


@dataclass(frozen=True)
class Listed:
    """Cases of a list, and everything that is said of it; ``series`` are rows of ``check``.

    ``dataset`` says what labels mean, where the list does.
    """

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]
    refused: tuple[RefusedStudy, ...]
    series: tuple[Mapping[str, Any], ...] = ()
    dataset: Mapping[str, Any] | None = None


# --- which list ---------------------------------------------------------------------------
def manifest_in(path: Path) -> Path | None:
    """The table that ``path`` is, or the one in the folder, that lists PET and CT.

    Raises InputError where a folder holds several.
    """
    if path.is_file():
        return path if is_table(path) else None
    tables = [one for one in sorted(path.iterdir()) if is_table(one) and _lists_pet_ct(one)]
    if len(tables) > 1:
        raise InputError(
            f"{path.name} holds several manifests.",
            where=str(path),
            met=", ".join(table.name for table in tables),
            how="name one of them.",
        )
    return tables[0] if tables else None


def _lists_pet_ct(table: Path) -> bool:
    try:
        columns = read_foreign_table(table, kind="manifest").columns
    except LabelsError:
        # Any other table may lie there; only one that is named has to be a manifest.
        return False
    return {_channel(column) for column in columns} >= set(CHANNELS)


def _channel(column: str) -> str:
    """The channel of a manifest's column; "" for a column that is no image."""
    name = column.casefold()
    if not name.startswith(CHANNEL_PREFIX):
        return ""
    return CHANNEL_NAMES.get(name.removeprefix(CHANNEL_PREFIX), "")


def dataset_in(path: Path) -> Path | None:
    """The description that ``path`` is or holds, or the one nnU-Net data set in the folder."""
    if path.is_file():
        return path if path.name == DESCRIPTION else None
    if (path / DESCRIPTION).is_file():
        return path
    return path if any(folder.is_dir() for folder in path.glob(NNUNET_FOLDERS)) else None


def read_list(path: Path, source: Source, data: PrognosisDataSection) -> Listed:
    """The studies of a manifest or of a described data set. Raises LabelsError, InputError."""
    return _read_manifest(path, source, data) if is_table(path) else _read_described(path, data)


# --- manifest -----------------------------------------------------------------------------
def _read_manifest(path: Path, source: Source, data: PrognosisDataSection) -> Listed:
    table = read_foreign_table(path, kind="manifest", unwrap=True)
    lacking = {
        name.casefold(): LACKING[channel] for name in table.columns if (channel := _channel(name))
    }
    dataset = read_manifest(path, scheme_of(data) if data.label_ids else None, lacking=lacking)
    names = [CHANNEL_NAMES.get(name.casefold(), "") for name in dataset.channels]
    if sorted(names) != sorted(CHANNELS):
        raise LabelsError(
            "The manifest does not name a PET and a CT.",
            where=str(path),
            met="columns " + ", ".join(table.columns),
            wanted="image_pet (or image_suv) and image_ct, and no further image",
        )
    listed = _as_cases(dataset, names, source)
    columns = outcome_columns(table.columns, data, str(path))
    if columns is None:
        return _with_true_risk(listed, path.parent)
    key = next((name for name in table.columns if name.casefold() == "case"), "")
    if not key:
        raise LabelsError(
            "A manifest with outcomes needs a column case.",
            where=str(path),
            met="columns " + ", ".join(table.columns),
            wanted="case",
        )
    outcomes, said = read_outcomes(table, columns, key)
    cases = tuple(
        replace(_without(case, columns), outcome=outcomes.get(case.case_id))
        for case in listed.cases
    )
    listed = replace(listed, cases=cases, findings=(*listed.findings, *said))
    return _with_true_risk(listed, path.parent)


def _without(case: Case, columns: OutcomeColumns) -> Case:
    """The case without its outcome among the covariates, from which models may learn."""
    kept = {n: v for n, v in case.covariates.items() if n.casefold() not in columns.names}
    return replace(case, covariates=kept)


def _with_true_risk(listed: Listed, folder: Path) -> Listed:
    """Cases with the true hazard of synthetic patients beside their manifest, where it is."""
    file = folder / TRUE_RISK_FILE
    if not file.is_file():
        return listed
    rows = read_foreign_table(file, kind="table of true hazards").rows
    risk = {row.cells["case"]: row.cells[TRUE_RISK_COLUMN] for row in rows}
    cases = tuple(
        replace(case, references={**case.references, TRUE_RISK: risk[case.case_id]})
        if case.case_id in risk
        else case
        for case in listed.cases
    )
    return replace(listed, cases=cases)


# --- described data sets ------------------------------------------------------------------
def _read_described(path: Path, data: PrognosisDataSection) -> Listed:
    """autoPET III, or another nnU-Net data set of a PET and a CT."""
    dataset = read_dataset(path, labels=scheme_of(data) if data.label_ids else None)
    names = [CHANNEL_NAMES.get(name.casefold(), "") for name in dataset.channels]
    if sorted(names) != sorted(CHANNELS):
        raise LabelsError(
            "The channels of the data set are not a PET and a CT.",
            where=str(path),
            met=", ".join(dataset.channels),
            wanted="CT, and PET or SUV, in the order of the files' numbers",
            how="name them so in channel_names of dataset.json (autoPET III: 0 CT, 1 SUV).",
        )
    listed = _as_cases(dataset, names, None)
    described = {
        "layout": dataset.layout,
        "name": dataset.name,
        "channels": list(CHANNELS),
        "labels": {name: list(ids) for name, ids in dataset.labels.ids.items()},
        "regions_order": list(dataset.labels.regions_order),
        "ignore_id": dataset.labels.ignore_id,
    }
    return replace(listed, dataset=described)


# --- cases --------------------------------------------------------------------------------
def _as_cases(dataset: SegmentationDataset, names: Sequence[str], source: Source | None) -> Listed:
    """The cases of a data set whose channels are ``names``; folders are read as DICOM."""
    cases: list[Case] = []
    refused: list[RefusedStudy] = []
    series: list[Mapping[str, Any]] = []
    for one in dataset.cases:
        images = dict(zip(names, one.images, strict=True))
        folders = [image.path for image in images.values() if image.path.is_dir()]
        found: Case | RefusedStudy = _file_case(one, images, synthetic=dataset.synthetic)
        if folders and source is not None:
            found, rows = _dicom_case(one, folders, source)
            series += rows
        if isinstance(found, Case):
            cases.append(found)
        else:
            refused.append(found)
    said = tuple(f for f in dataset.findings if f.code != "labels-assumed")
    return Listed(tuple(cases), said, (*dataset.refused, *refused), tuple(series))


def _file_case(case: SegmentationCase, images: Mapping[str, Any], *, synthetic: bool) -> Case:
    return Case(
        case_id=case.case_id,
        patient_id=case.patient_id,
        study_uid="",
        inputs={name: images[name] for name in CHANNELS},
        folder=images[PET].path.parent.name,
        references={} if case.mask is None else {MASK: str(case.mask)},
        covariates=case.covariates,
        facts={SYNTHETIC: synthetic},
    )


def _dicom_case(
    case: SegmentationCase, folders: Sequence[Path], source: Source
) -> tuple[Case | RefusedStudy, list[Mapping[str, Any]]]:
    """The PET and the CT in the folders that a row names, and their rows of ``check``."""
    if len(folders) < len(CHANNELS):
        text = "One of PET and CT is a folder, the other a file: both have to be one kind."
        return RefusedStudy(case.case_id, case.patient_id, "", "channels-differ", text), []
    intake = scan(list(dict.fromkeys(folders)))
    first = intake.series[0] if intake.series else None
    study = Study(
        case.patient_id,
        "" if first is None else first.study_uid,
        folders[0].name,
        intake.series,
        case_id=case.case_id,
    )
    found = paired_case(study, source)
    chosen: set[str] = set()
    if isinstance(found, Case):
        chosen = {one.key for one in found.inputs.values() if isinstance(one, Series)}
        mask = {} if case.mask is None else {MASK: str(case.mask)}
        found = replace(found, references=mask, covariates=case.covariates)
    case_of = {one.key: case.case_id for one in intake.series}
    rows = intake_document(intake, case_of=case_of, chosen=chosen)["series"]
    return found, rows
