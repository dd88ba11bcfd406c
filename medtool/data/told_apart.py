"""No two cases of one name: under its name everything that is said of a case is kept.

Sources that are searched one by one can hold files, or patients, that are called alike.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.errors import CaseRefused
from medtool.core.names import counted
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.dataset_record import ImageReference
from medtool.data.series_table import recorded_overrulings
from medtool.dicom.series import Series

if TYPE_CHECKING:
    from medtool.core.task import Task

# Bytes of the mark behind a name that several cases have.
MARK_BYTES = 4
NAMES_SHOWN = 5
NAMES_SHARED = "names-shared"


def find_cases(task: Task, source: Source) -> Cohort:
    """What ``task`` finds under ``source``, every case and every refused study with its own name.

    Raises as the search of the task does, and for a table of series that cannot be read.
    """
    return told_apart(recorded_overrulings(task.find(source), source), source)


def told_apart(cohort: Cohort, source: Source) -> Cohort:
    """The cohort with a mark of its place behind each name that several cases have.

    Names that differ in letter case alone are one name to some disks. Of one case that was found
    twice the first stays; one whose place says nothing new is refused as ``case-twice``.
    """
    names = Counter(case.case_id.casefold() for case in cohort.cases)
    names.update(study.case_id.casefold() for study in cohort.refused)
    if all(count == 1 for count in names.values()):
        return cohort
    cases: dict[str, Case] = {}
    refused: list[RefusedStudy] = []
    renamed: dict[str, list[tuple[Case, Case]]] = {}
    for case in cohort.cases:
        several = names[case.case_id.casefold()] > 1
        own = _marked(case, _place(case, source)) if several else case
        first = cases.setdefault(own.case_id.casefold(), own)
        if first is own:
            renamed.setdefault(case.case_id, []).append((case, own))
        elif first.inputs != own.inputs:
            text = f"Another case is called {case.case_id} as well, and nothing tells them apart."
            refused.append(
                RefusedStudy(case.case_id, case.patient_id, case.study_uid, "case-twice", text)
            )
    taken = set(cases)
    kept = [_with_own_name(study, taken) for study in (*cohort.refused, *refused)]
    return replace(
        cohort,
        cases=tuple(sorted(cases.values(), key=lambda case: case.case_id)),
        refused=tuple(kept),
        intake={
            **cohort.intake,
            "series": [_row(row, renamed) for row in cohort.intake.get("series", ())],
        },
        findings=(*cohort.findings, *_said(cohort.cases, names)),
    )


def refused_archives(
    archives: Sequence[tuple[Path, CaseRefused]], cohort: Cohort
) -> tuple[RefusedStudy, ...]:
    """A row for each of ``archives``, which cannot be unpacked, that has its name for itself.

    The name is that of the file with its ending: an archive is often called as the study in it,
    and where another source has that study it must be answered, under the name that it always has.
    """
    alike = Counter(archive.name.casefold() for archive, _ in archives)
    taken = {case.case_id.casefold() for case in cohort.cases}
    taken |= {study.case_id.casefold() for study in cohort.refused}
    rows = []
    for archive, error in archives:
        name = archive.name
        if alike[name.casefold()] > 1:
            # Of the whole place, so that the order of the sources changes no name.
            mark = blake2b(os.fsencode(archive.resolve()), digest_size=MARK_BYTES).hexdigest()
            name = f"{name}_{mark}"
        said = RefusedStudy(name, "", "", error.code, f"{archive}: {error.what}")
        rows.append(_with_own_name(said, taken))
    return tuple(rows)


def _marked(case: Case, place: str) -> Case:
    """The case with a mark of ``place`` behind its name, which stands for its patient too where no
    header says whose it is.
    """
    name = f"{case.case_id}_{blake2b(place.encode(), digest_size=MARK_BYTES).hexdigest()}"
    unsaid = not case.study_uid and not _has_series(case)
    patient = name if unsaid and case.patient_id == case.case_id else case.patient_id
    return replace(case, case_id=name, patient_id=patient)


def _place(case: Case, source: Source) -> str:
    """Where a case comes from, in words that stay when all its data move together."""
    if _has_series(case):
        return f"{case.patient_id}|{case.study_uid or case.folder}"
    return "|".join(_inside(value, source) for _, value in sorted(case.inputs.items()))


def _has_series(case: Case) -> bool:
    return any(isinstance(value, Series) for value in case.inputs.values())


def _inside(value: Any, source: Source) -> str:
    """The path of an input from the folder on that holds its source."""
    reference = value if isinstance(value, ImageReference) else None
    path = Path(reference.path if reference else value).absolute()
    roots = [root.absolute() for root in source.paths]
    root = next((root for root in roots if path.is_relative_to(root)), path)
    parts = (*root.parts[-2:], *path.relative_to(root).parts)
    return "/".join(parts) + (f"#{reference.component}" if reference else "")


def _with_own_name(study: RefusedStudy, taken: set[str]) -> RefusedStudy:
    """What is refused under a name that nothing else in the table has."""
    if study.case_id.casefold() in taken:
        text = f"{study.patient_id}|{study.study_uid}|{study.message}"
        mark = blake2b(text.encode(), digest_size=MARK_BYTES).hexdigest()
        named, number = f"{study.case_id}_{mark}", 2
        while named.casefold() in taken:
            named, number = f"{study.case_id}_{mark}_{number}", number + 1
        study = replace(study, case_id=named)
    taken.add(study.case_id.casefold())
    return study


def _row(
    row: Mapping[str, Any], renamed: Mapping[str, Sequence[tuple[Case, Case]]]
) -> Mapping[str, Any]:
    """A row of the intake under the new name of its case."""
    for case, own in renamed.get(str(row["case"]), ()):
        if own is not case and _is_of(row, case):
            return {**row, "case": own.case_id, "patient": own.patient_id}
    return row


def _is_of(row: Mapping[str, Any], case: Case) -> bool:
    if case.study_uid and "study" in row:
        return bool(row.get("study") == case.study_uid)
    places = {str(getattr(value, "path", value)) for value in case.inputs.values()}
    # A stranger's task need not say where the files of its rows lie.
    file = Path(row.get("folder", "")) / row.get("description", "")
    return str(row.get("key")) in places or str(file) in places


def _said(cases: Sequence[Case], names: Mapping[str, int]) -> list[Finding]:
    alike = Counter(case.case_id for case in cases if names[case.case_id.casefold()] > 1)
    if not alike:
        return []
    shown = ", ".join([*alike][:NAMES_SHOWN]) + (", ..." if len(alike) > NAMES_SHOWN else "")
    text = (
        f"{counted(sum(alike.values()), 'case')} share {counted(len(alike), 'name')} with others "
        f"({shown}): each has a mark of its place behind its name."
    )
    return [Finding(NAMES_SHARED, text, "warning")]
