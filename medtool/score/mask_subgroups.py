"""Masks within groups of cases: scanners, kernels, thicknesses, columns of the table of cases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import bootstrap
from medtool.score.paired import COMPARED
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, patient_sample
from medtool.score.segmentation_columns import Column, ScoredCase, columns_of
from medtool.score.subgroups import GROUP_DRAWS, members


def mask_subgroup_table(
    cases: Sequence[ScoredCase],
    groups: Mapping[str, Sequence[Any]],
    *,
    metrics: MetricSettings | None = None,
    apart: Collection[str] = (),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each structure of each group of each fact: n, patients, and means of metrics.

    ``groups`` has a value for each case. Each mean is over the cases where the metric is defined,
    and has its interval (bootstrap by patient). Structures in ``apart`` have no rows.
    """
    settings = metrics or MetricDefaults()
    rows = []
    for fact, values in groups.items():
        for name, inside in members(values):
            own = [case for case, kept in zip(cases, inside, strict=True) if kept]
            found = _rows(own, settings, apart, seed)
            rows += [{"by": fact, "group": name, **row} for row in found]
    return rows


def _rows(
    cases: Sequence[ScoredCase], settings: MetricSettings, apart: Collection[str], seed: int
) -> list[dict[str, Any]]:
    """A row a structure of the cases of one group."""
    by_structure: dict[str, list[Column]] = {}
    for column in columns_of(cases):
        if column.metric in COMPARED and column.structure not in apart:
            by_structure.setdefault(column.structure, []).append(column)
    sample = patient_sample([case.patient for case in cases])
    rows = []
    for structure, columns in by_structure.items():
        values = {column.metric: column.values for column in columns}

        def means(
            weights: FloatArray, values: Mapping[str, FloatArray] = values
        ) -> dict[str, FloatArray]:
            return {name: _means(one, weights) for name, one in values.items()}

        point = means(np.ones((1, sample.n)))
        drawn = bootstrap(sample, means, draws=GROUP_DRAWS, seed=seed, jackknife=False)
        row = {"structure": structure, "n": sample.n, "patients": len(sample.patients)}
        for name, value in point.items():
            low, high = drawn.percentile(name, settings.confidence)
            row |= {name: float(value[0]), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows


def _means(values: FloatArray, weights: FloatArray) -> FloatArray:
    """(draws,) mean of the defined values, each as often as its weight says."""
    valid = np.isfinite(values)
    return divide(weights @ np.where(valid, values, 0.0), weights @ valid.astype(np.float64))
