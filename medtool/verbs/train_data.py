"""What a training learns from: cases, labels, parts, and what alone predicts the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.errors import InputError, LabelsError, UsageError
from medtool.core.progress import Reporter, tell
from medtool.core.records import Case, Cohort, Finding, Part
from medtool.data.cohort import build_cohort
from medtool.data.leakage import leakage_gate, patients_alike
from medtool.data.run_folder import RunFolder
from medtool.data.series_table import source_of
from medtool.data.splits import Split, make_split
from medtool.verbs.task_data import folder_of_folds, no_usable_study, require_data

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.verbs.train_options import TrainOptions

# Above this, a fact alone is worth a warning (0.5 is chance).
SUSPICIOUS_AUROC = 0.65


@dataclass(frozen=True)
class TrainingData:
    """Labelled cases with their parts, and everything that was found on the way."""

    task: Task
    cohort: Cohort
    cases: tuple[Case, ...]
    split: Split
    findings: tuple[Finding, ...]
    confounders: tuple[Mapping[str, Any], ...]
    labels_file: Path | None

    def part(self, part: Part) -> tuple[Case, ...]:
        """The cases of one part."""
        return self.split.cases_of(self.cases, part)

    @property
    def learners(self) -> tuple[Case, ...]:
        """The cases that may have a say in the model: all but the held-out part."""
        return (*self.part("train"), *self.part("selection"))

    @property
    def synthetic(self) -> bool:
        """Whether any case is made up: a model that saw one must not meet patients."""
        return any(bool(case.facts.get("synthetic")) for case in self.cases)

    def without(self, case_ids: set[str]) -> TrainingData:
        """The same without these cases (they could not be prepared)."""
        kept = tuple(case for case in self.cases if case.case_id not in case_ids)
        return replace(self, cases=kept)


def gather(
    task: Task, options: TrainOptions, run: RunFolder | None, reporter: Reporter
) -> TrainingData:
    """Find, label, split; ``run`` gives the parts when it was begun before. None begins no run.

    Raises InputError, LabelsError, UsageError, LeakageError.
    """
    folder = options.data if options.data is not None else task.settings.data.folder
    require_data(folder, task)
    source = source_of([folder], labels=options.labels, series=options.series)
    found = build_cohort(task, source, reporter=reporter)
    refusal = no_usable_study(found, folder, task)
    if refusal is not None:
        raise refusal
    cases = tuple(case for case in found.cases if task.has_reference(case))
    if not cases and task.reference != "label":
        raise InputError(
            f"No case has a {task.reference} to learn from.",
            where=str(folder),
            met=f"{len(found.cases)} cases",
            wanted=task.layout,
        )
    if not cases and found.labels_file is None:
        raise LabelsError(
            "There are no labels to learn from.",
            where=str(folder),
            wanted="one table labels*.csv beside the scans",
            how="name one with --labels, or in medtool.toml.",
        )
    if not cases:
        raise LabelsError(
            "No case has a label.",
            where=str(found.labels_file),
            met=f"{len(found.cases)} cases, none of them in the table",
            wanted="rows whose id fits a case",
        )
    train = task.settings.train
    if run is not None and run.cases_file.is_file() and run.exists():
        cases, split = parts_of_run(cases, run)
    else:
        split = make_split(
            cases,
            train,
            task.settings.data,
            fold=options.run.fold,
            allow=options.allow_leak,
            beside=folder_of_folds(task, folder),
        )
    cases = tuple(case for case in cases if case.case_id in split.parts)
    leakage_gate(cases, split.parts, {}, allow=options.allow_leak)
    alike = patients_alike(cases, split.parts)
    tell([*split.findings, *alike], reporter)
    confounders = measure_confounders(cases, task.settings.metrics.confidence, reporter)
    return TrainingData(
        task=task,
        cohort=found.cohort,
        cases=cases,
        split=split,
        findings=(*found.findings, *split.findings, *alike),
        confounders=tuple(confounders),
        labels_file=found.labels_file,
    )


def parts_of_run(cases: Sequence[Case], run: RunFolder) -> tuple[tuple[Case, ...], Split]:
    """The parts that a run began with: resuming never deals patients anew."""
    rows = {row["case"]: row for row in run.read_cases() if row["part"]}
    missing = sorted(set(rows) - {case.case_id for case in cases})
    if missing:
        raise InputError(
            "Cases that this run began with are not there any more.",
            where=str(run.cases_file),
            met=f"{len(missing)} missing: " + ", ".join(missing[:5]),
            wanted="the same data",
            how="name their folder with --data, or begin a new run.",
        )
    kept = tuple(
        replace(case, patient_id=rows[case.case_id]["patient"])
        for case in cases
        if case.case_id in rows
    )
    changed = [
        case.case_id
        for case in kept
        if _label(rows[case.case_id]["label"]) != case.label
        or not _same_outcome(rows[case.case_id], case)
    ]
    if changed:
        raise UsageError(
            "Labels changed since this run began.",
            where=str(run.cases_file),
            met=", ".join(changed[:5]),
            how="begin a new run.",
        )
    split = run.read_run().get("split", {})
    parts: dict[str, Any] = {name: row["part"] for name, row in rows.items()}
    return kept, Split(
        parts,
        split.get("scheme", "file"),
        split.get("fold"),
        (),
        optimistic="test" not in parts.values(),
    )


def _label(text: str) -> float | None:
    return float(text) if text else None


def _same_outcome(row: Mapping[str, str], case: Case) -> bool:
    """Whether the row of cases.csv has the outcome that the case has now."""
    cells = {name: str(value) for name, value in _outcome_cells(case).items()}
    return all(row.get(name, "") == value for name, value in cells.items())


def _outcome_cells(case: Case) -> dict[str, Any]:
    """Time and event of a case for cases.csv, empty where there is no outcome."""
    if case.outcome is None:
        return {"time_days": "", "event": ""}
    return {"time_days": case.outcome.time_days, "event": int(case.outcome.event)}


def measure_confounders(
    cases: Sequence[Case], confidence: float, reporter: Reporter
) -> list[dict[str, Any]]:
    """How well scanner, kernel, thickness or number of slices alone predict the label.

    Nothing where cases have no label of two classes.
    """
    if {case.label for case in cases} - {0.0, 1.0}:
        return []
    from medtool.score.confounders import SCAN_FACTS, confounder_aurocs

    names = [n for n in SCAN_FACTS if any(case.facts.get(n) is not None for case in cases)]
    rows = confounder_aurocs(
        [case.facts for case in cases],
        [float(case.label or 0.0) for case in cases],
        [case.patient_id for case in cases],
        names=names,
        confidence=confidence,
    )
    for row in rows:
        if row["auroc"] == row["auroc"] and row["auroc"] > SUSPICIOUS_AUROC:
            reporter.warn(
                f"{row['fact']} alone predicts the label with an AUROC of {row['auroc']:.2f} "
                f"({row['low']:.2f} to {row['high']:.2f}): the model may learn that instead."
            )
    return rows


def case_rows(data: TrainingData) -> list[dict[str, Any]]:
    """The rows of cases.csv: every case that was found, those without a part as well."""
    known = {case.case_id: case for case in data.cases}
    has_outcomes = any(case.outcome is not None for case in data.cases)
    rows = []
    for found in data.cohort.cases:
        case = known.get(found.case_id, found)
        facts = {
            name: value
            for name, value in case.facts.items()
            if isinstance(value, str | int | float | bool)
        }
        rows.append(
            {
                "case": case.case_id,
                "patient": case.patient_id,
                "study_uid": case.study_uid,
                "accession": case.accession,
                "study_date": case.study_date,
                "folder": case.folder,
                "part": data.split.parts.get(case.case_id, ""),
                "label": case.label,
                **(_outcome_cells(case) if has_outcomes else {}),
                **facts,
            }
        )
    return rows
