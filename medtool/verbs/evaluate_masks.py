"""``evaluate`` for tasks whose answers are masks: read back beside their references, and scored."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import task_from_document
from medtool.config.places import known_task
from medtool.core.checkpoint import BEST_NAME, find_checkpoint, read_header
from medtool.core.errors import InputError, UnknownNameError, UsageError
from medtool.core.lazy import Lazily
from medtool.core.progress import Reporter
from medtool.core.records import SELECTION_OPTIMISTIC, Case, Scores, Source
from medtool.data.cohort import build_cohort
from medtool.data.predictions import read_predictions
from medtool.data.run_folder import RunFolder
from medtool.score.completion import completed
from medtool.score.paired import MaskComparison
from medtool.score.paired_scores import compare_scores
from medtool.verbs.evaluate_labels import (
    as_asked,
    in_own_words,
    labels_by_default,
    project_places,
)
from medtool.verbs.evaluate_result import Evaluated, Evaluation
from medtool.verbs.evaluate_subjects import (
    NOT_CHECKED,
    PARTS_BY_HONESTY,
    facts_of,
    is_checkpoint,
    is_run,
    predictions_record,
    require_facts,
    training_gate,
)
from medtool.verbs.infer import InferOptions, infer

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.verbs.evaluate import EvaluateOptions


@dataclass(frozen=True)
class MaskSubject:
    """One model's masks in a folder; ``header`` is the document of the checkpoint, if known.

    ``task`` knows its labels where ``settled``: answers alone keep no settings of data.
    """

    name: str
    task: Task
    folder: Path
    rows: Mapping[str, Mapping[str, Any]]
    silent: Mapping[str, str]
    source: Source
    header: Mapping[str, Any] | None = None
    optimistic: str = ""
    notes: tuple[str, ...] = ()
    settled: bool = True


def evaluates_masks(options: EvaluateOptions) -> bool:
    """Whether what was named answers with masks: its task declares no probability."""
    for path in (*options.checkpoints, *options.subjects):
        try:
            task = _task_of(path, options)
        except UnknownNameError:
            # Stored probabilities can be scored where their task is not installed.
            continue
        if task is not None:
            return "probability" not in task.columns
    return False


def _task_of(path: Path, options: EvaluateOptions) -> Task | None:
    """The task behind a checkpoint, a run or predictions, as it reads labels here; None where
    nothing says.
    """
    if is_run(path) and (path / "preset.toml").is_file():
        run = RunFolder(path)
        preset = tomllib.loads(run.preset_file.read_text(encoding="utf-8"))
        task = _reading(task_from_document(str(run.read_run()["task"]), preset), options)
        best = run.checkpoints_folder / BEST_NAME
        # Of folds together there is no checkpoint: each answered its own part.
        return task.with_document(read_header(best).document) if best.is_file() else task
    if is_checkpoint(path):
        header = read_header(find_checkpoint(path)[0])
        return _reading(known_task(header), options).with_document(header.document)
    record = predictions_record(path)
    kept = (record.get("checkpoint") or {}).get("preset")
    return _reading(task_from_document(str(record["task"]), kept), options) if kept else None


def _reading(task: Task, options: EvaluateOptions) -> Task:
    """The task with the columns that were named; the table of its run is of its run's data."""
    data = as_asked(task.settings.data, options.columns)
    if options.data is not None and options.data.resolve() != data.folder.resolve():
        data = data.model_copy(update={"labels": None})
    return type(task)(task.settings.model_copy(update={"data": data}))


def evaluate_masks(options: EvaluateOptions, reporter: Reporter) -> Evaluation:
    """Score masks beside their references.

    References come from ``data``, for which a run answers anew as a checkpoint does; else from
    where the run found them. Classes come from ``labels``, else from beside the data. Raises
    UsageError, InputError (no case has both), LeakageError (patients seen in training, unless
    told).
    """
    _refuse_what_masks_lack(options)
    with ExitStack() as stack:
        root = options.output
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medtool-")))
        subjects = _subjects(options, root, reporter)
        evaluated = tuple(_evaluated(subject, options, reporter) for subject in subjects)
        comparison = _compared(evaluated, subjects, options) if len(evaluated) == 2 else None
        result = Evaluation(evaluated, comparison, ())
        if options.output is None:
            return result
        rows = [
            {
                **one.page_row(subject.task.settings.metrics, subject.header),
                "cases": [{"case": name} for name in subject.rows],
            }
            for one, subject in zip(evaluated, subjects, strict=True)
        ]
        return result.written(options.output, rows, command=options.command)


