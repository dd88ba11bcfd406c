"""Threshold rules on cohorts small enough to see the answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.errors import LabelsError, UnknownNameError
from medtool.score.threshold import choose_threshold, with_margin

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


@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12),
    place=st.integers(0, 12),
)
def test_a_margin_changes_no_decision(scores, place):
    # Any observed score, or just above all of them.
    candidates = [*sorted(scores), np.nextafter(max(scores), np.inf)]
    threshold = candidates[min(place, len(scores))]
    moved = with_margin(threshold, scores)
    assert [s >= moved for s in scores] == [s >= threshold for s in scores]
    assert abs(moved - threshold) <= 1.001e-4


def test_the_case_that_set_a_threshold_keeps_its_decision_on_another_machine():
    # Seen with one thread instead of two: 0.41635206 became 0.41635203, positive became negative.
    moved = with_margin(0.41635206, [0.2, 0.41635206, 0.9])
    assert moved == pytest.approx(0.41625206)
    assert with_margin(0.3, [0.3, 0.29999]) == pytest.approx(0.299995)
    assert with_margin(0.5, [0.2, 0.9]) == 0.5
