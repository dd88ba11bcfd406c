"""Lesions found, missed and invented: a known case, and each rule by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mask_fixtures import box

from medtool.core.errors import UsageError
from medtool.score.lesions import LesionRule, lesions

SIDE = (12, 12, 12)


@pytest.fixture
def known():
    """Two boxes and a chain of two voxels that touch by a corner; two predicted boxes."""
    reference = box(SIDE, *[(1, 4)] * 3) | box(SIDE, *[(8, 10)] * 3)
    reference[5, 10, 10] = reference[6, 11, 11] = True
    prediction = box(SIDE, (2, 5), (1, 4), (1, 4)) | box(SIDE, (1, 3), (8, 10), (1, 3))
    return prediction, reference


@pytest.mark.parametrize(
    ("connectivity", "missed", "f1"), [(6, 3, 1 / 3), (18, 3, 1 / 3), (26, 2, 0.4)]
)
def test_known_case(known, connectivity, missed, f1):
    counted = lesions(*known, LesionRule(connectivity=connectivity))
    assert (counted.found, counted.invented, counted.missed) == (1, 1, missed)
    assert counted.f1 == pytest.approx(f1)
    assert (counted.false_positive_vox, counted.false_negative_vox) == (8, 10)


def line(text: str):
    """A mask of one row: "##.#"."""
    return np.array([[char == "#" for char in text]])


def test_one_predicted_lesion_may_find_several_unless_they_are_paired():
    reference, prediction = line("##.##...."), line("#####....")
    touched = lesions(prediction, reference, LesionRule())
    assert (touched.found, touched.missed, touched.right, touched.invented) == (2, 0, 1, 0)
    paired = lesions(prediction, reference, LesionRule(criterion="iou", at_least=0.4))
    assert (paired.found, paired.missed, paired.right, paired.invented) == (1, 1, 1, 0)


def test_pairs_with_the_best_iou_come_first():
    # IoU of the predicted four with the reference's two lesions: 1/4 and 2/4 (the second wins).
    reference, prediction = line("#.##....#"), line("####....#")
    paired = lesions(prediction, reference, LesionRule(criterion="iou", at_least=0.2))
    assert (paired.found, paired.missed, paired.right, paired.invented) == (2, 1, 2, 0)
    strict = lesions(prediction, reference, LesionRule(criterion="iou", at_least=0.51))
    assert (strict.found, strict.missed, strict.right, strict.invented) == (1, 2, 1, 1)


def test_a_share_may_be_asked_for():
    reference, prediction = line("##########.."), line("#.........##")
    enough = lesions(prediction, reference, LesionRule(criterion="covered", at_least=0.1))
    assert (enough.found, enough.missed, enough.right, enough.invented) == (1, 0, 1, 1)
    less = lesions(prediction, reference, LesionRule(criterion="covered", at_least=0.11))
    assert (less.found, less.missed, less.right, less.invented) == (0, 1, 0, 2)
    # Touched, though not found: no volume of a component without any common voxel.
    assert (less.false_positive_vox, less.false_negative_vox) == (2, 0)


def test_neither_mask_has_a_lesion():
    nothing = np.zeros((3, 3), dtype=bool)
    assert isnan(lesions(nothing, nothing, LesionRule()).f1)
    something = ~nothing
    assert lesions(something, nothing, LesionRule()).f1 == 0.0
    assert lesions(nothing, something, LesionRule()).f1 == 0.0


@settings(max_examples=40)
@given(*[arrays.arrays(bool, (4, 5, 3))] * 2, st.sampled_from(["touch", "covered", "iou"]))
def test_every_lesion_is_counted_once(prediction, reference, criterion):
    counted = lesions(prediction, reference, LesionRule(criterion=criterion, at_least=0.3))
    exchanged = lesions(reference, prediction, LesionRule(criterion=criterion, at_least=0.3))
    assert counted.found + counted.missed == exchanged.right + exchanged.invented
    assert counted.false_positive_vox == exchanged.false_negative_vox
    same = lesions(reference, reference, LesionRule(criterion=criterion))
    assert same.missed == same.invented == 0


def test_what_is_no_rule_is_refused():
    with pytest.raises(UsageError, match="no rule"):
        LesionRule(connectivity=8)
    with pytest.raises(UsageError, match="out of range"):
        LesionRule(at_least=0.0)
