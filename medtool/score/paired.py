"""Two models' masks of the same cases: by how much one is better, and whether that is chance.

Differences are of the same case, and patients are the unit: the bootstrap draws patients for both
models at once, Wilcoxon's test ranks the mean difference of each patient. Several comparisons are
made together, so p values are adjusted by Holm's method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan

import numpy as np
from scipy import stats

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import bootstrap, two_sided_p
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, PatientSample, patient_sample
from medtool.score.segmentation_columns import Column, ScoredCase, columns_of

COMPARED = ("dice", "nsd", "hd95_mm")


@dataclass(frozen=True)
class PairedDifference:
    """One metric of one structure: means of both models, and the first minus the second.

    ``n`` cases count for both models; a distance that one empty mask leaves undefined counts with
    the diagonal of its image, or failing would be rewarded. ``p_bootstrap`` and ``p_wilcoxon``
    are two-sided and as computed; the ``holm`` ones are adjusted over all comparisons made.
    """

    structure: str
    metric: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    n: int
    patients: int
    p_bootstrap: float
    p_wilcoxon: float
    holm_bootstrap: float = nan
    holm_wilcoxon: float = nan

    def line(self) -> str:
        """The comparison as a sentence."""
        low, high = self.interval
        said = (
            f"{self.metric} of {self.structure}: {self.first:.3f} and {self.second:.3f}, "
            f"difference {self.difference:.3f} ({low:.3f} to {high:.3f}; {self.n} cases of "
            f"{self.patients} patients), p {self.holm_bootstrap:.3g} (paired bootstrap"
        )
        # One number of all patients together has no difference of each to rank.
        if not isfinite(self.holm_wilcoxon):
            return f"{said}), adjusted by Holm's method."
        return f"{said}), {self.holm_wilcoxon:.3g} (Wilcoxon), both adjusted by Holm's method."


@dataclass(frozen=True)
class MaskComparison:
    """Two models' masks on the cases that both answered, in every structure and metric."""

    differences: tuple[PairedDifference, ...]
    confidence: float

    def lines(self) -> list[str]:
        """One sentence a comparison."""
        return [one.line() for one in self.differences]


def compare_segmentations(
    first: Sequence[ScoredCase],
    second: Sequence[ScoredCase],
    *,
    compared: Sequence[str] = COMPARED,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> list[PairedDifference]:
    """Compare two models structure by structure in those metrics of ``compared`` that both have.

    Raises UsageError where the models were not scored on the same cases, or for the same
    structures; in which order these were declared is no matter.
    """
    settings = metrics or MetricDefaults()
    second = _same_cases(first, second)
    sample = patient_sample([case.patient for case in first])
    ours, theirs = _by_name(columns_of(first)), _by_name(columns_of(second))
    _same_structures(ours, theirs)
    pairs = [
        (one, theirs[name])
        for name, one in ours.items()
        if one.metric in compared and name in theirs
    ]
    found = [_difference(one, two, sample, settings, seed) for one, two in pairs]
    return adjusted(found)


def adjusted(found: Sequence[PairedDifference]) -> list[PairedDifference]:
    """The same with p values adjusted for all of ``found``."""
    by_bootstrap = holm([row.p_bootstrap for row in found])
    by_wilcoxon = holm([row.p_wilcoxon for row in found])
    return [
        replace(row, holm_bootstrap=one, holm_wilcoxon=two)
        for row, one, two in zip(found, by_bootstrap, by_wilcoxon, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for having made them all (Holm 1979); NaN is no comparison."""
    adjusted = np.full(len(p_values), nan)
    order = [int(i) for i in np.argsort(p_values) if np.isfinite(p_values[i])]
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return [float(p) for p in adjusted]


def _same_cases(first: Sequence[ScoredCase], second: Sequence[ScoredCase]) -> list[ScoredCase]:
    """The second model's cases in the order of the first's."""
    others = {case.case: case for case in second}
    names = {case.case for case in first}
    if names != set(others) or len(first) != len(second):
        odd = sorted(names ^ set(others))
        raise UsageError(
            "The two models were not scored on the same cases.",
            met=f"{len(first)} and {len(second)} cases"
            + (f"; only one has {', '.join(odd[:3])}" if odd else ""),
            wanted="the same cases, each once",
        )
    return [others[case.case] for case in first]


def _by_name(columns: Sequence[Column]) -> dict[tuple[str, str], Column]:
    return {(column.structure, column.metric): column for column in columns}


def _same_structures(
    ours: Mapping[tuple[str, str], Column], theirs: Mapping[tuple[str, str], Column]
) -> None:
    names = [list(dict.fromkeys(structure for structure, _ in one)) for one in (ours, theirs)]
    if set(names[0]) != set(names[1]):
        raise UsageError(
            "The two models were scored for different structures.",
            met=" and ".join(", ".join(some) or "none" for some in names),
            wanted="the same labels and regions, by the same names",
        )


def _difference(
    one: Column, two: Column, sample: PatientSample, settings: MetricSettings, seed: int
) -> PairedDifference:
    values = [column.penalised for column in (one, two)]
    apart = values[0] - values[1]
    valid = np.isfinite(apart)
    counted = valid.astype(np.float64)
    apart = np.where(valid, apart, 0.0)

    def mean(weights: FloatArray) -> dict[str, FloatArray]:
        return {"difference": divide(weights @ apart, weights @ counted)}

    resampled = bootstrap(sample, mean, draws=settings.bootstrap_draws, seed=seed)
    of_patient = _by_patient(apart, counted, sample)
    first, second = (float(v[valid].mean()) if valid.any() else nan for v in values)
    return PairedDifference(
        structure=one.structure,
        metric=one.metric,
        first=first,
        second=second,
        difference=first - second,
        interval=resampled.percentile("difference", settings.confidence),
        n=int(valid.sum()),
        patients=of_patient.size,
        p_bootstrap=two_sided_p(resampled.replicates["difference"]),
        p_wilcoxon=wilcoxon(of_patient),
    )


def _by_patient(apart: FloatArray, counted: FloatArray, sample: PatientSample) -> FloatArray:
    """Mean difference of each patient with a case that counts."""
    patients = len(sample.patients)
    cases = np.bincount(sample.patient, counted, patients)
    sums = np.bincount(sample.patient, apart, patients)
    return np.asarray(sums[cases > 0] / cases[cases > 0])


def wilcoxon(differences: FloatArray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; differences of 0 say nothing and are left out.

    1 when all are 0, NaN without any. scipy takes the exact distribution where there are few.
    """
    if not differences.size:
        return nan
    apart = differences[differences != 0.0]
    return float(stats.wilcoxon(apart).pvalue) if apart.size else 1.0