def _refuse_what_masks_lack(options: EvaluateOptions) -> None:
    """An option that could change nothing must not look as if it had."""
    asked = {
        "--by": options.by != "case",
        "--threshold": options.threshold is not None,
    }
    named = [option for option, is_given in asked.items() if is_given]
    if named:
        raise UsageError(
            "Masks are evaluated by case, beside masks.",
            met=", ".join(named),
            how=f"leave {' and '.join(named)} out; --data FOLDER names the references.",
        )


def _subjects(options: EvaluateOptions, root: Path, reporter: Reporter) -> list[MaskSubject]:
    """What was named; where ``data`` is, a run or a checkpoint answers for it first."""
    paths = list(options.subjects)
    answering = []
    if options.data is not None:
        answering = [path for path in paths if is_run(path) or is_checkpoint(path)]
        if answering == paths:
            # Where no answers lie that a checkpoint could have made, it is one more model.
            answering = paths = [*paths, *options.checkpoints]
    found = []
    for number, path in enumerate(paths):
        checkpoint = options.checkpoints[number] if number < len(options.checkpoints) else None
        if path in answering:
            folder = root / "predictions" / f"evaluation-{number + 1}"
            found.append(_answered(path, folder, options, reporter))
        else:
            found.append(
                _run(path, options) if is_run(path) else _stored(path, checkpoint, options)
            )
    return found


def _answered(
    checkpoint: Path, folder: Path, options: EvaluateOptions, reporter: Reporter
) -> MaskSubject:
    """The masks of a checkpoint, or of a run's best one, that answers first.

    Raises CheckpointError where several could be meant.
    """
    find_checkpoint(checkpoint)
    infer(
        InferOptions(
            sources=(options.data or Path(),),
            checkpoint=checkpoint,
            output=folder,
            overlays=options.output is not None,
            allow_demo=options.allow_demo,
            force=options.force,
            run=options.run,
            command=options.command,
        ),
        reporter,
    )
    return replace(_stored(folder, checkpoint, options), name=str(checkpoint))


def _stored(path: Path, checkpoint: Path | None, options: EvaluateOptions) -> MaskSubject:
    task = _task_of(checkpoint or path, options)
    if task is None:
        raise UsageError(
            "It is not known which task made these predictions.",
            where=str(path),
            how="name the checkpoint with --checkpoint.",
        )
    header = None
    if checkpoint is not None:
        header = read_header(find_checkpoint(checkpoint)[0]).document
    rows, silent = _rows(path)
    return MaskSubject(
        name=str(path),
        task=task,
        folder=path if path.is_dir() else path.with_suffix(""),
        rows=rows,
        silent=silent,
        source=_source(options, task, checkpoint, path),
        header=header,
        notes=() if header is not None else (NOT_CHECKED,),
        settled=header is not None,
    )


def _source(
    options: EvaluateOptions, task: Task, checkpoint: Path | None, predictions: Path
) -> Source:
    """The references: as they are named, else those of the run that made the checkpoint, else
    those of medtool.toml.

    Raises UsageError where none says.
    """
    if options.data is not None:
        return Source((options.data,), labels=_labels(options, task, options.data))
    if checkpoint is not None:
        file, _ = find_checkpoint(checkpoint)
        run = RunFolder(file.parent.parent)
        if run.exists():
            return _source_of_run(run, options)
    if (folder := project_places(task.name).folder) != Path():
        return Source((folder,), labels=_labels(options, task, folder))
    raise UsageError(
        "It is not known where the references lie.",
        where=str(predictions),
        how="name the data with the references by --data.",
    )


def _labels(options: EvaluateOptions, task: Task, folder: Path) -> Path | None:
    """The table of classes or outcomes of ``folder``, where the task reads one."""
    if options.labels is not None or not task.reads_labels or task.settings.data.labels is not None:
        return options.labels
    return labels_by_default(folder, task.name, task.labels_patterns)


