"""Cox's regression and the baseline hazard: golden values, hand calculations, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from survival_fixture import EVENTS, LIKELIHOODS, MAXIMA, RISKS, TIMES

from medtool.core.errors import LabelsError, UsageError
from medtool.score.survival import survival_sample
from medtool.score.survival_curves import kaplan_meier
from medtool.score.survival_regression import baseline_hazard, cox_log_likelihood, fit_cox

TINY = survival_sample(TIMES, EVENTS)
X = np.asarray(RISKS)


def slow_log_likelihood(sample, risks, ties) -> float:
    """Event by event, by definition."""
    total = 0.0
    for time in np.unique(sample.times[sample.events > 0]):
        at_risk = np.exp(risks[sample.times >= time]).sum()
        own = risks[(sample.times == time) & (sample.events > 0)]
        for number in range(own.size):
            gone = number / own.size if ties == "efron" else 0.0
            total += own[number] - math.log(at_risk - gone * np.exp(own).sum())
    return total


def simulated(patients: int, seed: int):
    """A cohort with two covariates that act and one that does not; times in whole months."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(patients, 3)) * [1, 10, 0.1] + [0, 60, 5]
    until = generator.exponential(30 * np.exp(-(0.8 * rows[:, 0] - 0.05 * (rows[:, 1] - 60))))
    end = generator.uniform(5, 60, patients)
    return np.ceil(np.minimum(until, end)), (until <= end).astype(int), rows


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_the_tiny_table_has_the_golden_likelihoods(ties) -> None:
    for b, wanted in LIKELIHOODS[ties].items():
        assert cox_log_likelihood(TINY, b * X, ties=ties) == pytest.approx(wanted, abs=5e-7)
    fit = fit_cox(TINY, X[:, None], ["x"], ties=ties)
    best, there = MAXIMA[ties]
    assert fit.coefficients[0] == pytest.approx(best, abs=5e-7)
    assert fit.log_likelihood == pytest.approx(there, abs=5e-7)
    assert fit.null_log_likelihood == pytest.approx(LIKELIHOODS[ties][0.0], abs=5e-7)
    assert fit.likelihood_ratio == pytest.approx(2 * (there - LIKELIHOODS[ties][0.0]), abs=2e-6)
    assert fit.warnings == ()


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 1)), min_size=1, max_size=20),
    st.sampled_from(["breslow", "efron"]),
)
def test_the_likelihood_is_that_of_the_definition(rows, ties) -> None:
    times, events = zip(*rows, strict=True)
    sample = survival_sample(times, events)
    risks = np.sin(np.arange(sample.n) * 2.0) * 3
    wanted = slow_log_likelihood(sample, risks, ties)
    assert cox_log_likelihood(sample, risks, ties=ties) == pytest.approx(wanted)
    # What is added to all risks changes nothing, however much.
    assert cox_log_likelihood(sample, risks + 700, ties=ties) == pytest.approx(wanted)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_the_fit_is_the_maximum_and_its_errors_the_curvature(ties) -> None:
    """Against scipy's general search, and second differences of the slow definition."""
    times, events, rows = simulated(150, seed=1)
    sample = survival_sample(times, events)
    fit = fit_cox(sample, rows, ["a", "b", "c"], ties=ties)
    assert fit.warnings == ()
    scale = rows.std(axis=0)

    def loss(beta) -> float:
        return -slow_log_likelihood(sample, (rows - rows.mean(axis=0)) @ (beta / scale), ties)

    found = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-7})
    assert fit.coefficients == pytest.approx(found.x / scale, abs=1e-5 / scale.min())
    assert fit.log_likelihood == pytest.approx(-loss(fit.coefficients * scale), abs=1e-9)
    h, curvature = 1e-3, np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            shifts = [
                si
                * sj
                * loss(fit.coefficients * scale + h * (si * np.eye(3)[i] + sj * np.eye(3)[j]))
                for si in (1, -1)
                for sj in (1, -1)
            ]
            curvature[i, j] = sum(shifts) / (4 * h * h)
    errors = np.sqrt(np.diag(np.linalg.inv(curvature))) / scale
    assert fit.standard_errors == pytest.approx(errors, rel=1e-4)


