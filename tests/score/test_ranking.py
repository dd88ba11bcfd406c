"""Ranking metrics against scipy, brute force and their own symmetries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medtool.core.errors import LabelsError, UsageError
from medtool.score.compare import compare_models
from medtool.score.curves import precision_recall_curve, roc_curve, threshold_table
from medtool.score.delong import compare_aurocs, delong
from medtool.score.ranking import auroc, average_precision, operating_points
from medtool.score.sample import binary_sample

# Few distinct scores, so that ties are common.
COHORTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


def _split(rows):
    return [label for label, _ in rows], [score / 6 for _, score in rows]


@given(COHORTS)
def test_auroc_is_mann_whitneys_u_over_pairs(rows):
    labels, scores = _split(rows)
    positive = [s for label, s in zip(labels, scores, strict=True) if label]
    negative = [s for label, s in zip(labels, scores, strict=True) if not label]
    u = stats.mannwhitneyu(positive, negative).statistic
    assert auroc(binary_sample(labels, scores)) == pytest.approx(u / len(positive) / len(negative))


@given(COHORTS)
def test_turning_scores_around_turns_auroc_around(rows):
    labels, scores = _split(rows)
    there = auroc(binary_sample(labels, scores))
    back = auroc(binary_sample(labels, [1 - s for s in scores]))
    assert there + back == pytest.approx(1.0)


@given(COHORTS)
def test_average_precision_is_the_sum_over_thresholds(rows):
    labels, scores = (np.asarray(column) for column in _split(rows))
    total, before, area = labels.sum(), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        recall, precision = labels[called].sum() / total, labels[called].mean()
        area += (recall - before) * precision
        before = recall
    assert average_precision(binary_sample(labels, scores)) == pytest.approx(area)


@given(COHORTS)
def test_delong_is_the_variance_of_placements(rows):
    labels, scores = (np.asarray(column) for column in _split(rows))
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    result = delong(labels, [scores])
    assert result.aucs[0] == pytest.approx(wins.mean())
    if min(wins.shape) > 1:
        v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
        wanted = v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size
        assert result.covariance[0, 0] == pytest.approx(wanted)
    else:
        assert np.isnan(result.covariance).all()


def test_identical_rankings_do_not_differ():
    labels, scores = [0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9]
    same = compare_aurocs(delong(labels, [scores, [s / 2 for s in scores]]))
    assert (same.difference, same.p) == (0.0, 1.0)


def test_a_difference_without_variance_has_no_p():
    # Model one separates perfectly, model two is turned around: both variances are 0.
    labels = [0, 0, 1, 1]
    found = compare_aurocs(delong(labels, [[0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1]]))
    assert found.difference == 1.0
    assert np.isnan(found.p)


def test_a_perfect_auroc_has_an_interval_inside_0_and_1():
    result = delong([0, 0, 1, 1], [[0.1, 0.2, 0.8, 0.9]])
    assert result.logit() == (1.0, 1.0)


def test_the_last_operating_point_calls_nothing_positive():
    points = operating_points(binary_sample([0, 1, 1], [0.2, 0.2, 1.0]))
    assert points.thresholds[-1] > 1.0
    assert points.sensitivity.tolist() == [1.0, 0.5, 0.0]
    assert points.specificity.tolist() == [0.0, 1.0, 1.0]


def test_the_curves_by_hand():
    # Scores from above: positive, negative, positive.
    sample = binary_sample([1, 0, 1], [0.9, 0.6, 0.3])
    roc = roc_curve(sample, 100, 0.95, 0)
    assert roc["fpr"] == [0.0, 0.0, 1.0, 1.0]
    assert roc["tpr"] == [0.0, 0.5, 0.5, 1.0]
    pr = precision_recall_curve(sample, 100, 0.95, 0)
    assert pr["recall"] == [0.5, 0.5, 1.0]
    assert pr["precision"] == pytest.approx([1.0, 0.5, 2 / 3])
    table = threshold_table(sample)
    assert table["threshold"] == [0.3, 0.6, 0.9]
    assert table["specificity"] == [0.0, 0.0, 1.0]


def test_curves_of_one_class_are_empty():
    sample = binary_sample([1, 1], [0.9, 0.6])
    assert roc_curve(sample, 100, 0.95, 0) == {}
    assert precision_recall_curve(sample, 100, 0.95, 0) == {}
    assert threshold_table(sample) == {}


def test_bands_contain_most_of_the_curve():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + generator.normal(size=200))))
    curve = roc_curve(binary_sample(labels, scores), 500, 0.95, 0)
    middle = np.interp(curve["grid"], curve["fpr"], curve["tpr"])
    inside = (np.asarray(curve["low"]) <= middle + 1e-9) & (
        middle <= np.asarray(curve["high"]) + 1e-9
    )
    assert inside.mean() > 0.9


class TestWhatIsRefused:
    def test_another_label(self):
        with pytest.raises(LabelsError, match="outside the two classes"):
            binary_sample([0, 2], [0.1, 0.2])

    def test_a_missing_prediction(self):
        with pytest.raises(UsageError, match="no finite number"):
            binary_sample([0, 1], [0.1, float("nan")])

    def test_columns_of_different_length(self):
        with pytest.raises(UsageError, match="differ in number"):
            binary_sample([0, 1], [0.1])

    def test_one_class_for_delong(self):
        with pytest.raises(LabelsError, match="both classes"):
            delong([1, 1], [[0.1, 0.2]])


def test_models_that_never_differ_have_no_z_and_say_so() -> None:
    found = compare_models([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.7, 0.9], draws=50)
    assert found.lines()[-1] == "DeLong: z undefined (no difference), p 1."
