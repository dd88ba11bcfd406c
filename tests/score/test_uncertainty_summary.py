"""Uncertainty of a cohort whose errors are known to grow with it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults
from medtool.score.uncertainty_quality import risk_area_weighted, risk_coverage, voxel_quality
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
    # One failure that nobody doubts, so that failures are not told apart perfectly.
    cases[2] = replace(cases[2], invented=True)
    scores = uncertainty_scores(cases, metrics=METRICS)
    assert set(scores.metrics) == {
        "uncertainty_spearman",
        "voxel_ece",
        "voxel_auroc",
        "case_auroc",
        "aurc",
        "excess_aurc",
    }
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
    assert scores.metrics["aurc"].value == pytest.approx(curve["area"], abs=1e-12)
    assert scores.metrics["excess_aurc"].value == pytest.approx(curve["excess"], abs=1e-12)
    failed = [case.dice < 0.7 or number == 2 for number, case in enumerate(cases)]
    doubts = [case.uncertainty for case in cases]
    assert 0 < sum(failed) < 40
    pairs = [
        (one > other) + 0.5 * (one == other)
        for one, wrong in zip(doubts, failed, strict=True)
        for other, right in zip(doubts, failed, strict=True)
        if wrong and not right
    ]
    assert scores.metrics["case_auroc"].value == pytest.approx(np.mean(pairs))
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


def test_something_found_where_there_is_nothing_is_a_failure() -> None:
    cases = [replace(case, dice=0.9) for case in cohort(6, seed=3)]
    assert math.isnan(uncertainty_scores(cases, metrics=METRICS).metrics["case_auroc"].value)
    # The one that nobody doubts: ranked last.
    cases[0] = replace(cases[0], dice=math.nan, invented=True)
    scores = uncertainty_scores(cases, metrics=METRICS)
    assert scores.metrics["case_auroc"].value == 0.0
    assert scores.metrics["case_auroc"].n == 6
    assert scores.metrics["uncertainty_spearman"].n == 5


def test_the_area_of_repeated_cases_is_that_of_their_weights() -> None:
    generator = np.random.default_rng(4)
    confidence = generator.integers(0, 5, 20).astype(float)
    losses = generator.random(20)
    weights = generator.integers(0, 4, (7, 20))
    found = risk_area_weighted(confidence, losses, weights.astype(float))
    wanted = [
        risk_coverage(np.repeat(confidence, row), np.repeat(losses, row)).area for row in weights
    ]
    assert found == pytest.approx(wanted, abs=1e-12)


def test_one_case_has_no_correlation_and_none_no_score() -> None:
    alone = uncertainty_scores(cohort(1, seed=2), metrics=METRICS)
    assert math.isnan(alone.metrics["uncertainty_spearman"].value)
    with pytest.raises(UsageError, match="no case"):
        uncertainty_scores([])
