"""What the HECKTOR challenge keeps beside its images: relapse, clinical data, meaning of masks.

As in HECKTOR 2022 (Andrearczyk et al.): ``hecktor2022_endpoint_training.csv`` with PatientID,
Relapse (0, 1) and RFS in days, ``hecktor2022_clinical_info_training.csv`` with PatientID; images
``CASE__CT.nii.gz`` and ``CASE__PT.nii.gz`` (SUV), masks of the primary tumour (1) and lymph nodes
(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.records import Case, Finding
from medtool.data.dataset_record import BACKGROUND
from medtool.data.foreign_table import ForeignTable, read_foreign_table
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_labels import CHANNELS
from medtool.tasks.prognosis_outcomes import outcome_columns, read_outcomes
from medtool.tasks.prognosis_pairs import FilePair

ENDPOINTS, CLINICAL = "hecktor*endpoint*.csv", "hecktor*clinical*.csv"
PATIENT = "patientid"
# The organisers say it; the column does not.
UNIT = "days"
# How images of the challenge end, before the ending of the file.
IMAGE_NAMES = ("__CT", "__PT")
LABELS = {BACKGROUND: [0], "GTVp": [1], "GTVn": [2]}


@dataclass(frozen=True)
class Tabled:
    """Cases with what the tables say of them, and what is to be said of the tables."""

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...] = ()


def hecktor_labels(pairs: Sequence[FilePair]) -> dict[str, Any] | None:
    """The table ``dataset`` of a folder whose files are named as the challenge's; else None."""
    files = [file for pair in pairs for file in pair.images.values()]
    if not files or not all(any(name in file.name for name in IMAGE_NAMES) for file in files):
        return None
    return {
        "layout": "hecktor",
        "name": "HECKTOR",
        "channels": list(CHANNELS),
        "labels": LABELS,
        "regions_order": [],
        "ignore_id": None,
    }


def with_hecktor_tables(
    cases: Sequence[Case], folders: Sequence[Path], data: PrognosisDataSection
) -> Tabled:
    """The cases with relapse and covariates from the first of ``folders`` that has the tables.

    Raises LabelsError for tables that are wrong.
    """
    found = tuple(cases)
    findings: list[Finding] = []
    endpoints, clinical = _table(folders, ENDPOINTS), _table(folders, CLINICAL)
    if not cases:
        return Tabled(found)
    if clinical is not None:
        key = _patient_column(clinical)
        rows = {
            row.cells[key]: {n.casefold(): v for n, v in row.cells.items() if n != key}
            for row in clinical.rows
        }
        found = tuple(
            replace(case, covariates={**case.covariates, **rows.get(case.case_id, {})})
            for case in found
        )
        text = (
            f"{clinical.path.name}: covariates {', '.join(n for n in clinical.columns if n != key)}"
        )
        findings.append(Finding("covariates-table", text))
    if endpoints is not None:
        known = data if data.time_unit else data.model_copy(update={"time_unit": UNIT})
        columns = outcome_columns(endpoints.columns, known, str(endpoints.path))
        if columns is not None:
            key = _patient_column(endpoints)
            outcomes, said = read_outcomes(endpoints, columns, key)
            findings += said
            found = tuple(replace(case, outcome=outcomes.get(case.case_id)) for case in found)
    return Tabled(found, tuple(findings))


def _table(folders: Sequence[Path], pattern: str) -> ForeignTable | None:
    for folder in folders:
        files = sorted(folder.glob(pattern))
        if len(files) > 1:
            raise LabelsError(
                "There are several tables of one kind.",
                where=str(folder),
                met=", ".join(file.name for file in files),
                wanted=f"one {pattern}",
            )
        if files:
            return read_foreign_table(files[0], kind="table")
    return None


def _patient_column(table: ForeignTable) -> str:
    for name in table.columns:
        if name.casefold().replace("_", "").replace(" ", "") == PATIENT:
            return name
    raise LabelsError(
        "The table names no patients.",
        where=str(table.path),
        met="columns " + ", ".join(table.columns),
        wanted="PatientID",
    )
