"""A table of outcomes beside the scans, or named with --labels: rows to cases, by one key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.errors import LabelsError
from medtool.core.records import Case, Finding, Outcome
from medtool.data.foreign_table import ForeignTable, read_foreign_table
from medtool.data.labels import id_column_of
from medtool.data.matching import (
    KEYS,
    Fit,
    Labelled,
    best_fit,
    said_of_ids,
    said_of_missing,
    shown,
)
from medtool.tasks.prognosis_outcomes import (
    OutcomeColumns,
    outcome_columns,
    read_outcomes,
    with_strata,
)

if TYPE_CHECKING:
    from medtool.tasks.prognosis_data_settings import PrognosisDataSection

# Keys of a patient, who may have several studies.
PATIENT_KEYS = ("PatientID", "folder")


@dataclass(frozen=True)
class _Row:
    """One id of the table; ``outcome`` is None where its cells are empty."""

    line: int
    identifier: str
    outcome: Outcome | None
    covariates: Mapping[str, str]


def attach_outcomes(cases: Sequence[Case], file: Path, data: PrognosisDataSection) -> Labelled:
    """Cases with the outcomes and covariates of the table ``file``.

    Ids fit under the one key that fits most rows. Raises LabelsError: no columns of an outcome or
    no unit, rows that are none, no id that fits, an outcome other than the one that came with the
    case, several studies of a patient of which the table does not say where the time begins.
    """
    table = read_foreign_table(file, kind="table of outcomes", unwrap=True)
    columns = outcome_columns(table.columns, data, str(file))
    if columns is None:
        raise LabelsError(
            "The table has no outcome.",
            where=str(file),
            met="columns " + ", ".join(table.columns),
            wanted="a time with its unit in its name (time_days), and an event of 0 and 1",
            how="name them: --set data.time_column=NAME --set data.event_column=NAME.",
        )
    rows, findings = _rows(table, columns, data)
    if not cases:
        return Labelled((), tuple(findings), "", tuple(rows))
    fit = best_fit(cases, rows, f"{file}, ids")
    attached = [
        case if row is None else _with(case, row)
        for case, row in zip(cases, fit.rows_of(cases), strict=True)
    ]
    _refuse_contradictions(cases, attached, file)
    attached, said = _once_a_patient(attached, fit, file)
    unmatched = fit.unmatched(rows)
    text = f"{file.name}: ids match the {fit.key} of studies in {len(fit.matched)} of {len(rows)} "
    findings = [
        Finding("label-key", f"{text}rows ({table.how_read()})"),
        *findings,
        *said_of_ids(file.name, fit),
        *said,
        *said_of_missing(attached, unmatched, fit.key, "outcome"),
    ]
    return Labelled(tuple(with_strata(attached, data)), tuple(findings), fit.key, unmatched)


def _rows(
    table: ForeignTable, columns: OutcomeColumns, data: PrognosisDataSection
) -> tuple[list[_Row], list[Finding]]:
    """One row an id, and what is to be said of the table."""
    key = id_column_of(table, data)
    outcomes, said = read_outcomes(table, columns, key)
    rows: dict[str, _Row] = {}
    for row in table.rows:
        identifier = row.cells[key]
        if identifier and identifier not in rows:
            others = {
                name.casefold(): cell
                for name, cell in row.cells.items()
                if name != key and name.casefold() not in columns.names
            }
            rows[identifier] = _Row(row.line, identifier, outcomes[identifier], others)
    return list(rows.values()), [*table.findings, *said]


def _with(case: Case, row: _Row) -> Case:
    covariates = {**case.covariates, **row.covariates}
    return replace(case, outcome=row.outcome or case.outcome, covariates=covariates)


def _refuse_contradictions(before: Sequence[Case], after: Sequence[Case], file: Path) -> None:
    """An outcome that came with the case (from a manifest) and the table's have to be one."""
    torn = [
        old.case_id
        for old, new in zip(before, after, strict=True)
        if old.outcome is not None
        and new.outcome is not None
        and (old.outcome.time_days, old.outcome.event) != (new.outcome.time_days, new.outcome.event)
    ]
    if torn:
        raise LabelsError(
            "The table of outcomes contradicts the outcomes that came with the cases.",
            where=str(file),
            met=f"{len(torn)} cases: {shown(torn)}",
            wanted="one outcome a case",
        )


def _once_a_patient(
    cases: Sequence[Case], fit: Fit[_Row], file: Path
) -> tuple[list[Case], list[Finding]]:
    """Outcomes of patients stand with the first of their studies: the others have none.

    Raises LabelsError where it is not known which study is the first.
    """
    if fit.key not in PATIENT_KEYS:
        return list(cases), []
    studies: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.outcome is not None:
            studies[KEYS[fit.key](case)].append(case)
    several = {name: same for name, same in studies.items() if len(same) > 1}
    later: set[str] = set()
    undated = []
    for name, same in several.items():
        dates = sorted({case.study_date for case in same} - {""})
        if len(dates) < len(same):
            undated.append(name)
        later |= {case.case_id for case in same if case.study_date != (dates or [""])[0]}
    if undated:
        raise LabelsError(
            "Some patients have several studies, and it is not known from which the time counts.",
            where=str(file),
            met=f"{len(undated)} patients: {shown(undated)}",
            wanted="an outcome for each study",
            how="give the id of the study (case, accession or StudyInstanceUID) in the table.",
        )
    if not several:
        return list(cases), []
    text = f"{file.name}: {len(several)} patients have several studies: the time is taken to count "
    text += f"from the first, and {len(later)} later studies have no outcome"
    kept = [replace(c, outcome=None) if c.case_id in later else c for c in cases]
    return kept, [Finding("outcome-first-study", text, "warning")]
