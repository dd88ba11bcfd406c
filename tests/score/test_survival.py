"""Curves, ranking and errors of survival: golden values, hand calculations, slow definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from survival_fixture import EVENTS, RISKS, TIMES

from medtool.core.errors import LabelsError, UsageError
from medtool.score.intervals import bootstrap, draw_patients, row_weights
from medtool.score.survival import SurvivalSample, check_risks, survival_sample
from medtool.score.survival_curves import (
    censoring_curve,
    kaplan_meier,
    log_rank,
    survival_weighted,
)
from medtool.score.survival_error import (
    brier_terms,
    brier_weighted,
    calibration_at,
    integrated_brier,
)
from medtool.score.survival_ranking import (
    auc_weighted,
    equal_time_pairs,
    harrell,
    mean_auc_weighted,
    uno,
)

TINY = survival_sample(TIMES, EVENTS)
ONE = np.ones((1, TINY.n))

# Few values, so that times and risks tie often.
TABLES = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=25
)


def table(rows) -> tuple[SurvivalSample, np.ndarray]:
    times, events, risks = zip(*rows, strict=True)
    return survival_sample(times, events), np.asarray(risks, dtype=float)


def share_left(times, leaving, at_risk_of, t) -> float:
    """Product over distinct times up to t, by definition."""
    share = 1.0
    for time in sorted({s for s in times if s <= t}):
        gone = sum(1 for s, left in zip(times, leaving, strict=True) if s == time and left)
        at_risk = at_risk_of(time)
        share *= 1 - gone / at_risk if gone else 1.0
    return share


def slow_survival(sample, t) -> float:
    times = sample.times.tolist()
    return share_left(times, sample.events, lambda s: sum(1 for u in times if u >= s), t)


def slow_censoring(sample, t) -> float:
    times, events = sample.times.tolist(), sample.events.tolist()

    def at_risk(s):
        return sum(1 for u, e in zip(times, events, strict=True) if u > s or (u == s and not e))

    return share_left(times, [not e for e in events], at_risk, t)


def slow_pairs(sample, risks, weight_of=lambda i: 1.0, weights=None):
    """Concordant, discordant and tied pairs, one pair after the other."""
    own = np.ones(sample.n) if weights is None else weights
    sums = [0.0, 0.0, 0.0]
    for i in range(sample.n):
        for j in range(sample.n):
            ti, tj, ej = sample.times[i], sample.times[j], sample.events[j]
            if sample.events[i] and (ti < tj or (ti == tj and not ej)):
                kind = 0 if risks[i] > risks[j] else 1 if risks[i] < risks[j] else 2
                sums[kind] += own[i] * own[j] * weight_of(i)
    return sums


def test_the_tiny_table_has_the_golden_values() -> None:
    counter = harrell(TINY, RISKS)
    assert [float(part[0]) for part in counter.count()] == [27, 7, 0]
    assert counter.c_index() == pytest.approx(0.794118, abs=5e-7)
    # Of equal times: 2 x 1 at time 4 and 1 x 1 at time 6 count, two pairs of events do not.
    assert equal_time_pairs(TINY) == (3, 2)
    found = uno(TINY, RISKS, censoring_curve(TINY), before=5).c_index()
    assert found == pytest.approx(0.700670, abs=5e-7)
    wanted = [0.9, 0.7, 0.7, 0.466667, 0.311111, 0.155556]
    assert kaplan_meier(TINY).at([1, 2, 3, 4, 5, 6]) == pytest.approx(wanted, abs=5e-7)


def test_ties_of_time_and_risk_are_those_of_both_packages() -> None:
    """Three concordant, one discordant; lifelines and scikit-survival give 0.75."""
    sample = survival_sample([5, 5, 5, 7], [1, 1, 0, 1])
    counted = harrell(sample, [2, 1, 1.5, 0.5]).count()
    assert [float(part[0]) for part in counted] == [3, 1, 0]
    assert harrell(sample, [2, 1, 1.5, 0.5]).c_index() == 0.75
    assert harrell(sample, [1, 1, 1, 1]).c_index() == 0.5


def test_without_a_pair_there_is_no_index() -> None:
    assert math.isnan(harrell(survival_sample([1, 2], [0, 0]), [1, 2]).c_index())
    assert math.isnan(harrell(survival_sample([2, 2], [1, 1]), [1, 2]).c_index())
    assert math.isnan(uno(TINY, RISKS, censoring_curve(TINY), before=1).c_index())


def test_risks_that_differ_by_rounding_are_tied() -> None:
    sample = survival_sample([1, 2], [1, 0])
    assert harrell(sample, [0.3, 0.1 + 0.2]).c_index() == 0.5
    assert harrell(sample, [0.3 + 1e-7, 0.3]).c_index() == 1.0


@given(TABLES)
def test_pairs_are_those_of_the_definition(rows) -> None:
    sample, risks = table(rows)
    counted = harrell(sample, risks).count()
    assert [float(part[0]) for part in counted] == slow_pairs(sample, risks)


@given(TABLES, st.integers(1, 7))
def test_unos_pairs_are_those_of_the_definition(rows, before) -> None:
    sample, risks = table(rows)
    training = survival_sample([*sample.times, 9], [*sample.events, 1])

    def weight(i: int) -> float:
        share = slow_censoring(training, sample.times[i])
        return share**-2 if sample.times[i] < before else 0.0

    wanted = slow_pairs(sample, risks, weight)
    counted = uno(sample, risks, censoring_curve(training), before).count()
    assert [float(part[0]) for part in counted] == pytest.approx(wanted)


@settings(max_examples=20)
@given(TABLES)
def test_draws_count_as_copies_of_patients(rows) -> None:
    sample, risks = table(rows)
    counts, _ = draw_patients(sample, 5, seed=0)
    (weights,) = row_weights(sample, counts)
    counted = harrell(sample, risks).count(weights)
    for draw in range(5):
        wanted = slow_pairs(sample, risks, weights=weights[draw])
        assert [float(part[draw]) for part in counted] == pytest.approx(wanted)


def test_nobody_followed_so_long_leaves_uno_undefined() -> None:
    """The curve of censoring is 0 where all that is left is censored at once."""
    training = survival_sample([1, 2, 3], [1, 0, 0])
    late = survival_sample([1, 4, 5], [1, 1, 1])
    assert math.isnan(uno(late, [3, 2, 1], censoring_curve(training)).c_index())
    assert uno(late, [3, 2, 1], censoring_curve(training), before=3).c_index() == 1.0


def test_the_bootstrap_brackets_the_index() -> None:
    generator = np.random.default_rng(0)
    risks = generator.normal(size=80)
    times = generator.exponential(np.exp(-risks))
    sample = survival_sample(times + 1e-3, generator.integers(0, 2, 80))
    counter = harrell(sample, risks)
    drawn = bootstrap(sample, lambda w: {"c": counter.count(w).c_index}, draws=500)
    low, high = drawn.percentile("c")
    assert low < counter.c_index() < high
    assert 0.05 < high - low < 0.35


@given(TABLES)
def test_curves_are_those_of_the_definition(rows) -> None:
    sample, _ = table(rows)
    curve, censoring = kaplan_meier(sample), censoring_curve(sample)
    for time in range(8):
        assert curve.at([time])[0] == pytest.approx(slow_survival(sample, time))
        assert censoring.at([time])[0] == pytest.approx(slow_censoring(sample, time))
        assert curve.at_risk_at([time])[0] == (sample.times >= time).sum()
    assert all(before >= after for before, after in pairwise(curve.share))
    weighted = survival_weighted(sample, np.ones((2, sample.n)), range(8))
    assert weighted == pytest.approx(np.tile(curve.at(range(8)), (2, 1)))


def test_greenwoods_interval_by_hand() -> None:
    """Five patients, one event in five and one in three: S = 4/5 * 2/3 = 0.533333."""
    curve = kaplan_meier(survival_sample([1, 2, 3, 4, 5], [1, 0, 1, 0, 0]))
    greenwood = 1 / (5 * 4) + 1 / (3 * 2)
    error = math.sqrt(greenwood) / abs(math.log(8 / 15))
    low, high = curve.interval_at([3])
    assert low[0] == pytest.approx((8 / 15) ** math.exp(1.959963985 * error))
    assert high[0] == pytest.approx((8 / 15) ** math.exp(-1.959963985 * error))
    assert np.isnan(curve.interval_at([0.5])[0][0]), "nothing is known of a share of 1"
    assert np.isnan(kaplan_meier(survival_sample([1], [1])).interval_at([2])[0][0])


def test_the_median_time() -> None:
    assert kaplan_meier(TINY).median() == 4
    assert kaplan_meier(survival_sample([1, 2], [1, 1])).median() == 1
    assert kaplan_meier(survival_sample([1, 2], [0, 0])).median() == math.inf


def test_the_log_rank_test_by_hand() -> None:
    """Two groups of two, events at 1, 2, 3 (a, b, a), the last patient (b) censored at 4.

    Expected of group a: 2/4 + 1/3 + 1/2 = 4/3, variance 1/4 + 2/9 + 1/4 = 13/18,
    (2 - 4/3)^2 / (13/18) = 8/13.
    """
    found = log_rank(survival_sample([1, 2, 3, 4], [1, 1, 1, 0]), ["a", "b", "a", "b"])
    assert found.observed == (2, 1)
    assert found.expected == pytest.approx((4 / 3, 5 / 3))
    assert found.chi_square == pytest.approx(8 / 13)
    assert found.degrees == 1
    assert found.p == pytest.approx(math.erfc(math.sqrt(8 / 13 / 2)))


def test_the_log_rank_test_of_three_groups() -> None:
    """lifelines 0.30.3, multivariate_logrank_test of the tiny table in three groups."""
    found = log_rank(TINY, list("abcabcabca"))
    assert found.degrees == 2
    assert found.chi_square == pytest.approx(0.908642, abs=5e-7)
    assert found.p == pytest.approx(0.634879, abs=5e-7)


def test_one_group_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="compares groups"):
        log_rank(TINY, ["a"] * TINY.n)
    assert math.isnan(log_rank(survival_sample([1, 2], [0, 0]), ["a", "b"]).p)


def test_the_auc_and_brier_score_of_a_time_by_packages() -> None:
    """scikit-survival 0.28.0 on the tiny table, survival predicted as exp(-t exp(risk) / 10).

    Training patients are the same and one with an event at 9, or censoring would end at 6.
    """
    times = np.asarray([2.0, 3.5, 5.0])
    censoring = censoring_curve(survival_sample([*TIMES, 9], [*EVENTS, 1]))
    areas = auc_weighted(TINY, RISKS, censoring, times, ONE)
    assert areas[0] == pytest.approx([0.904762, 0.888889, 0.803922], abs=5e-7)
    mean = mean_auc_weighted(TINY, areas, times, ONE)
    assert mean[0] == pytest.approx(0.847836, abs=5e-7)
    survival = np.exp(-np.exp(RISKS)[:, None] * times / 10)
    scores = brier_weighted(brier_terms(TINY, survival, censoring, times), ONE)
    assert scores[0] == pytest.approx([0.108165, 0.118159, 0.201348], abs=5e-7)
    assert integrated_brier(scores, times)[0] == pytest.approx(0.136458, abs=5e-7)


@given(TABLES, st.integers(1, 6))
def test_auc_and_brier_are_those_of_the_definition(rows, time) -> None:
    sample, risks = table(rows)
    training = survival_sample([*sample.times, 9], [*sample.events, 1])
    right = pairs = 0.0
    terms = []
    survival = 1 / (1 + np.exp(risks))
    for i in range(sample.n):
        at_own = slow_censoring(training, sample.times[i])
        case = sample.times[i] <= time and sample.events[i]
        free = sample.times[i] > time
        if case:
            terms.append(survival[i] ** 2 / at_own)
        else:
            terms.append((1 - survival[i]) ** 2 / slow_censoring(training, time) if free else 0.0)
        for j in range(sample.n):
            if case and sample.times[j] > time:
                pairs += 1 / at_own
                right += ((risks[i] > risks[j]) + 0.5 * (risks[i] == risks[j])) / at_own
    censoring, ones = censoring_curve(training), np.ones((1, sample.n))
    found = auc_weighted(sample, risks, censoring, [time], ones)[0, 0]
    assert found == pytest.approx(right / pairs if pairs else math.nan, nan_ok=True)
    score = brier_weighted(brier_terms(sample, survival[:, None], censoring, [time]), ones)
    assert score[0, 0] == pytest.approx(np.mean(terms))


def test_perfect_foresight_has_no_brier_score() -> None:
    sample = survival_sample([1, 2, 3, 4], [1, 1, 0, 1])
    survival = (sample.times[:, None] > np.asarray([1.5, 2.5])).astype(float)
    terms = brier_terms(sample, survival, censoring_curve(sample), [1.5, 2.5])
    assert (terms == 0).all()
    assert np.isnan(integrated_brier(terms[:, :1], [1.5])).all()


def test_calibration_compares_groups_with_their_own_curve() -> None:
    """Ten patients in two groups: said 10 % and 60 %, seen 1 in 5 and 3 in 5."""
    sample = survival_sample(
        [9, 9, 9, 9, 1, 9, 9, 1, 2, 3], [0, 0, 0, 0, 1, 0, 0, 1, 1, 1], list("abcdefghij")
    )
    low, high = calibration_at(sample, [0.9] * 5 + [0.4] * 5, 5, groups=2)
    assert (low.n, low.events, low.followed) == (5, 1, 4)
    assert (low.predicted, low.observed) == pytest.approx((0.1, 0.2))
    assert (high.predicted, high.observed) == pytest.approx((0.6, 0.6))
    assert low.low < low.observed < low.high
    # Equal predictions cannot be told apart: one group remains.
    assert len(calibration_at(sample, [0.5] * 10, 5)) == 1


def test_predictions_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        brier_terms(TINY, np.ones((3, 2)), censoring_curve(TINY), [1, 2])


@pytest.mark.parametrize(
    ("times", "events", "patients", "met"),
    [
        ([1, 0], [1, 0], ["a", "b"], "1 of 2 patients, first b: 0"),
        ([1, -3], [1, 0], ["a", "b"], "first b: -3"),
        ([math.nan, 2], [1, 0], ["a", "b"], "first a: nan"),
        ([1, 2], [1, 2], ["a", "b"], "first b: 2"),
        ([1, 2], [1, math.nan], ["a", "b"], "first b: nan"),
        ([1, 2, 3], [1, 0, 1], ["a", "b", "a"], "1 patients, first a"),
    ],
)
def test_outcomes_that_are_none_are_refused(times, events, patients, met) -> None:
    with pytest.raises(LabelsError) as refusal:
        survival_sample(times, events, patients)
    assert met in refusal.value.met


def test_lengths_and_risks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="differ in number"):
        survival_sample([1, 2], [1])
    with pytest.raises(UsageError, match="do not fit"):
        check_risks(TINY, [1.0])
    with pytest.raises(UsageError, match="do not fit"):
        harrell(survival_sample([1, 2], [1, 0]), [1.0, math.nan])
