"""Several classes: F1 averaged over them, accuracy, recall of each, and the matrix behind it.

Answers are class numbers, so nothing here depends on a threshold. A class that is neither in the
labels nor in the answers has no F1 and is left out of the mean, where scikit-learn would put 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medtool.core.errors import LabelsError, UsageError
from medtool.core.records import Scores
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import Bootstrap, Metrics, bootstrap
from medtool.score.numbers import bootstrap_score, bootstrap_table
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, IntArray, patient_sample

ABSENT = "classes that are neither in the labels nor in the answers are left out"
CONVENTIONS = {
    "macro_f1": f"mean of the classes' F1; {ABSENT}",
    "accuracy": "share of the cases that are right",
    "balanced_accuracy": "mean of the classes' recalls; classes without a case are left out",
    "recall": "share of the cases of the class that are right",
    "f1": "undefined where the class is neither in the labels nor in the answers",
}


def multiclass_scores(
    labels: ArrayLike,
    answers: ArrayLike,
    classes: Sequence[str],
    patients: Sequence[str] | None = None,
    *,
    cases: Sequence[str] | None = None,
    metrics: MetricSettings | None = None,
    optimistic: str = "",
    seed: int = 0,
) -> Scores:
    """Scores of one answer a case, with intervals by patient.

    ``labels`` and ``answers`` (n,) are numbers of ``classes``; without ``patients`` each case is
    a patient. Scores are "macro_f1", "accuracy", "balanced_accuracy", and "recall.NAME",
    "f1.NAME" of each class; the table "confusion" has a row a true class. What is trivial is
    always answering the commonest class. Raises UsageError and LabelsError on what is no class.
    """
    settings = metrics or MetricDefaults()
    truth, said = _classes(labels, answers, classes)
    ids = [str(i) for i in range(truth.size)] if patients is None else list(patients)
    if len(ids) != truth.size:
        raise UsageError(
            "Labels and patients differ in number.",
            met=f"{truth.size} labels, {len(ids)} patients",
            wanted="one of each per case",
        )
    if not truth.size:
        return Scores({}, (), {}, optimistic, ("No case to score.",))
    sample = patient_sample(ids)
    compute = class_metrics(truth, said, classes)
    everyone = np.ones((1, sample.n))
    point = {name: float(v[0]) for name, v in compute(everyone).items()}
    commonest = int(np.bincount(truth, minlength=len(classes)).argmax())
    majority = class_metrics(truth, np.full_like(truth, commonest), classes)(everyone)
    resampled = bootstrap(sample, compute, draws=settings.bootstrap_draws, seed=seed)
    scores = {
        name: bootstrap_score(
            name,
            value,
            resampled,
            settings.confidence,
            n=_counted(name, truth, said, classes),
            convention=CONVENTIONS[name.split(".")[0]],
            trivial=float(majority[name][0]),
            trivial_by=f"always {classes[commonest]}",
        )
        for name, value in point.items()
    }
    return Scores(
        metrics=scores,
        per_case=tuple(
            {
                "case": case,
                "patient": patient,
                "label": classes[true],
                "answer": classes[answer],
                "right": bool(true == answer),
            }
            for case, patient, true, answer in zip(cases or ids, ids, truth, said, strict=True)
        ),
        tables={
            "confusion": _confusion_rows(truth, said, classes),
            "bootstrap": bootstrap_table(resampled, settings.confidence),
        },
        optimistic=optimistic,
        notes=_notes(truth, classes, resampled),
    )


def class_numbers(
    labels: ArrayLike, answers: ArrayLike, classes: Sequence[str]
) -> dict[str, float]:
    """The same metrics without intervals, by name. Raises as ``multiclass_scores``."""
    truth, said = _classes(labels, answers, classes)
    values = class_metrics(truth, said, classes)(np.ones((1, truth.size)))
    return {name: float(value[0]) for name, value in values.items()}


def _classes(
    labels: ArrayLike, answers: ArrayLike, classes: Sequence[str]
) -> tuple[IntArray, IntArray]:
    truth, said = np.asarray(labels).reshape(-1), np.asarray(answers).reshape(-1)
    if truth.size != said.size:
        raise UsageError(
            "Labels and answers differ in number.",
            met=f"{truth.size} labels, {said.size} answers",
            wanted="one of each per case",
        )
    for values in (truth, said):
        strange = values[~np.isin(values, np.arange(len(classes)))]
        if strange.size:
            raise LabelsError(
                "A label or answer is no class.",
                met=f"{strange[0]}",
                wanted=f"a whole number from 0 to {len(classes) - 1} ({', '.join(classes)})",
            )
    return truth.astype(np.intp), said.astype(np.intp)


def class_metrics(truth: IntArray, said: IntArray, classes: Sequence[str]) -> Metrics:
    """A function from (draws, cases) weights to (draws,) values of every metric.

    ``truth`` and ``said`` (cases,) are numbers of ``classes``.
    """
    count = len(classes)
    cells = np.zeros((truth.size, count * count))
    cells[np.arange(truth.size), truth * count + said] = 1.0

    def compute(weights: FloatArray) -> dict[str, FloatArray]:
        matrix = (weights @ cells).reshape(-1, count, count)
        right = np.diagonal(matrix, axis1=1, axis2=2)
        true, called = matrix.sum(axis=2), matrix.sum(axis=1)
        f1, recall = divide(2.0 * right, true + called), divide(right, true)
        values = {
            "macro_f1": _mean_of_defined(f1),
            "accuracy": divide(right.sum(axis=1), matrix.sum(axis=(1, 2))),
            "balanced_accuracy": _mean_of_defined(recall),
        }
        for number, name in enumerate(classes):
            values[f"recall.{name}"] = recall[:, number]
            values[f"f1.{name}"] = f1[:, number]
        return values

    return compute


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """(draws,) mean over classes, without those that are NaN."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _counted(name: str, truth: IntArray, said: IntArray, classes: Sequence[str]) -> int:
    """Cases that a metric looks at."""
    metric, _, label = name.partition(".")
    if not label:
        return int(truth.size)
    number = classes.index(label)
    of_class = truth == number
    return int((of_class | (said == number) if metric == "f1" else of_class).sum())


def _confusion_rows(
    truth: IntArray, said: IntArray, classes: Sequence[str]
) -> list[dict[str, Any]]:
    counts = np.zeros((len(classes), len(classes)), dtype=np.intp)
    np.add.at(counts, (truth, said), 1)
    return [
        {"label": name, **dict(zip(classes, map(int, row), strict=True))}
        for name, row in zip(classes, counts, strict=True)
    ]


def _notes(truth: IntArray, classes: Sequence[str], resampled: Bootstrap) -> tuple[str, ...]:
    counts = np.bincount(truth, minlength=len(classes))
    parts = ", ".join(f"{n} {name}" for name, n in zip(classes, counts, strict=True))
    notes = [
        f"{truth.size} cases of {resampled.patients} patients ({parts}); intervals from "
        f"{resampled.draws} bootstrap draws of patients."
    ]
    absent = [name for name, n in zip(classes, counts, strict=True) if not n]
    if absent:
        notes.append(f"No case has the label {', '.join(absent)}.")
    return tuple(notes)
