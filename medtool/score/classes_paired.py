"""Two models' classes of the same cases: by how much one names more of them rightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import bootstrap, two_sided_p
from medtool.score.multiclass import class_metrics
from medtool.score.paired import PairedDifference, wilcoxon
from medtool.score.sample import FloatArray, IntArray, patient_sample

Row = Mapping[str, Any]
# The table of scores with a row for each case that has a class, and what is compared of it.
CLASSES, CLASS = "classes", "class"
COMPARED = ("macro_f1", "accuracy")


def compare_classes(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> list[PairedDifference]:
    """Macro F1 and accuracy of both on the cases that both answered; [] where there are none.

    Rows have ``case``, ``patient``, ``label`` and ``answer``, by their names. The bootstrap draws
    the same patients for both; accuracy is ranked by patient as well (Wilcoxon), which macro F1,
    one number of all, cannot be. Raises UsageError where the models were told different classes.
    """
    settings = metrics or MetricDefaults()
    theirs = {str(row["case"]): row for row in second}
    pairs = [(row, theirs[str(row["case"])]) for row in first if str(row["case"]) in theirs]
    if not pairs:
        return []
    odd = [str(one["case"]) for one, other in pairs if one["label"] != other["label"]]
    if odd:
        raise UsageError(
            "The two models were scored with different classes.",
            met=f"{len(odd)} cases, first {odd[0]}",
            wanted="one table of classes for both",
        )
    names = sorted({str(row[key]) for pair in pairs for row in pair for key in ("label", "answer")})
    truth = _numbers([one["label"] for one, _ in pairs], names)
    ours, others = (_numbers([pair[k]["answer"] for pair in pairs], names) for k in (0, 1))
    sample = patient_sample([str(one["patient"]) for one, _ in pairs])
    of_ours, of_others = (class_metrics(truth, said, names) for said in (ours, others))

    def apart(weights: FloatArray) -> dict[str, FloatArray]:
        one, other = of_ours(weights), of_others(weights)
        return {name: one[name] - other[name] for name in COMPARED}

    resampled = bootstrap(sample, apart, draws=settings.bootstrap_draws, seed=seed, jackknife=False)
    everyone = np.ones((1, sample.n))
    right = (ours == truth).astype(np.float64) - (others == truth)
    patients = len(sample.patients)
    cases = np.bincount(sample.patient, minlength=patients)
    by_patient = np.asarray(np.bincount(sample.patient, right, patients) / cases, dtype=np.float64)
    return [
        PairedDifference(
            structure=CLASS,
            metric=name,
            first=float(of_ours(everyone)[name][0]),
            second=float(of_others(everyone)[name][0]),
            difference=float(apart(everyone)[name][0]),
            interval=resampled.percentile(name, settings.confidence),
            n=sample.n,
            patients=patients,
            p_bootstrap=two_sided_p(resampled.replicates[name]),
            p_wilcoxon=wilcoxon(by_patient) if name == "accuracy" else nan,
        )
        for name in COMPARED
    ]


def _numbers(values: Sequence[Any], names: Sequence[str]) -> IntArray:
    return np.array([names.index(str(value)) for value in values], dtype=np.intp)
