"""Points of curves, with bands from the bootstrap by patient; plain lists, ready for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtool.score.intervals import draw_patients, percentile_interval, row_weights
from medtool.score.ranking import divide, levels_weighted, operating_points
from medtool.score.sample import BinarySample, FloatArray

# Where bands are computed: every percent of the horizontal axis.
GRID = np.linspace(0.0, 1.0, 101)
# More thresholds than a plot can show are thinned to this.
MOST_POINTS = 400
# Draws for bands: a curve needs no third digit.
MOST_BAND_DRAWS = 1000


def roc_curve(sample: BinarySample, draws: int, confidence: float, seed: int) -> dict[str, Any]:
    """fpr, tpr, thresholds; grid (fpr), low, high of the band; empty with one class."""
    if not sample.both_classes:
        return {}
    points = operating_points(sample)
    kept = _thin(points.thresholds.size)
    low, high = _band(sample, draws, confidence, seed, precision=False)
    return {
        "fpr": (1.0 - points.specificity)[kept][::-1].tolist(),
        "tpr": points.sensitivity[kept][::-1].tolist(),
        "thresholds": points.thresholds[kept][::-1].tolist(),
        "grid": GRID.tolist(),
        "low": low,
        "high": high,
    }


def precision_recall_curve(
    sample: BinarySample, draws: int, confidence: float, seed: int
) -> dict[str, Any]:
    """recall, precision of the steps; grid (recall), low, high of the band; prevalence."""
    if not sample.both_classes:
        return {}
    points = operating_points(sample)
    kept = _thin(points.thresholds.size - 1)
    low, high = _band(sample, draws, confidence, seed, precision=True)
    return {
        "recall": points.sensitivity[kept][::-1].tolist(),
        "precision": points.precision[kept][::-1].tolist(),
        "thresholds": points.thresholds[kept][::-1].tolist(),
        "grid": GRID.tolist(),
        "low": low,
        "high": high,
        "prevalence": sample.positives / sample.n,
    }


def threshold_table(sample: BinarySample) -> dict[str, Any]:
    """Sensitivity, specificity, PPV and F1 at every observed score (thinned), ascending."""
    if not sample.both_classes:
        return {}
    points = operating_points(sample)
    kept = _thin(points.thresholds.size - 1)
    return {
        "threshold": points.thresholds[kept].tolist(),
        "sensitivity": points.sensitivity[kept].tolist(),
        "specificity": points.specificity[kept].tolist(),
        "ppv": points.precision[kept].tolist(),
        "f1": points.f1[kept].tolist(),
    }


def _thin(count: int) -> FloatArray:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(np.intp))


def _band(
    sample: BinarySample, draws: int, confidence: float, seed: int, *, precision: bool
) -> tuple[list[float], list[float]]:
    counts, _ = draw_patients(sample, min(draws, MOST_BAND_DRAWS), seed)
    values: list[FloatArray] = []
    for weights in row_weights(sample, counts):
        levels = levels_weighted(sample, weights)
        true, false = levels.true_positive, levels.false_positive
        recall = divide(true, true[:, :1])
        if precision:
            heights = np.nan_to_num(divide(true, true + false), nan=1.0)
            values.extend(map(_precision_at_recall, recall, heights))
        else:
            fall_out = divide(false, false[:, :1])
            values.extend(
                np.interp(GRID, np.append(x[::-1], 1.0), np.append(y[::-1], 1.0))
                for x, y in zip(fall_out, recall, strict=True)
            )
    columns = np.stack(values).T
    bounds = [percentile_interval(column, confidence) for column in columns]
    return [low for low, _ in bounds], [high for _, high in bounds]


def _precision_at_recall(recall: FloatArray, heights: FloatArray) -> FloatArray:
    """(grid,) precision at the highest threshold that reaches each recall."""
    reached = np.searchsorted(recall[::-1], GRID - 1e-12)
    return heights[::-1][np.minimum(reached, recall.size - 1)]
