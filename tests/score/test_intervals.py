"""The bootstrap by patient: what is drawn, what is redrawn, and what it must not believe."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medtool.score.intervals import (
    bca_interval,
    bootstrap,
    draw_patients,
    percentile_interval,
    row_weights,
    separated_interval,
    two_sided_p,
    wilson,
)
from medtool.score.ranking import auroc_levels, levels_weighted
from medtool.score.sample import binary_sample


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_stays_inside(pair):
    events, n = pair
    low, high = wilson(events, n)
    assert 0 <= low <= events / n <= high <= 1
    theirs = stats.binomtest(events, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_of_nothing_is_undefined():
    assert all(np.isnan(wilson(0, 0)))


def test_every_draw_has_both_classes_and_repeats_are_counted():
    sample = binary_sample([1] + [0] * 9, np.linspace(0, 1, 10))
    counts, redrawn = draw_patients(sample, 2000, seed=0)
    assert (counts[:, 0] > 0).all()
    assert (counts.sum(axis=1) == 10).all()
    # A draw lacks the one positive patient with probability (9/10)^10 = 0.349: 2000 kept draws
    # cost 2000 * 0.349 / 0.651 = 1071 repeats in the mean.
    assert 900 < redrawn < 1250


def test_a_patients_cases_are_drawn_together():
    sample = binary_sample([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], ["a", "b", "a", "b"])
    counts, _ = draw_patients(sample, 50, seed=1)
    (weights,) = row_weights(sample, counts)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 3]).all()


def test_copies_of_a_patients_case_do_not_narrow_the_interval():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    scores = generator.random(60) * 0.5 + 0.3 * labels
    patients = [f"P{n}" for n in range(60)]

    def width(times: int) -> float:
        sample = binary_sample(np.tile(labels, times), np.tile(scores, times), patients * times)

        def area(weights):
            return {"auroc": auroc_levels(levels_weighted(sample, weights))}

        low, high = bootstrap(sample, area, draws=1000, seed=3).percentile("auroc")
        return high - low

    assert width(5) == pytest.approx(width(1))


@pytest.mark.parametrize("elements", [1, 40, 4_000_000])
def test_the_jackknife_leaves_out_one_patient_after_the_other(elements, monkeypatch):
    monkeypatch.setattr("medtool.score.intervals.CHUNK_ELEMENTS", elements)
    generator = np.random.default_rng(2)
    patients = [f"P{n}" for n in generator.integers(0, 15, 40)]
    sample = binary_sample(generator.integers(0, 2, 40), generator.random(40), patients)

    def metrics(weights):
        levels = levels_weighted(sample, weights)
        return {"auroc": auroc_levels(levels), "cases": weights.sum(axis=1)}

    found = bootstrap(sample, metrics, draws=5, seed=0).jackknife
    wanted = metrics((1.0 - np.eye(len(sample.patients)))[:, sample.patient])
    for name, values in wanted.items():
        assert (found[name] == values).all()


def test_the_memory_of_the_jackknife_grows_with_the_patients_not_with_their_square(monkeypatch):
    monkeypatch.setattr("medtool.score.intervals.CHUNK_ELEMENTS", 100_000)
    n = 4000
    sample = binary_sample([0, 1] * (n // 2), np.random.default_rng(0).random(n))

    def area(weights):
        return {"auroc": auroc_levels(levels_weighted(sample, weights))}

    tracemalloc.start()
    try:
        found = bootstrap(sample, area, draws=10)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.jackknife["auroc"].shape == (n,)
    # One matrix of patients by patients is 128 MB.
    assert peak_bytes < 32e6


def test_the_same_seed_gives_the_same_interval():
    sample = binary_sample([0, 1] * 10, np.linspace(0, 1, 20))
    first, second = (draw_patients(sample, 10, seed=5)[0] for _ in range(2))
    assert (first == second).all()


def test_percentiles_are_numpys_over_what_is_defined():
    values = np.asarray([1.0, 2.0, 3.0, np.nan])
    assert percentile_interval(values, 0.5) == pytest.approx((1.5, 2.5))
    assert all(np.isnan(percentile_interval(np.asarray([1.0, np.nan, np.nan]))))


def test_bca_falls_back_on_percentiles_where_it_is_degenerate():
    values = np.arange(100.0)
    plain = percentile_interval(values)
    assert bca_interval(values, 50.0, np.full(10, 3.0)) == plain
    assert bca_interval(values, -1.0, np.arange(10.0)) == plain
    assert bca_interval(np.full(100, 2.0), 2.0, np.arange(10.0)) == (2.0, 2.0)


def test_perfect_separation_still_has_an_uncertainty():
    # Three disjoint pairs, all in order: Wilson of 3 in 3.
    sample = binary_sample([0, 0, 0, 0, 1, 1, 1], [0.1, 0.1, 0.2, 0.2, 0.8, 0.8, 0.9])
    assert separated_interval(sample, 1.0) == pytest.approx(wilson(3, 3))
    assert separated_interval(sample, 0.0) == pytest.approx(wilson(0, 3))


def test_the_bootstraps_p_counts_the_smaller_tail_plus_one():
    assert two_sided_p(np.asarray([1.0] * 99)) == pytest.approx(2 * 1 / 100)
    assert two_sided_p(np.asarray([-1.0, 1.0, 1.0])) == pytest.approx(1.0)
    assert two_sided_p(np.zeros(9)) == 1.0
