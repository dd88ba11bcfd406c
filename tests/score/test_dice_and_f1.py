"""Masks and classes as one number: by hand, and with an interval that draws both together."""

from __future__ import annotations

import numpy as np
import pytest

from medtool.core.records import Scores
from medtool.score.dice_and_f1 import dice_and_f1
from medtool.score.multiclass import multiclass_scores
from medtool.score.segmentation import score_structures
from medtool.score.segmentation_columns import ScoredCase
from medtool.score.segmentation_summary import summarise_structures

KNOWN = {"organ": (1,), "lesion": (2,), "whole": (1, 2)}
CLASSES = ("cystic", "solid")


def scored(number: int, missed: int) -> ScoredCase:
    """Six voxels of organ, of which some are missed, beside four of lesion that are found."""
    reference = np.zeros((2, 6, 6), dtype=np.uint8)
    reference[0, 0], reference[1, 0, :4] = 1, 2
    prediction = reference.copy()
    prediction[0, 0, :missed] = 0
    rows = score_structures(prediction, reference, (1.0, 1.0, 1.0), KNOWN)
    return ScoredCase(f"c{number}", f"p{number}", rows)


CASES = [scored(0, 0), scored(1, 2), scored(2, 4), scored(3, 3)]
# Dice of the organ: 1, 8/10, 4/8, 6/9; of the lesion always 1.
DICE = ((1 + 0.8 + 0.5 + 2 / 3) / 4 + 1) / 2


def halves() -> tuple[Scores, Scores]:
    masks = summarise_structures(CASES, apart={"whole"})
    return masks, multiclass_scores([0, 1, 1], [0, 1, 0], CLASSES)


def test_a_structure_that_stands_apart_is_in_no_mean() -> None:
    masks, _ = halves()
    assert masks.metrics["dice"].value == pytest.approx(DICE)
    assert "dice.whole" in masks.metrics
    assert summarise_structures(CASES).metrics["dice"].value != pytest.approx(DICE)


def test_the_mean_of_both_by_hand() -> None:
    masks, classes = halves()
    # The class of the last case is not known: it counts in the masks only.
    found = dice_and_f1(
        CASES, masks, [0, 1, 1, None], [0, 1, 0, 1], classes, CLASSES, apart={"whole"}
    )
    # F1 of cystic 2/3, of solid 2/3.
    assert found.value == pytest.approx((DICE + 2 / 3) / 2)
    assert found.n == 4
    assert found.low <= found.value <= found.high
    trivial = (masks.metrics["dice"].trivial + classes.metrics["macro_f1"].trivial) / 2
    assert found.trivial == pytest.approx(trivial)
    assert found.trivial_by == "every voxel marked, always solid"
