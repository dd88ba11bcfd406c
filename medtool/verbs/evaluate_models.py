"""Checkpoints that ``evaluate`` lets answer first; what they say is kept as ``infer`` keeps it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.progress import Reporter
from medtool.verbs.evaluate_subjects import Subject, predictions_subject, with_checkpoint
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
    result = infer(
        InferOptions(
            sources=(options.data or Path(),),
            checkpoint=model,
            output=folder,
            overlays=options.output is not None,
            allow_demo=options.allow_demo,
            force=options.force,
            run=options.run,
            command=options.command,
        ),
        reporter,
    )
    known = {case.case_id: case for case in result.cases}
    subject = replace(predictions_subject(folder, known), name=str(model))
    return with_checkpoint(subject, model)
