"""Golden values of the published table of twenty cases, to the digits that were given."""

from math import sqrt

import numpy as np
import pytest
from golden_scores import LABELS, MODEL_A, MODEL_B
from scipy import stats

from medtool.score.calibration import brier, calibration_errors
from medtool.score.classification import binary_scores, choose_threshold
from medtool.score.compare import compare_models
from medtool.score.confusion import confusion
from medtool.score.delong import compare_aurocs, delong
from medtool.score.intervals import bootstrap, wilson
from medtool.score.ranking import (
    auroc,
    auroc_levels,
    average_precision,
    levels_weighted,
    operating_points,
)
from medtool.score.sample import binary_sample
from medtool.score.threshold import threshold_for_specificity

A, B = binary_sample(LABELS, MODEL_A), binary_sample(LABELS, MODEL_B)


def test_the_aurocs_and_their_covariance_are_delongs():
    result = delong(LABELS, [MODEL_A, MODEL_B])
    assert result.aucs == pytest.approx([0.88020833, 0.78645833], abs=5e-9)
    assert result.covariance[0, 0] == pytest.approx(0.00623492, abs=5e-9)
    assert result.covariance[1, 1] == pytest.approx(0.01090495, abs=5e-9)
    assert result.covariance[0, 1] == pytest.approx(0.00350393, abs=5e-9)
    assert result.standard_error(0) == pytest.approx(0.07896152, abs=5e-9)
    assert result.standard_error(1) == pytest.approx(0.10442676, abs=5e-9)
    assert auroc(A) == pytest.approx(0.88020833, abs=5e-9)


def test_the_difference_of_two_models_is_delongs():
    found = compare_aurocs(delong(LABELS, [MODEL_A, MODEL_B]))
    assert found.difference == pytest.approx(0.09375)
    assert found.standard_error == pytest.approx(0.10065790, abs=5e-9)
    assert found.z == pytest.approx(0.93137253, abs=5e-9)
    assert found.p == pytest.approx(0.35166089, abs=5e-9)


@pytest.mark.parametrize(
    ("model", "wald", "logit"),
    [
        (0, (0.725447, 1.034970), (0.628703, 0.969592)),
        (1, (0.581786, 0.991131), (0.521236, 0.925699)),
    ],
)
def test_the_intervals_are_walds_and_logit(model, wald, logit):
    result = delong(LABELS, [MODEL_A, MODEL_B])
    assert result.wald(model) == pytest.approx(wald, abs=1e-6)
    assert result.logit(model) == pytest.approx(logit, abs=1e-6)


def test_the_decision_at_one_half():
    counts = confusion(A, 0.5)
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (6, 3, 2, 9)
    metrics = counts.metrics()
    assert metrics["mcc"] == pytest.approx(0.492366, abs=5e-7)
    assert metrics["f1"] == pytest.approx(0.705882, abs=5e-7)
    assert brier(A) == pytest.approx(0.146750)
    assert average_precision(A) == pytest.approx(0.863095, abs=5e-7)


def test_the_thresholds():
    points = operating_points(A)
    youden = points.sensitivity + points.specificity - 1
    assert youden.max() == pytest.approx(0.625)
    assert choose_threshold(LABELS, MODEL_A, "youden") == 0.65
    assert points.f1.max() == pytest.approx(0.769231, abs=5e-7)
    assert choose_threshold(LABELS, MODEL_A, "f1") == 0.65
    for target, sensitivity, threshold in ((0.9, 0.625, 0.65), (0.8, 0.75, 0.55)):
        at = threshold_for_specificity(A, target)
        assert at == threshold
        assert confusion(A, at).metrics()["sensitivity"] == sensitivity


def test_the_calibration_errors_follow_the_stated_rule():
    errors = calibration_errors(A)
    assert errors["ece"] == pytest.approx(0.135)
    assert errors["mce"] == pytest.approx(0.275)


@pytest.mark.parametrize(
    ("events", "n", "low", "high"),
    [
        (0, 10, 0, 0.277533),
        (1, 10, 0.017876, 0.404150),
        (8, 10, 0.490162, 0.943318),
        (10, 10, 0.722467, 1),
        (81, 263, 0.255289, 0.366210),
        (15, 148, 0.062386, 0.160487),
    ],
)
def test_wilson(events, n, low, high):
    assert wilson(events, n) == pytest.approx((low, high), abs=5e-7)
    theirs = stats.binomtest(events, n).proportion_ci(method="wilson")
    assert wilson(events, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_paired_bootstrap_of_the_difference():
    low, high = compare_models(LABELS, MODEL_A, MODEL_B).interval
    assert low == pytest.approx(-0.1000, abs=5e-5)
    assert high == pytest.approx(0.2976, abs=5e-5)


def test_the_bca_interval_agrees_with_scipys():
    generator = np.random.default_rng(3)
    values = generator.gamma(2.0, size=60)
    sample = binary_sample(np.tile([0, 1], 30), values / (1 + values.max()))

    def mean(weights):
        return {"mean": weights @ values / weights.sum(axis=1)}

    ours = bootstrap(sample, mean, draws=20000, seed=1).bca("mean", values.mean())
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    # Two Monte Carlo runs: agreement to a tenth of the standard error.
    assert ours == pytest.approx((theirs.low, theirs.high), abs=values.std() / sqrt(60) / 10)


def test_each_replicate_is_the_metric_of_the_resampled_cases():
    sample = binary_sample(LABELS, MODEL_A)
    weights = np.random.default_rng(0).integers(0, 4, size=(30, 20)).astype(float)
    values = auroc_levels(levels_weighted(sample, weights))
    for row, value in zip(weights, values, strict=True):
        repeated = np.repeat(np.arange(20), row.astype(int))
        positive = [MODEL_A[i] for i in repeated if LABELS[i]]
        negative = [MODEL_A[i] for i in repeated if not LABELS[i]]
        u = stats.mannwhitneyu(positive, negative).statistic
        assert value == pytest.approx(u / len(positive) / len(negative))


def test_binary_scores_carry_the_golden_numbers():
    scores = binary_scores(LABELS, MODEL_A, threshold=0.5).metrics
    for name, value in {
        "auroc": 0.88020833,
        "auprc": 0.863095,
        "sensitivity": 0.75,
        "specificity": 0.75,
        "ppv": 6 / 9,
        "npv": 9 / 11,
        "accuracy": 0.75,
        "balanced_accuracy": 0.75,
        "f1": 0.705882,
        "mcc": 0.492366,
        "brier": 0.146750,
        "brier_skill": 1 - 0.146750 / 0.24,
        "ece": 0.135,
        "mce": 0.275,
    }.items():
        assert scores[name].value == pytest.approx(value, abs=1e-6), name
    assert (scores["sensitivity"].low, scores["sensitivity"].high) == pytest.approx(
        wilson(6, 8), abs=1e-12
    )
