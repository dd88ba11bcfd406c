"""Two models' masks compared: by hand, and what a comparison must not claim."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults
from medtool.score.paired import compare_segmentations, holm, wilcoxon
from medtool.score.segmentation import score_structures
from medtool.score.segmentation_columns import ScoredCase

REFERENCE = np.zeros((1, 10), dtype=np.int8)
REFERENCE[0, :4] = 1


def scored(found_vox: list[int], patients: list[str] | None = None) -> list[ScoredCase]:
    """Cases in which the first voxels of four are found."""
    cases = []
    for number, found in enumerate(found_vox):
        prediction = np.zeros_like(REFERENCE)
        prediction[0, :found] = 1
        rows = score_structures(prediction, REFERENCE, (1.0, 1.0), {"organ": (1,)})
        name = f"case{number}"
        cases.append(ScoredCase(name, patients[number] if patients else name, rows))
    return cases


def test_differences_by_hand():
    first, second = scored([4, 4, 2, 3]), scored([3, 4, 1, 0])
    dice, nsd, hd95 = compare_segmentations(first, second)
    assert [row.metric for row in (dice, nsd, hd95)] == ["dice", "nsd", "hd95_mm"]
    assert dice.first == pytest.approx((1 + 1 + 4 / 6 + 6 / 7) / 4)
    assert dice.second == pytest.approx((6 / 7 + 1 + 2 / 5 + 0) / 4)
    assert dice.difference == pytest.approx(dice.first - dice.second)
    assert dice.interval[0] <= dice.difference <= dice.interval[1]
    # Ranks of 1/7, 4/15 and 6/7 are all positive: 2 of 2^3 sign patterns are as extreme.
    assert dice.p_wilcoxon == pytest.approx(2 / 8)
    # An empty mask costs the diagonal of the image, 1 by 10 mm.
    assert hd95.second == pytest.approx((1 + 0 + 3 + sqrt(101)) / 4)
    assert hd95.n == 4
    assert "Holm" in dice.line()


def test_models_that_agree_do_not_differ():
    rows = compare_segmentations(scored([4, 2, 0]), scored([4, 2, 0]), compared=("dice",))
    (dice,) = rows
    assert (dice.difference, dice.p_bootstrap, dice.p_wilcoxon) == (0.0, 1.0, 1.0)


def test_patients_are_the_unit():
    """Ten cases of one patient are one observation, however sure they look."""
    whose = ["one"] * 10 + ["other"]
    first, second = scored([4] * 11, whose), scored([3] * 10 + [4], whose)
    (dice,) = compare_segmentations(first, second, compared=("dice",))
    assert dice.patients == 2
    assert dice.p_wilcoxon == 1.0
    assert dice.p_bootstrap > 0.2


def test_the_order_of_cases_does_not_matter():
    settings = MetricDefaults(bootstrap_draws=100)
    first, second = scored([4, 2, 3]), scored([1, 2, 4])
    turned = compare_segmentations(first, second[::-1], metrics=settings)
    assert turned == compare_segmentations(first, second, metrics=settings)


def test_other_cases_are_refused():
    with pytest.raises(UsageError, match="same cases") as refused:
        compare_segmentations(scored([4, 2]), scored([4, 2, 1]))
    assert "only one has case2" in str(refused.value)


def test_structures_are_paired_by_name():
    """From a fault: labels declared in another order were compared crosswise."""
    settings = MetricDefaults(bootstrap_draws=100)
    first = [
        replace(case, rows=[*case.rows, {**case.rows[0], "structure": "lesion", "dice": 0.5}])
        for case in scored([4, 2, 3])
    ]
    turned = [replace(case, rows=case.rows[::-1]) for case in first]
    found = compare_segmentations(first, turned, compared=("dice",), metrics=settings)
    assert [row.structure for row in found] == ["organ", "lesion"]
    assert all(row.difference == 0 for row in found)
    with pytest.raises(UsageError, match="different structures") as refused:
        compare_segmentations(first, scored([4, 2, 3]))
    assert refused.value.met == "organ, lesion and organ"


def test_only_metrics_that_both_have_are_compared():
    """From a fault: models of other columns ended in an error of Python's own."""
    short = [
        replace(case, rows=[{k: v for k, v in row.items() if k != "nsd"} for row in case.rows])
        for case in scored([4, 2])
    ]
    found = compare_segmentations(scored([4, 2]), short)
    assert [row.metric for row in found] == ["dice", "hd95_mm"]


def test_holm_by_hand():
    # Sorted: .01 x 4, .02 x 3, .03 x 2 (not below the one before), .04 x 1 likewise.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    adjusted = holm([nan, 0.02])
    assert isnan(adjusted[0])
    assert adjusted[1] == 0.02


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert [adjusted[i] for i in np.argsort(p_values)] == sorted(adjusted)


def test_wilcoxon_of_nothing():
    assert isnan(wilcoxon(np.empty(0)))
    assert wilcoxon(np.zeros(5)) == 1.0
    # Five differences of one sign: 2 of 2^5 sign patterns are as extreme.
    assert wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(1 / 16)
