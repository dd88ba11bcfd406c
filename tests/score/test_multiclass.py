"""Several classes, beside a hand calculation and scikit-learn's published examples."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from medtool.core.errors import LabelsError, UsageError
from medtool.score.classification import MetricDefaults
from medtool.score.multiclass import multiclass_scores

CLASSES = ("cyst", "benign", "malignant")
#        right: 2 of 4 cysts, 3 of 3 benign, 1 of 2 malignant
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2]
ANSWERS = [0, 0, 1, 2, 1, 1, 1, 2, 0]


@pytest.fixture(scope="module")
def scores():
    patients = list("aabcdefgh")
    return multiclass_scores(LABELS, ANSWERS, CLASSES, patients, cases=list("ABCDEFGHI"))


def test_values_by_hand(scores):
    value = {name: score.value for name, score in scores.metrics.items()}
    f1 = {"cyst": 4 / 7, "benign": 6 / 7, "malignant": 1 / 2}
    assert {name: value[f"f1.{name}"] for name in CLASSES} == pytest.approx(f1)
    assert value["macro_f1"] == pytest.approx(sum(f1.values()) / 3)
    assert value["accuracy"] == pytest.approx(6 / 9)
    assert value["balanced_accuracy"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert [value[f"recall.{name}"] for name in CLASSES] == [0.5, 1.0, 0.5]
    assert [scores.metrics[f"recall.{name}"].n for name in CLASSES] == [4, 3, 2]


def test_what_is_trivial_always_answers_the_commonest_class(scores):
    # Four of nine are cysts: F1 8/13 for the cysts, 0 for the others.
    macro = scores.metrics["macro_f1"]
    assert macro.trivial == pytest.approx(8 / 13 / 3)
    assert macro.trivial_by == "always cyst"
    assert scores.metrics["accuracy"].trivial == pytest.approx(4 / 9)
    assert scores.metrics["recall.benign"].trivial == 0.0


def test_confusion_has_a_row_a_true_class(scores):
    assert scores.tables["confusion"] == [
        {"label": "cyst", "cyst": 2, "benign": 1, "malignant": 1},
        {"label": "benign", "cyst": 0, "benign": 3, "malignant": 0},
        {"label": "malignant", "cyst": 1, "benign": 0, "malignant": 1},
    ]
    assert scores.per_case[2] == {
        "case": "C",
        "patient": "b",
        "label": "cyst",
        "answer": "benign",
        "right": False,
    }


def test_intervals_hold_the_value_and_are_by_patient(scores):
    accuracy = scores.metrics["accuracy"]
    assert accuracy.low < accuracy.value < accuracy.high
    copied = multiclass_scores(LABELS * 5, ANSWERS * 5, CLASSES, list("aabcdefgh") * 5)
    assert copied.metrics["accuracy"].low == pytest.approx(accuracy.low)
    assert "9 cases of 8 patients (4 cyst, 3 benign, 2 malignant)" in scores.notes[0]


def test_a_class_that_is_nowhere_is_left_out():
    scores = multiclass_scores([0, 0, 1], [0, 1, 1], CLASSES)
    assert scores.metrics["macro_f1"].value == pytest.approx(2 / 3)
    assert isnan(scores.metrics["f1.malignant"].value)
    assert scores.metrics["f1.malignant"].convention.startswith("undefined in every case")
    assert scores.notes[1] == "No case has the label malignant."


def test_a_class_that_is_only_answered_counts_as_a_failure():
    scores = multiclass_scores([0, 0, 1], [0, 2, 1], CLASSES)
    assert scores.metrics["macro_f1"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.metrics["balanced_accuracy"].value == pytest.approx((0.5 + 1) / 2)


def test_two_classes_give_the_f1_that_is_known():
    """scikit-learn's documented example: y 0 1 2 0 1 2, said 0 2 1 0 0 1, macro F1 0.26..."""
    scores = multiclass_scores([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], CLASSES)
    assert scores.metrics["macro_f1"].value == pytest.approx(0.26666, abs=1e-4)


def test_draws_without_a_class_take_the_mean_of_the_others():
    settings = MetricDefaults(bootstrap_draws=300)
    scores = multiclass_scores([0, 1, 2], [0, 1, 2], CLASSES, metrics=settings)
    assert scores.metrics["macro_f1"].interval == "none, as every bootstrap draw gave the same"


@pytest.mark.parametrize("wrong", [[0, 1, 3], [0, 1, -1], [0, 1, 0.5], [0, 1, np.nan]])
def test_what_is_no_class_is_refused(wrong):
    with pytest.raises(LabelsError, match="no class"):
        multiclass_scores([0, 1, 2], wrong, CLASSES)


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(UsageError):
        multiclass_scores([0, 1], [0], CLASSES)
    with pytest.raises(UsageError):
        multiclass_scores([0, 1], [0, 1], CLASSES, ["a"])


def test_no_case():
    assert multiclass_scores([], [], CLASSES).notes == ("No case to score.",)
