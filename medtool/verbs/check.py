"""``medtool check``: what is there, what is usable, what was repaired, and why not the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtool.core.errors import ExitStatus, InputError, OutputExistsError
from medtool.core.files import replace_text, require_writable
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, Finding
from medtool.data.checking import CheckReport, check_cases
from medtool.data.cohort import LabelledCohort, build_cohort
from medtool.data.preparation import workers_for
from medtool.data.series_table import series_table_text
from medtool.verbs.options import timeout_of
from medtool.verbs.task_data import (
    DataOptions,
    data_source,
    no_usable_study,
    resolved_task,
    warn_of_timeout,
)


@dataclass(frozen=True)
class CheckResult:
    """``document`` is what ``--json`` prints; ``table`` the CSV that was written."""

    document: Mapping[str, Any]
    cohort: LabelledCohort
    table: Path | None
    # Why there is nothing to use, where not a single study was found.
    refusal: InputError | None = None

    @property
    def status(self) -> ExitStatus:
        """0 when every study can be used, 1 when some can, 3 when none can."""
        usable = sum(case["usable"] for case in self.document["cases"])
        if not usable:
            return ExitStatus.NO_INPUT
        all_usable = usable == len(self.document["cases"])
        return ExitStatus.DONE if all_usable else ExitStatus.SOME_CASES_FAILED


def check(
    options: DataOptions,
    *,
    csv: Path | None = None,
    force: bool = False,
    workers: int | None = None,
    case_timeout_s: float | None = None,
    reporter: Reporter | None = None,
) -> CheckResult:
    """Look at every series under the data, at its pixels, and at the labels; change nothing.

    ``csv`` gets one row a series. Raises UsageError and its kinds (task, preset, labels, output
    exists), InputError (no data), MachineError.
    """
    reporter = reporter or Silent()
    if csv is not None and csv.exists() and not force:
        raise OutputExistsError(
            "The table of series exists.", where=str(csv), how="--force overwrites it."
        )
    if csv is not None:
        require_writable(csv)
    task, _ = resolved_task(options)
    source = data_source(options, task)
    found = build_cohort(task, source, judge_labels=True)
    warn_of_timeout(workers, case_timeout_s, reporter)
    seen = check_cases(
        task.informed(found.cohort.intake),
        found.cases,
        workers=workers_for(found.cases, workers),
        case_timeout_s=timeout_of(case_timeout_s, task),
        reporter=reporter,
    )
    document = check_document(found, seen)
    if csv is not None:
        replace_text(csv, series_table_text(document))
    return CheckResult(document, found, csv, no_usable_study(found, source.paths[0], task))


def check_document(found: LabelledCohort, seen: CheckReport) -> dict[str, Any]:
    """The intake's document with the task's findings, and what was found of cases and labels."""
    of_case = {case_id: [asdict(f) for f in said] for case_id, said in seen.findings.items()}
    for failure in seen.failures:
        of_case[failure.case_id] = [asdict(Finding(failure.code, failure.message, "refusal"))]
    patients = {case.case_id: case.patient_id for case in found.cases}
    series = [
        {
            **row,
            "patient": patients.get(row["case"], row["patient"]),
            "findings": [
                *row["findings"],
                *(of_case.get(row["case"], ()) if row["chosen"] else ()),
            ],
        }
        for row in found.cohort.intake["series"]
    ]
    return {
        **found.cohort.intake,
        "series": series,
        "cases": [
            *(_case_row(case, of_case.get(case.case_id, [])) for case in found.cases),
            *(
                {
                    "case": study.case_id,
                    "patient": study.patient_id,
                    "study_uid": study.study_uid,
                    "label": None,
                    "references": [],
                    "usable": False,
                    "findings": [asdict(Finding(study.code, study.message, "refusal"))],
                }
                for study in found.cohort.refused
            ),
        ],
        "labels": _labels(found),
        "findings": [asdict(finding) for finding in (*found.findings, *seen.compared)],
    }


def _case_row(case: Case, findings: list[dict[str, Any]]) -> dict[str, Any]:
    """``findings`` are the task's on the pixels; those on the choice of series come before."""
    return {
        "case": case.case_id,
        "patient": case.patient_id,
        "study_uid": case.study_uid,
        "label": case.label,
        "references": sorted(case.references),
        "usable": not any(finding["severity"] == "refusal" for finding in findings),
        "findings": [*(asdict(finding) for finding in case.findings), *findings],
    }


def _labels(found: LabelledCohort) -> dict[str, Any] | None:
    if found.labels_file is None or found.labels is None:
        return None
    outcomes = [case.outcome for case in found.cases if case.outcome is not None]
    classes = Counter(case.label for case in found.with_label)
    events = Counter("event" if one.event else "censored" for one in outcomes)
    return {
        "file": str(found.labels_file),
        "key": found.labels.key,
        "cases": {f"{label:g}": n for label, n in sorted(classes.items()) if label is not None}
        | dict(sorted(events.items())),
        "cases_without_label": [case.case_id for case in found.labels.without_label],
        "labels_without_case": [row.identifier for row in found.labels.unmatched_rows],
    }
