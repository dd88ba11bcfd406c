"""Maps of uncertainty, its quality, temperature: values by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from medtool.core.errors import UsageError
from medtool.score.calibration import bin_sums, calibration_errors, joined_sums
from medtool.score.intervals import bootstrap
from medtool.score.sample import binary_sample, patient_sample
from medtool.score.temperature import COLDEST, HOTTEST, fit_temperature
from medtool.score.uncertainty import mean_by_lesion, mean_within, region_near
from medtool.score.uncertainty_quality import (
    calibration_error_weighted,
    review_order,
    risk_coverage,
    spearman,
    spearman_weighted,
    voxel_quality,
)


def test_the_region_near_truth_and_prediction() -> None:
    """Spacing 2 and 1: within 5 mm are 2 voxels along the first axis and 5 along the second."""
    truth, prediction = np.zeros((2, 9, 30), dtype=bool)
    truth[4, 8] = prediction[4, 20] = True
    near = region_near([truth, prediction], (2.0, 1.0))
    for row, column in ((4, 8), (4, 20)):
        assert near[row, column - 5 : column + 6].all()
    assert near[2, 8 - 3 : 8 + 4].all()
    assert not near[4, [2, 14, 26]].any()
    assert not near[[0, 1, 7, 8]].any()
    # 3-4-5: a distance of 5 mm is near.
    assert near.sum() == 2 * (11 + 2 * 9 + 2 * 7)
    assert not region_near([truth & prediction], (1.0, 1.0)).any()


def test_means_by_lesion_and_case() -> None:
    lesions = np.asarray([[0, 1, 1], [3, 0, 3]])
    uncertainty = np.asarray([[9, 0.2, 0.4], [1.0, 9, 0.5]])
    assert mean_by_lesion(uncertainty, lesions)[[0, 2]] == pytest.approx([0.3, 0.75])
    assert mean_by_lesion(uncertainty, 0 * lesions).size == 0
    assert mean_within(uncertainty, lesions == 1) == pytest.approx(0.3)
    assert math.isnan(mean_within(uncertainty, lesions == 7))


def test_the_errors_of_voxels_by_hand() -> None:
    """Four voxels near the lesion, far ones left out: one error, the second most unsure."""
    prediction = np.asarray([0, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    reference = np.asarray([0, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    uncertainty = np.asarray([0.1, 0.2, 0.5, 0.6] + [9.0] * 6)
    probability = np.asarray([0.05, 0.95, 0.55, 0.45] + [0.99] * 6)
    found = voxel_quality(probability, uncertainty, prediction, reference, [5.0])
    assert (found.voxels, found.errors) == (4, 1)
    assert found.auroc == pytest.approx(2 / 3)
    assert found.average_precision == pytest.approx(1 / 2)
    # Ranks 1 to 4 beside one error of rank 3.
    assert found.correlation == pytest.approx(stats.spearmanr([1, 2, 3, 4], [0, 0, 1, 0])[0])
    # Each voxel in a bin of its own: errors 0.05, 0.05, 0.55 and 0.45.
    ones = np.ones((1, 1))
    assert calibration_error_weighted(found.bins, ones)[0] == pytest.approx(1.1 / 4)
    none = voxel_quality(probability, uncertainty, reference, reference, [5.0])
    assert none.errors == 0
    assert math.isnan(none.auroc)
    assert math.isnan(none.average_precision)
    assert math.isnan(none.correlation)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1)), min_size=1, max_size=40))
def test_there_is_one_calibration_error(rows) -> None:
    """Voxels of several cases and the cases of a two-class question follow the same rule."""
    scores, labels = (np.asarray(column) for column in zip(*rows, strict=True))
    scores = scores / 100
    wanted = calibration_errors(binary_sample(labels, scores))["ece"]
    parts = [bin_sums(scores[k::3], labels[k::3]) for k in range(3)]
    joined = joined_sums(parts)
    assert calibration_error_weighted(joined, np.ones((1, 3)))[0] == pytest.approx(wanted)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 3)),
        min_size=2,
        max_size=20,
    )
)
def test_rank_correlation_counts_copies(rows) -> None:
    first, second, counts = (np.asarray(column, dtype=float) for column in zip(*rows, strict=True))
    copies = [np.repeat(values, counts.astype(int)) for values in (first, second)]
    found = spearman_weighted(first, second, counts[None, :])[0]
    if min((np.ptp(values) if values.size else 0) for values in copies) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(*copies)[0])


def test_rank_correlation_with_its_interval() -> None:
    generator = np.random.default_rng(3)
    doubt = generator.random(60)
    error = doubt + 0.3 * generator.random(60)
    drawn = bootstrap(
        patient_sample([f"P{n}" for n in range(60)]),
        lambda weights: {"spearman": spearman_weighted(doubt, error, weights)},
        draws=400,
    )
    low, high = drawn.percentile("spearman")
    assert low < spearman(doubt, error) < high < 1
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([], []))
    with pytest.raises(UsageError, match="differ in length"):
        spearman([1, 2], [1])


def test_the_curve_of_risk_and_coverage_by_hand() -> None:
    losses = [0, 0, 1, 0, 1, 0, 0, 1, 1, 1]
    confidence = [0.99, 0.95, 0.9, 0.85, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5]
    curve = risk_coverage(confidence, losses)
    assert curve.area == pytest.approx(0.292183, abs=5e-7)
    assert curve.best == pytest.approx(0.177183, abs=5e-7)
    assert curve.excess == pytest.approx(0.115, abs=5e-7)
    assert curve.risk[[0, 2, 9]] == pytest.approx([0, 1 / 3, 0.5])
    assert curve.coverage[-1] == 1


def test_equal_confidence_is_no_order() -> None:
    """Loss 1 and 0 at one confidence: either order on average, whichever stands first."""
    for losses in ([0, 1, 0.5], [1, 0, 0.5]):
        curve = risk_coverage([0.9, 0.9, 0.1], losses)
        assert curve.risk == pytest.approx([0.5, 0.5, 0.5])
    assert math.isnan(risk_coverage([], []).area)
    with pytest.raises(UsageError, match="differ in number"):
        risk_coverage([1], [1, 2])


def test_the_review_list_begins_with_what_is_unknown() -> None:
    assert review_order([0.1, math.nan, 0.7, 0.7]).tolist() == [1, 2, 3, 0]


def overconfident(seed: int, classes: int):
    """Labels drawn at temperature 1 of logits that are then given 2.5 times as large."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(4000, classes)) * 1.5
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < generator.random((4000, 1))).sum(axis=1)
    return 2.5 * logits, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_is_that_of_a_general_search(classes) -> None:
    logits, labels = overconfident(0, classes)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        top = scaled.max(axis=1, keepdims=True)
        norm = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return float((norm - scaled[np.arange(len(labels)), labels]).mean())

    wanted = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(math.exp(wanted.x), rel=1e-4)
    assert found.value == pytest.approx(2.5, rel=0.1)
    assert found.before == pytest.approx(loss(0))
    assert found.after == pytest.approx(wanted.fun)
    assert not found.at_limit
    assert (found.scale(logits).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_one_logit_is_two_classes() -> None:
    logits, labels = overconfident(1, 2)
    single = fit_temperature(logits[:, 1] - logits[:, 0], labels)
    assert single.value == pytest.approx(fit_temperature(logits, labels).value)
    repeated = fit_temperature(np.repeat(logits, 2, axis=0), np.repeat(labels, 2))
    halves = fit_temperature(np.repeat(logits, 2, axis=0), np.repeat(labels, 2), np.full(8000, 0.5))
    assert repeated.value == pytest.approx(halves.value)


@pytest.mark.parametrize("factor", [1e-2, 1, 1e2])
def test_the_search_ends_from_anywhere(factor) -> None:
    logits, labels = overconfident(2, 3)
    found = fit_temperature(factor / 2.5 * logits, labels)
    limited = min(max(factor, COLDEST), HOTTEST)
    assert found.value == pytest.approx(limited, rel=0.1)
    assert found.at_limit == (limited != factor)


def test_a_temperature_that_has_no_best_is_at_its_limit() -> None:
    told_apart = fit_temperature([-1.0, -0.5, 0.5, 1.0], [0, 0, 1, 1])
    assert (told_apart.value, told_apart.at_limit) == (COLDEST, True)
    wrong = fit_temperature([-1.0, 1.0], [1, 0])
    assert (wrong.value, wrong.at_limit) == (HOTTEST, True)
    assert fit_temperature([0.0, 0.0], [1, 0]).value == 1


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([], [], "cannot be fitted"),
        ([1.0, math.nan], [0, 1], "cannot be fitted"),
        ([1.0, 2.0], [0], "cannot be fitted"),
        ([1.0, 2.0], [0, 2], "no class"),
    ],
)
def test_what_has_no_temperature_is_refused(logits, labels, words) -> None:
    with pytest.raises(UsageError, match=words):
        fit_temperature(logits, labels)