def _source_of_run(run: RunFolder, options: EvaluateOptions) -> Source:
    data = run.read_run()["data"]
    found = Path(data["labels"]) if data.get("labels") else None
    return Source((Path(data["folder"]),), labels=options.labels or found)


def _run(path: Path, options: EvaluateOptions) -> MaskSubject:
    """The most honest part of a run; its split keeps the parts apart."""
    run, task = RunFolder(path), _task_of(path, options)
    parts = [p for p in PARTS_BY_HONESTY if (run.predictions_folder / p).is_dir()]
    if task is None or not parts:
        raise UsageError(
            "This run holds no predictions yet.",
            where=str(path),
            how="let 'medtool train' finish; of folds, name one.",
        )
    folder = run.predictions_folder / parts[0]
    rows, silent = _rows(folder)
    return MaskSubject(
        name=str(path),
        task=task,
        folder=folder,
        rows=rows,
        silent=silent,
        source=_source_of_run(run, options),
        optimistic=SELECTION_OPTIMISTIC if parts[0] == "selection" else "",
    )


def _rows(path: Path) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    table = read_predictions(path)
    rows: dict[str, Mapping[str, Any]] = {
        row["case"]: row for row in table if row["status"] == "ok"
    }
    silent = {row["case"]: row["code"] or row["status"] for row in table if row["status"] != "ok"}
    return rows, silent


def _evaluated(subject: MaskSubject, options: EvaluateOptions, reporter: Reporter) -> Evaluated:
    with in_own_words():
        cohort = build_cohort(subject.task, subject.source, reporter=reporter)
    task = subject.task if subject.settled else subject.task.informed(cohort.cohort.intake)
    cases = cohort.cases
    known = [c for c in cases if c.case_id in subject.rows and task.has_reference(c)]
    patients = [case.patient_id for case in known]
    hidden = bool(predictions_record(subject.folder).get("pseudonymised"))
    gate = training_gate(subject.header, subject.name, patients, options.seen, pseudonymised=hidden)
    known = [case for case in known if case.patient_id not in gate.left_out]
    if not known:
        raise InputError(
            "No case has both an answer and a reference.",
            where=subject.name,
            met=f"{len(subject.rows)} answers; {len(cases)} cases in {subject.source.paths[0]}",
            how="name the data with the references by --data.",
        )
    scores = task.score(
        Lazily(lambda case: task.restored(subject.rows[case.case_id], subject.folder), known),
        Lazily(task.truth, known),
    )
    scores = _with_subgroups(scores, known, task, options)
    unlabelled = len(subject.rows) - len(known)
    notes = (*scores.notes, *subject.notes, *filter(None, [gate.note]))
    return Evaluated(
        name=subject.name,
        scores=replace(scores, notes=notes, optimistic=gate.optimistic or subject.optimistic),
        confounders=(),
        unlabelled=unlabelled,
        silent=subject.silent,
        folders=(subject.folder,),
    )


def _with_subgroups(
    scores: Scores, cases: Sequence[Case], task: Task, options: EvaluateOptions
) -> Scores:
    """With tables by the facts that were asked for, else by those of the preset that are known.

    Raises UsageError for a fact that no case has, and where no masks were compared.
    """
    facts = {case.case_id: facts_of(case) for case in cases}
    require_facts(facts.values(), options.subgroups)
    metrics = options.metrics or task.settings.metrics
    names = options.subgroups or metrics.subgroups
    whole = completed(scores, facts=facts, subgroups=names, metrics=metrics, seed=options.seed)
    if options.subgroups and "subgroups" not in whole.tables:
        raise UsageError(
            "Subgroups are those of masks, and none could be compared.", met="--subgroup"
        )
    return whole


def _compared(
    evaluated: Sequence[Evaluated], subjects: Sequence[MaskSubject], options: EvaluateOptions
) -> MaskComparison:
    """Both models on what both answered. Raises UsageError where that is nothing."""
    metrics = options.metrics or subjects[0].task.settings.metrics
    first, second = (one.scores for one in evaluated)
    found = compare_scores(first, second, metrics=metrics, seed=options.seed)
    if not found:
        raise UsageError(
            "The two models answered no case in common.",
            met=" and ".join(one.name for one in evaluated),
        )
    return MaskComparison(tuple(found), metrics.confidence)
