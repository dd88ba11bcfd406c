"""Facts alone as predictors: no gain where there is none to have."""

import numpy as np
import pytest

from medtool.score.confounders import confounder_aurocs, confounders_text


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
