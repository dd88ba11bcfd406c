"""Checkpoints that ``evaluate`` lets answer first; what they say is kept as ``infer`` keeps it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.config.places import known_task
from medtool.core.checkpoint import find_checkpoint, read_header
from medtool.core.progress import Reporter
from medtool.core.records import Source
from medtool.data.cohort import keyed_patients
from medtool.data.labels import read_labels
from medtool.data.matching import attach_labels
from medtool.data.patient_hashes import seen_patients
from medtool.data.told_apart import find_cases
from medtool.verbs.evaluate_labels import as_asked, in_own_words, labels_by_default
from medtool.verbs.evaluate_subjects import (
    Subject,
    left_out_note,
    predictions_subject,
    refused_patients,
    with_checkpoint,
)
from medtool.verbs.infer import InferOptions, infer

if TYPE_CHECKING:
    from medtool.verbs.evaluate import EvaluateOptions


def predicted_subjects(options: EvaluateOptions, reporter: Reporter) -> list[Subject]:
    """One subject for every model; predictions stay below the output, if there is one."""
    models = [*options.subjects, *options.checkpoints]
    if options.output is not None:
        root = options.output / "predictions"
        return [
            _predicted(model, root / _name(n), options, reporter) for n, model in enumerate(models)
        ]
    with tempfile.TemporaryDirectory(prefix="medtool-") as scratch:
        return [
            _predicted(model, Path(scratch) / _name(n), options, reporter)
            for n, model in enumerate(models)
        ]


def _name(number: int) -> str:
    return "evaluation" if number == 0 else f"evaluation-{number + 1}"


def _predicted(model: Path, folder: Path, options: EvaluateOptions, reporter: Reporter) -> Subject:
    seen = _seen(model, options)
    result = infer(
        InferOptions(
            sources=(options.data or Path(),),
            checkpoint=model,
            output=folder,
            overlays=options.output is not None,
            allow_demo=options.allow_demo,
            force=options.force,
            without_patients=seen,
            run=options.run,
            command=options.command,
        ),
        reporter,
    )
    known = {case.case_id: case for case in result.cases}
    subject = replace(predictions_subject(folder, known), name=str(model))
    named = with_checkpoint(subject, model)
    left_out = (left_out_note(len(seen)),) if seen else ()
    return replace(named, notes=(*named.notes, *left_out))


def _seen(model: Path, options: EvaluateOptions) -> frozenset[str]:
    """Labelled patients of the data that the model was trained on: known before it answers.

    Raises LeakageError at once where they are refused: an hour of answers would be lost else.
    """
    file, _ = find_checkpoint(model)
    header = read_header(file)
    document = header.document
    if options.seen == "report" or not (document.get("patients") or {}).get("hashes"):
        return frozenset()
    task = known_task(header)
    folder = options.data or Path()
    # As training told patients apart, or hashes of other ids are compared.
    cases = keyed_patients(find_cases(task, Source(paths=(folder,))).cases, task.settings.data)
    labels = options.labels or labels_by_default(folder, task.name)
    if labels is not None:
        data = as_asked(task.settings.data, options.columns)
        with in_own_words():
            cases = attach_labels(cases, read_labels(labels, data)).with_label
    patients = {case.patient_id for case in cases}
    seen = seen_patients(document["patients"], patients)
    if seen and options.seen == "refuse":
        raise refused_patients(str(model), seen, len(patients))
    return frozenset(seen)
