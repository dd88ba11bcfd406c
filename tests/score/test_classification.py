"""Whole sets of scores: conventions, trivial values, intervals that are no lie."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.core.errors import UsageError
from medtool.core.records import Scores
from medtool.score.calibration import (
    calibration_errors,
    equal_mass_bins,
    equal_width_bins,
    reliability_table,
)
from medtool.score.classification import (
    FoldSelections,
    MetricDefaults,
    SelectionPart,
    binary_scores,
)
from medtool.score.completion import completed
from medtool.score.document import scores_from_document, scores_to_document
from medtool.score.intervals import wilson
from medtool.score.label_errors import suspected_label_errors
from medtool.score.sample import binary_sample
from medtool.score.subgroups import group_names

QUICK = MetricDefaults(bootstrap_draws=100)


def test_the_trivial_values_by_hand():
    # 4 of 10 positive; the model calls 5 positive.
    labels = [1] * 4 + [0] * 6
    scores = binary_scores(
        labels, [0.9, 0.8, 0.7, 0.1, 0.9, 0.6, 0.1, 0.1, 0.1, 0.1], threshold=0.5, metrics=QUICK
    ).metrics
    wanted = {
        "auroc": 0.5,
        "auprc": 0.4,
        "sensitivity": 0.5,
        "specificity": 0.5,
        "ppv": 0.4,
        "npv": 0.6,
        "f1": 2 * 0.4 / 1.4,
        "accuracy": 0.6,
        "balanced_accuracy": 0.5,
        "mcc": 0.0,
        "brier": 0.24,
        "brier_skill": 0.0,
    }
    assert {name: scores[name].trivial for name in wanted} == pytest.approx(wanted)
    assert all(scores[name].trivial_by for name in wanted)


def test_what_is_undefined_says_so():
    scores = binary_scores([1, 1, 1], [0.2, 0.6, 0.9], threshold=0.5, metrics=QUICK)
    for name in ("auroc", "specificity", "balanced_accuracy", "brier_skill"):
        assert np.isnan(scores.metrics[name].value)
        assert scores.metrics[name].convention == "undefined: one class only"
    assert scores.metrics["sensitivity"].value == pytest.approx(2 / 3)
    assert any("one class" in note for note in scores.notes)
    nobody = binary_scores([0, 1, 1], [0.2, 0.3, 0.4], threshold=0.5, metrics=QUICK).metrics
    assert nobody["ppv"].convention == "undefined: no case in the denominator"
    assert (nobody["mcc"].value, nobody["f1"].value) == (0.0, 0.0)


def test_no_case_at_all():
    scores = binary_scores([], [], threshold=0.5)
    assert scores.metrics == {}
    assert scores.notes == ("No case to score.",)


def test_a_logit_is_no_probability():
    with pytest.raises(UsageError, match="no probability"):
        binary_scores([0, 1], [-2.0, 3.0], threshold=0.5)


def test_shares_of_independent_cases_have_wilsons_interval_others_the_patients():
    labels, scores = [0, 1] * 10, np.linspace(0, 1, 20)
    alone = binary_scores(labels, scores, threshold=0.5, metrics=QUICK).metrics["sensitivity"]
    assert alone.interval == "Wilson"
    assert (alone.low, alone.high) == pytest.approx(wilson(5, 10))
    patients = [f"P{n // 2}" for n in range(20)]
    shared = binary_scores(labels, scores, patients, threshold=0.5, metrics=QUICK)
    assert shared.metrics["sensitivity"].interval == "bootstrap by patient"
    assert "delong_logit" not in shared.tables["intervals"][0]


def test_perfect_answers_do_not_get_an_interval_of_no_width():
    scores = binary_scores([0] * 5 + [1] * 5, [0.1] * 5 + [0.9] * 5, threshold=0.5, metrics=QUICK)
    area = scores.metrics["auroc"]
    assert (area.low, area.high) == pytest.approx(wilson(5, 5))
    assert np.isnan(scores.metrics["mcc"].low)
    assert scores.metrics["mcc"].interval.startswith("none")


def test_thresholds_of_folds_are_applied_case_by_case():
    labels, scores = [0, 1, 0, 1], [0.3, 0.4, 0.6, 0.7]
    found = binary_scores(labels, scores, threshold=[0.35, 0.35, 0.65, 0.65], metrics=QUICK)
    assert found.tables["confusion"] == {"tp": 2, "fp": 0, "tn": 2, "fn": 0}
    assert found.tables["decision"]["thresholds"] == [0.35, 0.65]
    assert found.tables["decision"]["threshold"] is None


def test_fixed_specificities_take_their_threshold_from_the_selection_part():
    selection = SelectionPart([0] * 10 + [1] * 2, [*np.linspace(0.0, 0.9, 10), 0.85, 0.95])
    found = binary_scores(
        [0, 0, 1, 1], [0.1, 0.9, 0.82, 0.99], threshold=0.5, selection=selection, metrics=QUICK
    )
    # Nine of ten negatives of the selection part lie below 0.85, its lowest positive.
    (row,) = [r for r in found.tables["fixed_specificity"] if r["target"] == 0.9]
    assert row["threshold"] == 0.85
    assert (row["sensitivity"], row["specificity"]) == (0.5, 0.5)
    own = binary_scores([0, 0, 1, 1], [0.1, 0.9, 0.82, 0.99], threshold=0.5, metrics=QUICK)
    assert "optimistic" in own.metrics["sensitivity_at_specificity_0.9"].convention


def test_fixed_specificities_of_folds_come_from_each_folds_own_selection_part():
    first = SelectionPart([0] * 10 + [1] * 2, [*np.linspace(0.0, 0.9, 10), 0.85, 0.95])
    # The second model's scores are a tenth of the first one's: so are its thresholds.
    second = SelectionPart(first.labels, np.asarray(first.probabilities) / 10)
    found = binary_scores(
        [0, 1, 1, 0, 1, 1],
        [0.2, 0.84, 0.86, 0.09, 0.084, 0.086],
        threshold=[0.5] * 3 + [0.05] * 3,
        selection=FoldSelections({"a": first, "b": second}, ["a"] * 3 + ["b"] * 3),
        metrics=QUICK,
    )
    (row,) = [r for r in found.tables["fixed_specificity"] if r["target"] == 0.9]
    # At 0.85 and 0.085: one of two positives of each fold, and the second fold's negative.
    assert (row["sensitivity"], row["specificity"], row["threshold"]) == (0.5, 0.5, None)
    assert row["threshold_from"] == "each fold's selection part"
    score = found.metrics["sensitivity_at_specificity_0.9"]
    assert score.value == 0.5
    assert score.convention.startswith("threshold 0.085 to 0.85 from each fold's selection part")


def test_completion_adds_subgroups_and_keeps_the_rest():
    labels, scores = [0, 1] * 10, np.linspace(0, 1, 20)
    names = [f"C{n}" for n in range(20)]
    bare = binary_scores(labels, scores, threshold=0.5, metrics=QUICK, cases=names)
    facts = {name: {"kernel": "soft" if n < 8 else "hard"} for n, name in enumerate(names)}
    whole = completed(bare, facts=facts, subgroups=["kernel", "age"], metrics=QUICK, selection=bare)
    assert [(r["by"], r["group"], r["n"]) for r in whole.tables["subgroups"]] == [
        ("kernel", "hard", 12),
        ("kernel", "soft", 8),
    ]
    assert whole.metrics["auroc"] == bare.metrics["auroc"]
    sources = {row["threshold_from"] for row in whole.tables["fixed_specificity"]}
    assert sources == {"the selection part"}
    other = Scores({}, ({"case": "a", "dice": 0.9},))
    assert completed(other, facts={}, subgroups=[], metrics=QUICK) is other


COHORTS = st.lists(
    st.tuples(st.integers(0, 1), st.floats(0, 1), st.integers(0, 9)), min_size=1, max_size=30
)


@settings(max_examples=40, deadline=None)
@given(COHORTS)
def test_a_document_is_strict_json_and_gives_the_scores_back(rows):
    scores = binary_scores(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [f"P{row[2]}" for row in rows],
        threshold=0.5,
        metrics=QUICK,
        cases=[f"C{n}" for n in range(len(rows))],
        subgroups={"parity": [row[2] % 2 for row in rows]},
    )
    document = json.loads(json.dumps(scores_to_document(scores), allow_nan=False))
    back = scores_from_document(document)
    assert back.metrics.keys() == scores.metrics.keys()
    for name, score in scores.metrics.items():
        assert vars(back.metrics[name]) == pytest.approx(vars(score), nan_ok=True)
    assert back.per_case == scores.per_case
    for score in scores.metrics.values():
        if np.isfinite(score.low):
            assert score.low <= score.high


def test_another_document_is_refused():
    with pytest.raises(UsageError, match="no document of scores"):
        scores_from_document({"metrics": {}})


class TestCalibration:
    def test_a_probability_on_an_edge_belongs_to_the_bin_above(self):
        # 0.7 * 10 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996 in binary.
        assert equal_width_bins(np.asarray([0.0, 0.1, 0.3, 0.7, 0.95, 1.0])).tolist() == [
            0, 1, 3, 7, 9, 9,
        ]  # fmt: skip
        assert equal_width_bins(np.asarray([0.29]), 100).tolist() == [29]

    def test_equal_probabilities_share_an_equal_mass_bin(self):
        index = equal_mass_bins(np.asarray([0.1, 0.2, 0.2, 0.2, 0.3, 0.4]), 3)
        assert index.tolist() == [0, 0, 0, 0, 2, 2]

    def test_errors_by_hand(self):
        # One bin says 0.25 and sees 1/2, another says 0.75 and sees 1.
        sample = binary_sample([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75])
        found = calibration_errors(sample)
        assert found == pytest.approx({"ece": 0.25, "mce": 0.25, "adaptive_ece": 0.25})
        rows = reliability_table(sample)
        assert [(r.n, r.mean_probability, r.observed_rate) for r in rows] == [
            (2, 0.25, 0.5),
            (2, 0.75, 1.0),
        ]


class TestSubgroups:
    def test_many_numbers_are_shown_in_thirds(self):
        names = group_names([float(n) for n in range(9)])
        assert {name: names.count(name) for name in names} == {
            "below 2.667": 3,
            "2.667 to 5.333": 3,
            "above 5.333": 3,
        }

    def test_few_numbers_words_and_unknowns_stay_what_they_are(self):
        assert group_names([1.0, 3.0, None]) == ["1", "3", "not known"]
        assert group_names(["GE", "", "Siemens"]) == ["GE", "not known", "Siemens"]

    def test_rare_words_are_put_together(self):
        names = group_names([f"scanner {n}" for n in range(20)] + ["scanner 0"] * 3)
        assert names.count("other") == 8
        assert names.count("scanner 0") == 4


def test_labels_that_are_contradicted_with_confidence_are_suspected():
    rows = [
        *({"case": f"n{k}", "label": 0, "probability": 0.1} for k in range(6)),
        *({"case": f"p{k}", "label": 1, "probability": 0.9} for k in range(6)),
        {"case": "odd", "label": 0, "probability": 0.97},
        {"case": "unsure", "label": 0, "probability": 0.6},
    ]
    assert [row["case"] for row in suspected_label_errors(rows)] == ["odd"]
    assert suspected_label_errors(rows[:8]) == []
