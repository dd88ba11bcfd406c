"""Masks and classes beside their references: what is said of each, and of both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medtool.core.records import Prediction, Scores, Truth
from medtool.score.classes_paired import CLASSES
from medtool.score.dice_and_f1 import NAME, dice_and_f1
from medtool.score.multiclass import multiclass_scores
from medtool.score.segmentation import SegmentationOptions
from medtool.score.segmentation_columns import ScoredCase
from medtool.tasks.classifying_classes import (
    lesion_name,
    probability_column,
    scored_structures,
)
from medtool.tasks.classifying_predict import CLASS
from medtool.tasks.segmentation_labels import structures
from medtool.tasks.segmentation_scores import options_of, scored_case, summarised

if TYPE_CHECKING:
    from medtool.tasks.classifying_settings import ClassifyingSettings

Answer = Mapping[str, Any]


def classified_options(settings: ClassifyingSettings) -> SegmentationOptions:
    """What is computed; lesions are counted in the label that is classified, unless some are named.

    Raises LabelsError where no label has the name of that label.
    """
    options = options_of(settings)
    counted = options.lesions or (lesion_name(settings.data),)
    return replace(options, lesions=counted)


def score_classified(
    settings: ClassifyingSettings, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> Scores:
    """Every metric of every structure and of the classes; one case in memory at a time.

    Cases without a class count in the masks only. Raises CaseRefused where a mask and its
    reference are on different grids.
    """
    known, options = scored_structures(settings), classified_options(settings)
    apart = known.keys() - structures(settings.data).keys()
    cases: list[ScoredCase] = []
    answers: list[Answer] = []
    labels: list[int | None] = []
    for prediction, reference in zip(predictions, truths, strict=True):
        cases.append(scored_case(settings, known, prediction, reference, options))
        answers.append(prediction.scalars)
        labels.append(None if reference.label is None else int(reference.label))
    masks = summarised(settings, cases, apart=apart, options=options)
    names = settings.data.classes
    truth = {n: label for n, label in enumerate(labels) if label is not None}
    if not names or not truth:
        return masks
    said = [names.index(answer[CLASS]) for answer in answers]
    classes = multiclass_scores(
        list(truth.values()),
        [said[n] for n in truth],
        names,
        [cases[n].patient for n in truth],
        cases=[cases[n].case for n in truth],
        metrics=settings.metrics,
    )
    both = dice_and_f1(
        cases, masks, labels, said, classes, names, apart=apart, metrics=settings.metrics
    )
    first = {NAME: both, "dice": masks.metrics["dice"], "macro_f1": classes.metrics["macro_f1"]}
    rows = zip(masks.per_case, labels, answers, strict=True)
    return Scores(
        metrics={
            **first,
            "accuracy": classes.metrics["accuracy"],
            **masks.metrics,
            **classes.metrics,
        },
        per_case=tuple(_row(row, names, label, answer) for row, label, answer in rows),
        tables={**classes.tables, **masks.tables, CLASSES: list(classes.per_case)},
        notes=(*masks.notes, *classes.notes),
    )


def _row(
    row: Mapping[str, Any], names: Sequence[str], label: int | None, answer: Answer
) -> dict[str, Any]:
    """The row of a case, with its class in words; a wrong class counts as a mask that failed."""
    chance = float(answer[probability_column(answer[CLASS])])
    if label is None:
        said = f"called {answer[CLASS]} with a probability of {chance:.2f}"
        return {**row, "said": [*row["said"], said]}
    said = f"{names[label]}, called {answer[CLASS]} with a probability of {chance:.2f}"
    missed = 1.0 - float(answer[probability_column(names[label])])
    return {**row, "error": (row["error"] + missed) / 2.0, "said": [*row["said"], said]}
