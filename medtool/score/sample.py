"""Labels, probabilities and patients of one set of predictions, checked once and sorted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtool.core.errors import LabelsError, UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class PatientSample:
    """n cases and whose they are.

    ``patient`` (n,) index into ``patients`` (unique ids in order of first appearance).
    """

    patient: IntArray
    patients: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of cases."""
        return int(self.patient.size)

    @property
    def one_case_per_patient(self) -> bool:
        """Whether cases are independent, as DeLong's and Wilson's formulas assume."""
        return len(self.patients) == self.n


def patient_sample(patients: Sequence[str]) -> PatientSample:
    """The patient of each case, numbered."""
    index: dict[str, int] = {}
    numbers = [index.setdefault(str(patient), len(index)) for patient in patients]
    return PatientSample(np.asarray(numbers, dtype=np.intp), tuple(index))


@dataclass(frozen=True)
class BinarySample(PatientSample):
    """n cases of a two-class question.

    ``labels`` (n,) 0 or 1; ``scores`` (n,) probability of class 1.
    """

    labels: FloatArray
    scores: FloatArray

    @property
    def positives(self) -> int:
        """Number of cases of class 1."""
        return int(self.labels.sum())

    @property
    def negatives(self) -> int:
        """Number of cases of class 0."""
        return self.n - self.positives

    @property
    def both_classes(self) -> bool:
        """Whether ranking metrics are defined."""
        return 0 < self.positives < self.n

    def take(self, rows: NDArray[np.bool_]) -> BinarySample:
        """The cases where ``rows`` (n,) is true."""
        kept = [self.patients[i] for i in self.patient[rows]]
        return binary_sample(self.labels[rows], self.scores[rows], kept)


def binary_sample(
    labels: ArrayLike, scores: ArrayLike, patients: Sequence[str] | None = None
) -> BinarySample:
    """A checked sample; without ``patients`` each case is a patient of its own.

    Raises UsageError (lengths differ, a score that is no finite number), LabelsError (a label
    other than 0 and 1).
    """
    truth = np.asarray(labels, dtype=np.float64).reshape(-1)
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    ids = [str(i) for i in range(truth.size)] if patients is None else [str(p) for p in patients]
    if not truth.size == values.size == len(ids):
        raise UsageError(
            "Labels, predictions and patients differ in number.",
            met=f"{truth.size} labels, {values.size} predictions, {len(ids)} patients",
            wanted="one of each per case",
        )
    if not np.isin(truth, (0.0, 1.0)).all():
        strange = truth[~np.isin(truth, (0.0, 1.0))][0]
        raise LabelsError(
            "A label is outside the two classes.", met=f"{strange:g}", wanted="0 or 1 in each case"
        )
    if not np.isfinite(values).all():
        raise UsageError(
            "A prediction is no finite number.",
            met=f"{int((~np.isfinite(values)).sum())} of {values.size} predictions",
            wanted="a probability for every case that is scored",
            how="leave out the cases whose status is not 'ok'.",
        )
    whose = patient_sample(ids)
    return BinarySample(whose.patient, whose.patients, truth, values)


def check_probabilities(scores: ArrayLike) -> FloatArray:
    """Scores as numbers; raises UsageError where one is no probability, which means nothing."""
    values = np.asarray(scores, dtype=np.float64)
    if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise UsageError(
            "A prediction is no probability.",
            met=f"values from {values.min():g} to {values.max():g}",
            wanted="values between 0 and 1",
        )
    return values
