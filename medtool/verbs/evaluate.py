"""``evaluate``: how good answers are, from stored predictions or from a checkpoint and data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from medtool.config.sections import DataSection, MetricsSection
from medtool.core.errors import (
    InputError,
    OutputExistsError,
    UsageError,
)
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter, Silent, tell
from medtool.core.records import Finding
from medtool.score.classification import FoldSelections, SelectionPart, binary_scores
from medtool.score.compare import Comparison, compare_models
from medtool.score.confounders import SCAN_FACTS, confounder_aurocs
from medtool.verbs.evaluate_labels import how_read, labelled, with_default_data
from medtool.verbs.evaluate_masks import evaluate_masks, evaluates_masks
from medtool.verbs.evaluate_result import SCORES_FILE, Evaluated, Evaluation
from medtool.verbs.evaluate_subjects import (
    Row,
    Subject,
    facts_of,
    is_checkpoint,
    is_run,
    pooled,
    predictions_subject,
    require_facts,
    run_subject,
    training_gate,
    with_checkpoint,
)
from medtool.verbs.options import RunOptions

By = Literal["case", "patient"]
Seen = Literal["refuse", "leave-out", "report"]


@dataclass(frozen=True)
class EvaluateOptions:
    """What is asked of ``evaluate``.

    ``subjects`` are predictions, runs, or (with ``data``) checkpoints; one, or two to compare.
    ``columns``: what it states stands above what the preset of each model says of labels.
    ``metrics``: how it is measured; None leaves it to the preset of each model.
    """

    subjects: tuple[Path, ...]
    checkpoints: tuple[Path, ...] = ()
    data: Path | None = None
    labels: Path | None = None
    columns: DataSection = field(default_factory=DataSection)
    output: Path | None = None
    by: By = "case"
    threshold: float | None = None
    subgroups: tuple[str, ...] = ()
    seen: Seen = "refuse"
    force: bool = False
    allow_demo: bool = False
    metrics: MetricsSection | None = None
    seed: int = 0
    run: RunOptions = field(default_factory=RunOptions)
    command: str = ""


def evaluate_options(
    subjects: Sequence[Path],
    checkpoints: Sequence[Path] = (),
    *,
    by: str = "case",
    seen: str = "refuse",
    id_column: str | None = None,
    label_column: str | None = None,
    run: Mapping[str, Any] | None = None,
    **others: Any,
) -> EvaluateOptions:
    """Options from words. Raises UsageError for a word that is none of its choices."""
    for name, word, choices in (("--by", by, get_args(By)), ("--seen", seen, get_args(Seen))):
        if word not in choices:
            raise UsageError(
                f"There is no such {name}.",
                met=word,
                wanted="|".join(choices),
                nearest=nearest_name(word, choices),
            )
    return EvaluateOptions(
        subjects=tuple(subjects),
        checkpoints=tuple(checkpoints),
        by=cast(By, by),
        seen=cast(Seen, seen),
        columns=DataSection(id_column=id_column, label_column=label_column),
        run=RunOptions(**(run or {})),
        **others,
    )


def evaluate(options: EvaluateOptions, reporter: Reporter | None = None) -> Evaluation:
    """Score one model, or two on the same cases.

    The threshold is the one stored with the model or its predictions; it is never fitted here.
    Raises UsageError (what was named cannot be evaluated), LabelsError, InputError (no labelled
    case has an answer), LeakageError (patients seen in training, unless ``seen`` says otherwise),
    OutputExistsError.
    """
    reporter = reporter or Silent()
    options = with_default_data(options, reporter)
    _check(options)
    if evaluates_masks(options):
        return evaluate_masks(options, reporter)
    findings: list[Finding] = []
    asked, subjects = _subjects(options, reporter), []
    for subject, data in zip(asked, how_read(asked, options.columns), strict=True):
        known, said = labelled(subject, data, options)
        findings += said
        checked = _without_training_patients(known, options)
        subjects.append(pooled(checked) if options.by == "patient" else checked)
    findings = list(dict.fromkeys(findings))
    tell(findings, reporter)
    if len(subjects) == 2:
        subjects = _on_common_cases(subjects, reporter)
    evaluated = tuple(_evaluated(subject, options) for subject in subjects)
    comparison = _compared(subjects, options) if len(subjects) == 2 else None
    result = Evaluation(evaluated, comparison, tuple(findings))
    if options.output is None:
        return result
    rows = _page_rows(result, subjects, options)
    return result.written(options.output, rows, command=options.command)


def _check(options: EvaluateOptions) -> None:
    if options.data is None and len(options.checkpoints) > len(options.subjects):
        raise UsageError(
            "A checkpoint was named without data and without its predictions.",
            met=f"{len(options.checkpoints)} checkpoints, {len(options.subjects)} predictions",
            how="add --data FOLDER with the scans, or the folder of its predictions.",
        )
    count = len(options.subjects) + (len(options.checkpoints) if options.data else 0)
    if count not in (1, 2):
        raise UsageError(
            "Nothing to evaluate was named." if not count else "Too much to evaluate was named.",
            met=f"{count} predictions, runs or checkpoints",
            wanted="one, or two to compare",
            how="medtool evaluate PREDICTIONS --labels FILE, or medtool evaluate --checkpoint C "
            "--data FOLDER.",
        )
    target = options.output
    if target is not None and (target / SCORES_FILE).exists() and not options.force:
        raise OutputExistsError(
            "There is an evaluation already.",
            where=str(target / SCORES_FILE),
            how="--force replaces it; or name another output with -o.",
        )


# --- reading ------------------------------------------------------------------------------
def _subjects(options: EvaluateOptions, reporter: Reporter) -> list[Subject]:
    if options.data is not None:
        from medtool.verbs.evaluate_models import predicted_subjects

        return predicted_subjects(options, reporter)
    found = []
    for number, path in enumerate(options.subjects):
        if is_checkpoint(path):
            raise UsageError(
                "A checkpoint alone cannot be evaluated.",
                where=str(path),
                wanted="its predictions, or scans that it can answer for",
                how="add --data FOLDER with the scans.",
            )
        subject = run_subject(path) if is_run(path) else predictions_subject(path)
        if number < len(options.checkpoints):
            subject = with_checkpoint(subject, options.checkpoints[number])
        found.append(subject)
    return found


def _without_training_patients(subject: Subject, options: EvaluateOptions) -> Subject:
    """The subject as the gate leaves it."""
    patients = [row.case.patient_id for row in subject.rows if row.case.label is not None]
    gate = training_gate(
        subject.header, subject.name, patients, options.seen, pseudonymised=subject.pseudonymised
    )
    rows = tuple(row for row in subject.rows if row.case.patient_id not in gate.left_out)
    notes = (*subject.notes, *filter(None, [gate.note]))
    return replace(
        subject, rows=rows, notes=notes, optimistic=gate.optimistic or subject.optimistic
    )


def _on_common_cases(subjects: Sequence[Subject], reporter: Reporter) -> list[Subject]:
    names = [{r.case.case_id for r in s.rows if r.case.label is not None} for s in subjects]
    common = names[0] & names[1]
    for subject, own in zip(subjects, names, strict=True):
        if own - common:
            reporter.warn(f"{subject.name}: {len(own - common)} cases the other has no answer for.")
    note = f"Compared on the {len(common)} cases that both answered."
    return [
        replace(
            subject,
            rows=tuple(
                sorted(
                    (row for row in subject.rows if row.case.case_id in common),
                    key=lambda row: row.case.case_id,
                )
            ),
            notes=(*subject.notes, note),
        )
        for subject in subjects
    ]


# --- scoring ------------------------------------------------------------------------------
def _evaluated(subject: Subject, options: EvaluateOptions) -> Evaluated:
    rows = [row for row in subject.rows if row.case.label is not None]
    if not rows:
        raise InputError(
            "No labelled case has an answer.",
            where=subject.name,
            met=f"{len(subject.rows)} answers, {len(subject.silent)} cases without one",
        )
    metrics = options.metrics or subject.metrics()
    cases = [row.case for row in rows]
    facts = [facts_of(case) for case in cases]
    labels = [float(row.case.label or 0.0) for row in rows]
    patients = [case.patient_id or case.case_id for case in cases]
    scores = binary_scores(
        labels,
        [row.probability for row in rows],
        patients,
        threshold=_thresholds(subject, rows, options.threshold),
        metrics=metrics,
        subgroups=_groups(facts, metrics, options),
        selection=_selection(subject, rows),
        cases=[case.case_id for case in cases],
        optimistic=subject.optimistic,
        seed=options.seed,
    )
    # Columns of the labels may tell the label as well as facts of the scan.
    asked = {*SCAN_FACTS, *options.subgroups, *(name for c in cases for name in c.covariates)}
    names = sorted(name for name in asked if any(fact.get(name) is not None for fact in facts))
    unlabelled = len(subject.rows) - len(rows)
    notes = [*scores.notes, *subject.notes]
    if unlabelled:
        notes.append(f"Answered, but without a label and not in the numbers: {unlabelled} cases.")
    if subject.silent:
        notes.append(f"Without an answer and not in the numbers: {len(subject.silent)} cases.")
    if options.threshold is not None:
        notes.append(f"The threshold {options.threshold:g} was given by hand.")
    return Evaluated(
        name=subject.name,
        scores=replace(scores, notes=tuple(notes)),
        confounders=tuple(
            confounder_aurocs(
                facts,
                labels,
                patients,
                names=names,
                confidence=metrics.confidence,
                seed=options.seed,
            )
        ),
        unlabelled=unlabelled,
        silent=subject.silent,
        folders=subject.folders,
    )


def _groups(
    facts: Sequence[Mapping[str, Any]], metrics: MetricsSection, options: EvaluateOptions
) -> dict[str, list[Any]]:
    """Subgroups that were asked for, else those of the preset that are known."""
    known = require_facts(facts, options.subgroups)
    names = options.subgroups or [n for n in metrics.subgroups if n in known]
    return {name: [fact.get(name) for fact in facts] for name in names}


def _thresholds(subject: Subject, rows: Sequence[Row], given: float | None) -> list[float]:
    """The stored threshold of each row; one given by hand stands above it."""
    if given is not None:
        return [given] * len(rows)
    stored = [row.threshold for row in rows]
    if any(value is None or not math.isfinite(value) for value in stored):
        raise UsageError(
            "No decision threshold is stored with these predictions.",
            where=subject.name,
            wanted="the threshold that the training chose; it is never fitted on what it scores",
            how="name the checkpoint with --checkpoint, or a threshold with --threshold.",
        )
    return [float(value) for value in stored if value is not None]


def _selection(subject: Subject, rows: Sequence[Row]) -> FoldSelections | None:
    """The selection part of every fold (of one named "" where there are no folds)."""
    parts: dict[str, list[tuple[float, float]]] = {}
    for row in subject.selection:
        if row.case.label is not None:
            parts.setdefault(row.fold, []).append((row.case.label, row.probability))
    if not parts:
        return None
    return FoldSelections(
        {
            fold: SelectionPart([label for label, _ in known], [answer for _, answer in known])
            for fold, known in parts.items()
        },
        [row.fold for row in rows],
    )


def _compared(subjects: Sequence[Subject], options: EvaluateOptions) -> Comparison:
    """Both on the same cases, with the draws and the confidence of the first one's preset."""
    metrics = options.metrics or subjects[0].metrics()
    first, second = (subject.rows for subject in subjects)
    labels = [row.case.label for row in first]
    if labels != [row.case.label for row in second]:
        raise UsageError(
            "The two disagree about the labels of the cases.",
            wanted="one column of one table, read alike",
            how="--labels FILE; --label-column NAME where they learned from different columns.",
        )
    return compare_models(
        [float(label or 0.0) for label in labels],
        [row.probability for row in first],
        [row.probability for row in second],
        [row.case.patient_id or row.case.case_id for row in first],
        draws=metrics.bootstrap_draws,
        confidence=metrics.confidence,
        seed=options.seed,
    )


# --- writing ------------------------------------------------------------------------------
def _page_rows(
    result: Evaluation, subjects: Sequence[Subject], options: EvaluateOptions
) -> list[dict[str, Any]]:
    """What the page needs of each model."""
    return [
        {
            **one.page_row(options.metrics or subject.metrics(), subject.header),
            "cases": [
                {
                    "case": row.case.case_id,
                    "patient": row.case.patient_id,
                    **{key: str(value) for key, value in facts_of(row.case).items()},
                }
                for row in subject.rows
            ],
        }
        for one, subject in zip(result.evaluated, subjects, strict=True)
    ]
