"""Facts alone as predictors: no gain where there is none to have."""

import tracemalloc

import numpy as np
import pytest

from medtool.score.confounders import PRIOR_CASES, confounder_aurocs, confounders_text
from medtool.score.delong import DeLong


def _auroc(values, labels, patients=None):
    facts = [{"fact": value} for value in values]
    ids = patients or [str(n) for n in range(len(labels))]
    (row,) = confounder_aurocs(facts, labels, ids)
    return row


def test_one_scanner_for_all_predicts_nothing():
    row = _auroc(["GE"] * 20, [0, 1] * 10)
    assert (row["auroc"], row["how"]) == (0.5, "the same in every case")


def test_a_scanner_of_its_own_for_every_case_predicts_nothing():
    assert _auroc([f"scanner {n}" for n in range(20)], [0, 1] * 10)["auroc"] == 0.5


def test_a_scanner_for_each_class_predicts_everything():
    row = _auroc(["GE", "Siemens"] * 10, [0, 1] * 10)
    assert row["auroc"] == 1.0


def test_two_scanners_by_hand():
    # Positives: 9 in A, 3 in B; negatives: 3 in A, 9 in B. With both of a pair left out (and the
    # prior pulling equally), A stays the richer scanner for every pair that differs: 8 of 11
    # against 3 of 11, chi-square 4.5 of 1 degree of freedom.
    values = ["A"] * 9 + ["B"] * 3 + ["A"] * 3 + ["B"] * 9
    # A positive in A beats a negative in B: 9 x 9 pairs; A with A and B with B tie: 27 + 27;
    # the positives in B lose to the negatives in A: 9.
    assert _auroc(values, [1] * 12 + [0] * 12)["auroc"] == pytest.approx((81 + 27) / 144)


