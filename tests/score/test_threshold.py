"""Threshold rules on cohorts small enough to see the answer."""

import pytest

from medtool.core.errors import LabelsError, UnknownNameError
from medtool.score.threshold import choose_threshold

LABELS = [0, 0, 1, 0, 1, 1]
SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("rule", "target", "wanted"),
    [
        # sens + spec - 1 is 2/3 at 0.3 (1 + 2/3 - 1) and at 0.5 (2/3 + 1 - 1): the lower.
        ("youden", 0.0, 0.3),
        # F1: 6/7 at 0.3, 4/5 at 0.5.
        ("f1", 0.0, 0.3),
        ("sensitivity", 1.0, 0.3),
        ("sensitivity", 0.6, 0.5),
        ("specificity", 1.0, 0.5),
        ("specificity", 0.6, 0.3),
        ("fixed", 0.37, 0.37),
    ],
)
def test_rules_by_hand(rule, target, wanted):
    assert choose_threshold(LABELS, SCORES, rule, target) == wanted


def test_costs_move_the_threshold():
    # A missed positive costs ten: catch all. A false alarm costs ten: none.
    assert choose_threshold(LABELS, SCORES, "cost", cost_fn=10.0) == 0.3
    assert choose_threshold(LABELS, SCORES, "cost", cost_fp=10.0) == 0.5


def test_among_equal_optima_the_middle_one():
    labels, scores = [0, 1, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    # J = 1/3 at 0.2, 0.4 and 0.6: the middle.
    assert choose_threshold(labels, scores, "youden") == 0.4


def test_a_specificity_that_no_score_reaches_calls_nothing_positive():
    threshold = choose_threshold([1, 1, 0], [0.2, 0.3, 0.9], "specificity", 1.0)
    assert threshold > 0.9


def test_one_class_chooses_nothing():
    with pytest.raises(LabelsError, match="one class only"):
        choose_threshold([1, 1], [0.2, 0.3], "f1")


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(UnknownNameError) as refusal:
        choose_threshold([0, 1], [0.2, 0.3], "youdens")
    assert refusal.value.nearest == "youden"
