"""Uncertainty of a cohort whose errors are known to grow with it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults
from medtool.score.uncertainty_quality import voxel_quality
from medtool.score.uncertainty_summary import UncertainCase, uncertainty_scores

METRICS = MetricDefaults(bootstrap_draws=200)


def cohort(count: int, seed: int) -> list[UncertainCase]:
    """Masks of 20 x 20 drawn from their own probabilities, blurred more from case to case."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:20, :20] - 9.5
    inside_mm = 6 - np.hypot(rows, columns)
    cases = []
    for number in range(count):
        blur = 0.3 + 2.5 * number / count
        probability = 1 / (1 + np.exp(-inside_mm / blur))
        truth = generator.random((20, 20)) < probability
        prediction = probability >= 0.5
        doubt = 4 * probability * (1 - probability)
        dice = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
        quality = voxel_quality(probability, doubt, prediction, truth, (1.0, 1.0))
        mean = float(doubt[prediction].mean())
        cases.append(UncertainCase(f"c{number}", f"P{number // 2}", mean, dice, quality))
    return cases


def test_numbers_stand_behind_intervals_by_patient() -> None:
    cases = cohort(40, seed=0)
    scores = uncertainty_scores(cases, metrics=METRICS)
    for name, score in scores.metrics.items():
        assert score.low < score.value < score.high, name
        assert (score.n, score.interval) == (40, "bootstrap by patient")
    wanted = stats.spearmanr([c.uncertainty for c in cases], [1 - c.dice for c in cases])[0]
    assert scores.metrics["uncertainty_spearman"].value == pytest.approx(wanted)
    assert wanted > 0.8
    # Drawn from their probabilities: calibrated but for chance.
    assert scores.metrics["voxel_ece"].value < 0.02
    assert scores.metrics["voxel_auroc"].value > 0.7
    assert "5 mm" in scores.metrics["voxel_ece"].convention
    assert scores.tables["bootstrap"]["patients"] == 20
    rows = scores.tables["reliability"]
    assert sum(row["n"] for row in rows) == sum(case.voxels.voxels for case in cases)
    assert all(row["low"] <= row["mean_probability"] <= row["high"] for row in rows)
    curve = scores.tables["risk_coverage"]
    assert curve["best"] < curve["area"] < curve["risk"][-1]
    assert scores.tables["review"][0] == "c39"
    assert scores.per_case[3]["case"] == "c3"


def test_cases_without_a_number_are_left_out_and_looked_at_first() -> None:
    cases = cohort(10, seed=1)
    cases[4] = replace(cases[4], uncertainty=math.nan)
    cases[5] = replace(cases[5], dice=math.nan)
    scores = uncertainty_scores(cases, metrics=METRICS)
    assert scores.metrics["uncertainty_spearman"].n == 8
    assert scores.metrics["voxel_ece"].n == 10
    assert len(scores.tables["risk_coverage"]["risk"]) == 8
    assert scores.tables["review"][0] == "c4"


def test_one_case_has_no_correlation_and_none_no_score() -> None:
    alone = uncertainty_scores(cohort(1, seed=2), metrics=METRICS)
    assert math.isnan(alone.metrics["uncertainty_spearman"].value)
    with pytest.raises(UsageError, match="no case"):
        uncertainty_scores([])