def test_hazard_ratios_have_their_intervals() -> None:
    times, events, rows = simulated(400, seed=2)
    fit = fit_cox(survival_sample(times, events), rows, ["a", "b", "c"])
    middle, low, high = fit.hazard_ratios()
    assert (low < middle).all()
    assert (middle < high).all()
    assert low[0] < math.exp(0.8) < high[0], "the true hazard ratio of the first"
    assert fit.p_values[0] < 1e-6
    assert fit.p_values[2] > 0.01, "the third does nothing"
    assert fit.risks(rows) == pytest.approx(rows @ fit.coefficients)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_units_of_a_covariate_change_nothing(seed, factor, shift) -> None:
    times, events, rows = simulated(60, seed)
    sample = survival_sample(times, events)
    one = fit_cox(sample, rows[:, :1], ["a"])
    other = fit_cox(sample, rows[:, :1] * factor + shift, ["a"])
    assert other.coefficients * factor == pytest.approx(one.coefficients, rel=1e-4)
    assert other.log_likelihood == pytest.approx(one.log_likelihood)


def test_separation_is_said() -> None:
    """Who has the larger value has the event first, always: no coefficient is large enough."""
    sample = survival_sample([1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 0, 0])
    noise = np.asarray([0.3, -0.2, 0.5, 0.1, -0.4, 0.2])
    fit = fit_cox(sample, np.column_stack([[6, 5, 4, 3, 2, 1], noise]), ["marker", "noise"])
    assert len(fit.warnings) == 1
    assert "marker" in fit.warnings[0]
    assert "separation" in fit.warnings[0]
    assert fit.log_likelihood == pytest.approx(0, abs=1e-3)


def test_a_group_without_events_is_a_separation() -> None:
    sample = survival_sample(range(1, 13), [1, 0] * 6)
    treated = np.asarray([0, 1] * 6, dtype=float)
    assert "treated" in fit_cox(sample, treated[:, None], ["treated"]).warnings[0]


@pytest.mark.parametrize(
    ("columns", "words", "met"),
    [
        ({"age": [1.0, 2, math.nan, 4]}, "missing", "age (1)"),
        ({"age": [1.0, 2, 3, 4], "arm": [1.0, 1, 1, 1]}, "same in all", "arm"),
        ({"cm": [1.0, 2, 3, 5], "mm": [10.0, 20, 30, 50]}, "combinations", "cm, mm"),
    ],
)
def test_covariates_that_say_nothing_are_refused(columns, words, met) -> None:
    sample = survival_sample([1, 2, 3, 4], [1, 0, 1, 1])
    with pytest.raises(UsageError, match=words) as refusal:
        fit_cox(sample, np.column_stack(list(columns.values())), list(columns))
    assert met in refusal.value.met


def test_without_events_or_columns_nothing_is_fitted() -> None:
    sample = survival_sample([1, 2], [0, 0])
    with pytest.raises(LabelsError, match="no patient had"):
        fit_cox(sample, [[1.0], [2.0]], ["a"])
    with pytest.raises(LabelsError, match="no patient had"):
        baseline_hazard(sample, [0.0, 1.0])
    with pytest.raises(UsageError, match="do not fit"):
        fit_cox(TINY, X[:, None], ["x", "y"])


def test_the_baseline_hazard_by_hand() -> None:
    """Events at 1 and 3 of four patients with exp(risk) 1, 2, 3, 4: 1/10, then 1/7."""
    sample = survival_sample([1, 2, 3, 4], [1, 0, 1, 0])
    risks = np.log([1.0, 2.0, 3.0, 4.0])
    hazard = baseline_hazard(sample, risks)
    uncentred = hazard.cumulative_at([0.5, 1, 2.5, 3, 99]) * math.exp(-hazard.centre)
    assert uncentred == pytest.approx([0, 0.1, 0.1, 0.1 + 1 / 7, 0.1 + 1 / 7])
    survival = hazard.survival(risks[:2], [1, 3])
    assert survival == pytest.approx(
        np.exp([[-0.1, -0.1 - 1 / 7], [-0.2, -0.2 - 2 / 7]]),
    )


def test_without_risks_the_baseline_is_nelson_and_aalens() -> None:
    hazard = baseline_hazard(TINY, np.zeros(TINY.n))
    curve = kaplan_meier(TINY)
    died = curve.events > 0
    assert hazard.times == pytest.approx(curve.times[died])
    steps = curve.events[died] / curve.at_risk[died]
    assert hazard.cumulative == pytest.approx(np.cumsum(steps))


def test_large_risks_do_not_overflow() -> None:
    hazard = baseline_hazard(TINY, X + 800)
    plain = baseline_hazard(TINY, X)
    assert hazard.survival(X + 800, [2, 4]) == pytest.approx(plain.survival(X, [2, 4]))