@pytest.mark.parametrize(("cases", "scanners"), [(8, 2), (20, 2), (40, 2), (64, 4), (96, 3)])
def test_a_sample_that_is_balanced_to_the_last_case_reads_one_half(cases, scanners):
    # As many positives as negatives on every scanner: nothing to learn, and no worse than that.
    values = [f"k{n // 2 % scanners}" for n in range(cases)]
    assert _auroc(values, [0, 1] * (cases // 2))["auroc"] == 0.5


def test_a_scanner_for_each_class_is_found_among_many_small_ones():
    # Ten scanners with two patients each: who shares the scanner tells.
    assert _auroc([f"k{n // 2}" for n in range(20)], [n // 2 % 2 for n in range(20)])["auroc"] == 1


def test_chance_gives_one_half_in_the_mean():
    found = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        labels = draw.permutation(np.repeat([0, 1], 30))
        found.append(_auroc([f"k{v}" for v in draw.integers(0, 4, 60)], labels)["auroc"])
    # Standard error of the mean of 60: about 0.01.
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)


def test_studies_of_one_patient_do_not_vouch_for_each_other():
    # Every patient has a scanner of its own and two studies with one label.
    patients = [f"P{n // 2}" for n in range(20)]
    labels = [n // 2 % 2 for n in range(20)]
    assert _auroc([f"scanner {p}" for p in patients], labels, patients)["auroc"] == 0.5


def _rates_without(values, labels, patients, left_out):
    """Each category's rate, and whether the rates differ, counted anew without two patients."""
    kept = [n for n, patient in enumerate(patients) if patient not in left_out]
    whole = np.asarray([labels[n] for n in kept], dtype=float)
    prior = (whole.sum() + 0.5) / (whole.size + 1.0)
    found = {k: [labels[n] for n in kept if values[n] == k] for k in sorted(set(values))}
    rates = {
        k: (sum(one) + PRIOR_CASES * prior) / (len(one) + PRIOR_CASES) for k, one in found.items()
    }
    there = [one for one in found.values() if one]
    rate = whole.mean() if kept else 0.0
    excess = sum(sum(one) ** 2 / len(one) for one in there) - whole.sum() * rate
    return rates, excess > (len(there) - 1) * rate * (1 - rate) + 1e-12


def _by_hand(values, labels, patients):
    """The AUROC and its interval from the matrix of all pairs, each counted by itself."""
    positive = [n for n, label in enumerate(labels) if label == 1]
    negative = [n for n, label in enumerate(labels) if label == 0]
    wins = np.full((len(positive), len(negative)), np.nan)
    for row, i in enumerate(positive):
        for column, j in enumerate(negative):
            if patients[i] == patients[j]:
                continue
            rates, differ = _rates_without(values, labels, patients, {patients[i], patients[j]})
            difference = rates[values[i]] - rates[values[j]]
            tied = abs(difference) < 1e-12 or not differ
            wins[row, column] = 0.5 if tied else float(difference > 0)
    variance = 0.0
    for placements, cases in ((np.nanmean(wins, 1), positive), (np.nanmean(wins, 0), negative)):
        _, cluster = np.unique([patients[n] for n in cases], return_inverse=True)
        k = cluster.max() + 1
        sums = np.bincount(cluster, placements - placements.mean())
        variance += (sums**2).sum() / placements.size**2 * k / (k - 1)
    auc = float(np.nanmean(wins))
    low, high = DeLong(np.asarray([auc]), np.asarray([[variance]])).logit(0, 0.95)
    return auc, low, high


@pytest.mark.parametrize("pairs_at_once", [7, 500_000])
@pytest.mark.parametrize(
    ("cases", "patients", "scanners"), [(24, 24, 3), (40, 12, 4), (40, 25, 40), (30, 30, 15)]
)
def test_the_numbers_are_those_of_the_matrix_of_all_pairs(
    cases, patients, scanners, pairs_at_once, monkeypatch
):
    monkeypatch.setattr("medtool.score.confounders.CHUNK_PAIRS", pairs_at_once)
    for seed in range(5):
        draw = np.random.default_rng(seed)
        numbers = draw.permutation(np.arange(cases) % patients)
        ids = [f"P{n}" for n in numbers]
        labels = draw.integers(0, 2, cases)
        # The label shows in the scanner of every other sample.
        values = [f"k{n}" for n in (draw.integers(0, scanners, cases) + seed % 2 * labels)]
        row = _auroc(values, labels, ids)
        found = row["auroc"], row["low"], row["high"]
        assert found == pytest.approx(_by_hand(values, labels, ids), abs=1e-12)


@pytest.mark.parametrize("scanners", [3, 4000])
def test_memory_grows_with_the_cases_not_with_the_pairs(scanners, monkeypatch):
    monkeypatch.setattr("medtool.score.confounders.CHUNK_PAIRS", 50_000)
    n = 4000
    draw = np.random.default_rng(0)
    values = [f"k{v}" for v in draw.integers(0, scanners, n)]
    tracemalloc.start()
    try:
        row = _auroc(values, [0, 1] * (n // 2))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.4 < row["auroc"] < 0.6
    # One matrix of all pairs is 32 MB, one of patients by scanners up to 128 MB.
    assert peak_bytes < 16e6


def test_a_number_counts_in_its_better_direction_and_says_so():
    low = _auroc([float(n) for n in range(10)], [1] * 5 + [0] * 5)
    assert low["auroc"] == 1.0
    assert low["how"] == "number, better of the two directions"
    assert low["low"] <= low["high"]


def test_unknown_values_are_left_out_and_counted():
    row = _auroc([None, "", *map(float, range(10))], [0, 1] + [0, 1] * 5)
    assert row["n"] == 10


def test_too_few_cases_say_so():
    row = _auroc([1.0, 2.0, 3.0], [0, 1, 0])
    assert np.isnan(row["auroc"])
    assert row["how"] == "too few cases"


def test_lists_are_no_facts():
    facts = [{"hashes": ["a"], "kernel": "x" if n % 2 else "y"} for n in range(12)]
    rows = confounder_aurocs(facts, [0, 1] * 6, [str(n) for n in range(12)])
    assert [row["fact"] for row in rows] == ["kernel"]


def test_the_line_for_a_person_leaves_out_what_was_not_measured():
    rows = [
        {"fact": "slices", "auroc": 0.5125, "low": 0.4, "high": 0.62},
        {"fact": "kernel", "auroc": float("nan"), "low": float("nan"), "high": float("nan")},
    ]
    assert confounders_text(rows) == (
        "AUROC of facts of the scan alone: slices 0.512 (0.400 to 0.620)"
    )
    assert confounders_text(rows[1:]) == ""
