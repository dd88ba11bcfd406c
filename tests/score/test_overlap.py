"""Counts of voxels and the shares made of them, by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_fixtures import FIXTURES

from medtool.score.overlap import Overlap, overlap


def test_shares_by_hand():
    reference = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    prediction = np.array([0, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    counted = overlap(prediction, reference)
    assert counted == Overlap(tp=3, fp=2, fn=1, tn=4)
    assert counted.reference_vox == 4
    assert counted.prediction_vox == 5
    assert counted.metrics() == pytest.approx(
        {
            "dice": 6 / 9,
            "iou": 3 / 6,
            "sensitivity": 3 / 4,
            "specificity": 4 / 6,
            "precision": 3 / 5,
            "relative_volume_error": 0.25,
        }
    )


def test_iou_of_the_boxes():
    known = FIXTURES["boxes"]
    shares = overlap(known.prediction, known.reference).metrics()
    assert shares["iou"] == pytest.approx(0.628205, abs=5e-7)


def test_empty_masks():
    both = Overlap(0, 0, 0, 10).metrics()
    assert all(isnan(both[name]) for name in both if name != "specificity")
    assert both["specificity"] == 1.0
    for shares in (Overlap(0, 0, 5, 5).metrics(), Overlap(0, 5, 0, 5).metrics()):
        assert shares["dice"] == shares["iou"] == 0.0
    assert isnan(Overlap(0, 5, 0, 5).metrics()["relative_volume_error"])


def test_voxels_outside_what_was_cut_out_are_true_negatives():
    mask = np.ones((2, 2), dtype=bool)
    assert overlap(mask, mask, voxels=100).tn == 96


@given(*[st.integers(0, 1000)] * 4)
def test_iou_follows_from_dice(tp, fp, fn, tn):
    shares = Overlap(tp, fp, fn, tn).metrics()
    if tp + fp + fn:
        assert shares["iou"] == pytest.approx(shares["dice"] / (2 - shares["dice"]))
    exchanged = Overlap(tp, fn, fp, tn).metrics()
    assert shares["dice"] == pytest.approx(exchanged["dice"], nan_ok=True)
    assert shares["precision"] == pytest.approx(exchanged["sensitivity"], nan_ok=True)
