"""Many cases: what is said of a set of masks, structure by structure, with intervals by patient.

A mean hides what it leaves out, so the number of cases that count stands with each, the number
that fail (exactly one of the two masks is empty) with each distance, and beside it a mean in which
those count with the diagonal of their image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from medtool.core.records import Scores
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.confusion import trivial_decisions
from medtool.score.intervals import Metrics, bootstrap
from medtool.score.numbers import bootstrap_score, bootstrap_table
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, patient_sample
from medtool.score.segmentation import Row, SegmentationOptions
from medtool.score.segmentation_columns import Column, ScoredCase, columns_of, convention

POOLED = "of the voxels of all cases together, by volume (DSCagg)"
POOLED_VOXELS = "of the voxels of all cases together; their volume is not known"
PENALISED = "mean; a case with one empty mask counts with the diagonal of its image"
PRESENT = "mean over the cases whose reference has the structure"
ABSENT = "mean over the cases whose reference has none"
LESIONS_POOLED = "of the lesions of all cases together"
OVER_STRUCTURES = "mean over structures of what each has"
# Metrics whose mean over structures is told.
OVERALL = ("dice", "iou", "nsd", "hd95_mm", "assd_mm")
# What decisions on cases call the same metric of decisions on voxels.
DECISIONS = {
    "dice": "f1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "ppv",
}
EVERY_VOXEL, RANDOM_VOXELS = "every voxel marked", "random voxels, as many"


@dataclass(frozen=True)
class _Share:
    """A number that is a ratio of two sums over cases, as means are; both (cases,)."""

    name: str
    above: FloatArray
    below: FloatArray
    convention: str
    trivial: float = nan
    trivial_by: str = ""

    @property
    def n(self) -> int:
        """Cases that count."""
        return int(np.count_nonzero(self.below))


def summarise_structures(
    cases: Sequence[ScoredCase],
    options: SegmentationOptions | None = None,
    *,
    metrics: MetricSettings | None = None,
    apart: Collection[str] = (),
    overall: Sequence[str] = OVERALL,
    optimistic: str = "",
    seed: int = 0,
) -> Scores:
    """Means with intervals by patient, and the tables behind them.

    Structures named in ``apart`` (a union of the others) are in no mean over structures;
    ``overall`` are the numbers of which such means are told.

    Scores are named "dice.lesion" (mean over cases), "dice" (mean of that over structures),
    "dice_pooled.lesion", "dice_where_present.lesion", "lesion_f1_pooled.lesion",
    "false_positive_where_absent_ml.lesion". The table
    "structures" has a row a metric and structure: n_valid, n_missing, mean, median, penalised
    mean, each with its interval. Raises UsageError where cases have different structures.
    """
    settings, chosen = metrics or MetricDefaults(), options or SegmentationOptions()
    if not cases:
        return Scores({}, (), {}, optimistic, ("No case to score.",))
    columns = columns_of(cases)
    shares = [share for column in columns for share in _shares(column, chosen)]
    sample = patient_sample([case.patient for case in cases])
    together = [name for name in dict.fromkeys(c.structure for c in columns) if name not in apart]
    overalls = _over_structures(shares, overall, together)
    compute = _all_numbers(shares, overalls, columns)
    point = {name: float(v[0]) for name, v in compute(np.ones((1, sample.n))).items()}
    resampled = bootstrap(sample, compute, draws=settings.bootstrap_draws, seed=seed)
    intervals = {name: resampled.percentile(name, settings.confidence) for name in point}
    return Scores(
        metrics={
            share.name: bootstrap_score(
                share.name,
                point[share.name],
                resampled,
                settings.confidence,
                n=share.n,
                convention=share.convention,
                trivial=share.trivial,
                trivial_by=share.trivial_by,
            )
            for share in (*(share for share, _ in overalls), *shares)
        },
        per_case=tuple(
            {"case": case.case, "patient": case.patient, **row}
            for case in cases
            for row in case.rows
        ),
        tables={
            "structures": [_table_row(column, point, intervals, chosen) for column in columns],
            "bootstrap": bootstrap_table(resampled, settings.confidence),
        },
        optimistic=optimistic,
        notes=_notes(cases, columns, resampled.patients, settings),
    )


def _mean(name: str, values: FloatArray, text: str, trivial: tuple[float, str]) -> _Share:
    valid = np.isfinite(values)
    return _Share(name, np.where(valid, values, 0.0), valid.astype(np.float64), text, *trivial)


def _shares(column: Column, options: SegmentationOptions) -> list[_Share]:
    """The mean of a column, and the other numbers that are made of it."""
    metric, values, rows = column.metric, column.values, column.rows
    text, trivial = convention(metric, rows, options), _trivial(column)
    found = [_mean(column.name, values, text, trivial)]
    if column.missing.any():
        found.append(_mean(_penalised(column), column.penalised, PENALISED, (nan, "")))
    if metric == "dice":
        present = np.array([row["tp"] + row["fn"] > 0 for row in rows])
        if not present.all() and not options.where_present:
            name = f"dice_where_present.{column.structure}"
            found.append(_mean(name, np.where(present, values, nan), PRESENT, trivial))
        found.append(_pooled_dice(column))
    absent = np.array([row["tp"] + row["fn"] == 0 for row in rows])
    if metric == "false_positive_ml" and absent.any():
        name = f"false_positive_where_absent_ml.{column.structure}"
        found.append(_mean(name, np.where(absent, values, nan), ABSENT, trivial))
    if metric == "lesion_f1":
        hits = np.array([2.0 * row["lesion_tp"] for row in rows])
        misses = np.array([float(row["lesion_fp"] + row["lesion_fn"]) for row in rows])
        name = f"lesion_f1_pooled.{column.structure}"
        text = f"{LESIONS_POOLED}; {options.lesion_rule}"
        found.append(_Share(name, hits, hits + misses, text))
    return found


def _pooled_dice(column: Column) -> _Share:
    """By volume, of the cases whose volume is known; by voxels where none is."""
    rows, text = column.rows, POOLED
    sizes = np.array([_size(row, "prediction") + _size(row, "reference") for row in rows])
    if not np.isfinite(sizes).any():
        sizes = np.array([2.0 * row["tp"] + row["fp"] + row["fn"] for row in rows])
        text = POOLED_VOXELS
    sizes = np.nan_to_num(sizes)
    name = f"dice_pooled.{column.structure}"
    return _Share(name, np.nan_to_num(column.values) * sizes, sizes, text)


def _penalised(column: Column) -> str:
    return f"{column.metric}_penalised.{column.structure}"


def _median(column: Column) -> str:
    return f"{column.metric}_median.{column.structure}"


def _size(row: Row, mask: str) -> float:
    """Volume in mL, or in 2D area in mm^2."""
    return float(row[f"{mask}_ml"] if f"{mask}_ml" in row else row[f"{mask}_mm2"])


def _trivial(column: Column) -> tuple[float, str]:
    """Mean over the cases that count of what one would score who knows nothing of the image."""
    decision = DECISIONS.get(column.metric)
    counted = [row for row, v in zip(column.rows, column.values, strict=True) if isfinite(v)]
    if decision is None or not counted:
        return nan, ""
    found = []
    for row in counted:
        voxels = row["tp"] + row["fp"] + row["fn"] + row["tn"]
        prevalence, called = (row["tp"] + row["fn"]) / voxels, (row["tp"] + row["fp"]) / voxels
        found.append(trivial_decisions(prevalence, called)[decision][0])
    return float(np.mean(found)), EVERY_VOXEL if decision == "f1" else RANDOM_VOXELS


def _all_numbers(
    shares: Sequence[_Share],
    overalls: Sequence[tuple[_Share, Sequence[str]]],
    columns: Sequence[Column],
) -> Metrics:
    """A function from (draws, cases) weights to (draws,) values of every number."""
    above = np.stack([share.above for share in shares], axis=1)
    below = np.stack([share.below for share in shares], axis=1)

    def compute(weights: FloatArray) -> dict[str, FloatArray]:
        ratios = divide(weights @ above, weights @ below)
        values = {share.name: ratios[:, place] for place, share in enumerate(shares)}
        for share, names in overalls:
            means = np.stack([values[name] for name in names])
            valid = np.isfinite(means)
            values[share.name] = divide(np.where(valid, means, 0.0).sum(axis=0), valid.sum(axis=0))
        for column in columns:
            values[_median(column)] = _medians(column.values, weights)
        return values

    return compute


def _medians(values: FloatArray, weights: FloatArray) -> FloatArray:
    """(draws,) median of the defined values, each as often as its whole weight says."""
    order = np.argsort(values)[: np.count_nonzero(np.isfinite(values))]
    if not order.size:
        return np.full(len(weights), nan)
    upto = np.cumsum(weights[:, order], axis=1)
    total = upto[:, -1:]
    # The middle value, or the two in the middle, counted from 0.
    low = (upto > np.floor((total - 1.0) / 2.0)).argmax(axis=1)
    high = (upto > np.floor(total / 2.0)).argmax(axis=1)
    middle: FloatArray = (values[order][low] + values[order][high]) / 2.0
    return np.where(total[:, 0] > 0, middle, nan)


def _over_structures(
    shares: Sequence[_Share], overall: Sequence[str], structures: Sequence[str]
) -> list[tuple[_Share, list[str]]]:
    """Each mean over ``structures`` and the names of what it is the mean of.

    A case counts in a mean where it counts for any structure.
    """
    by_name = {share.name: share for share in shares}
    told = []
    for metric in overall:
        names = [f"{metric}.{structure}" for structure in structures]
        parts = [by_name[name] for name in names if name in by_name]
        if parts:
            counted = np.max([share.below for share in parts], axis=0)
            known = [share.trivial for share in parts if isfinite(share.trivial)]
            trivial = float(np.mean(known)) if known else nan
            by = parts[0].trivial_by if known else ""
            share = _Share(metric, counted, counted, _overall_text(parts), trivial, by)
            told.append((share, [part.name for part in parts]))
    return told


def _overall_text(parts: Sequence[_Share]) -> str:
    """Of one structure its own convention says more."""
    return parts[0].convention if len(parts) == 1 else OVER_STRUCTURES


def _table_row(
    column: Column,
    point: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    options: SegmentationOptions,
) -> dict[str, Any]:
    missing = bool(column.missing.any())
    penalised = _penalised(column) if missing else column.name
    return {
        "structure": column.structure,
        "metric": column.metric,
        "n_valid": int(np.isfinite(column.values).sum()),
        "n_missing": int(column.missing.sum()),
        "mean": point[column.name],
        "mean_interval": intervals[column.name],
        "median": point[_median(column)],
        "median_interval": intervals[_median(column)],
        "penalised": point[penalised],
        "penalised_interval": intervals[penalised],
        "convention": convention(column.metric, column.rows, options),
    }


def _notes(
    cases: Sequence[ScoredCase],
    columns: Sequence[Column],
    patients: int,
    settings: MetricSettings,
) -> tuple[str, ...]:
    notes = [
        f"{len(cases)} cases of {patients} patients; intervals from "
        f"{settings.bootstrap_draws} bootstrap draws of patients."
    ]
    lengthless = sum(not isfinite(case.rows[0]["image_diagonal_mm"]) for case in cases if case.rows)
    if lengthless:
        notes.append(
            f"Of {lengthless} cases it is not known how large a voxel is: they count in no "
            "distance and no volume."
        )
    for column in columns:
        if column.metric == "hd95_mm" and column.missing.any():
            notes.append(
                f"{column.structure}: {int(column.missing.sum())} cases have one empty mask, so "
                "no distance; their means leave them out, the penalised ones do not."
            )
    return tuple(notes)
