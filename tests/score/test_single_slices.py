"""Volumes of one slice: contours in the plane, by hand and from scipy's distance transforms.

In three dimensions the faces of a slice were surface as well: two contours 6 mm apart then had a
surface Dice of 0.8 and a mean distance of half a millimetre.
"""

from __future__ import annotations

from dataclasses import replace
from math import hypot, isnan

import numpy as np
import pytest
from mask_fixtures import ball
from scipy import ndimage

from medtool.score.lesions import LesionRule
from medtool.score.segmentation import DISTANCES, SegmentationOptions, score_structures
from medtool.score.segmentation_columns import ScoredCase
from medtool.score.segmentation_summary import summarise_structures

OPTIONS = SegmentationOptions(default_tolerance_mm=2.9)


def row_of(prediction, reference, spacing_mm, options=OPTIONS):
    (row,) = score_structures(
        prediction.astype(np.uint8),
        reference.astype(np.uint8),
        spacing_mm,
        {"organ": (1,)},
        options,
    )
    return row


# --- by hand --------------------------------------------------------------------------------
@pytest.mark.parametrize("across", [0, 1, 2])
def test_two_pixels_beside_each_other_in_a_slice(across):
    """Pixels of 1 by 3 mm: two of their corners are shared, two are 3 mm from the other's."""
    plane = np.zeros((2, 3, 4), dtype=bool)
    plane[0, 1, 1] = plane[1, 1, 2] = True
    one, two = np.expand_dims(plane, across + 1)
    spacing_mm = [1.0, 3.0]
    spacing_mm.insert(across, 8.0)
    row = row_of(one, two, spacing_mm)
    assert row["nsd"] == 0.5
    assert row["hd_mm"] == row["hd95_mm"] == 3.0
    assert row["prediction_to_reference_mm"] == row["reference_to_prediction_mm"] == 1.5
    assert row["assd_mm"] == 3.0
    assert row["surface_axes"] == 2
    assert row["image_diagonal_mm"] == pytest.approx(hypot(3 * 1.0, 4 * 3.0))
    # What is no surface stays that of a volume.
    assert row["prediction_ml"] == row["reference_ml"] == pytest.approx(8 * 1 * 3 / 1000)
    assert "prediction_mm2" not in row


def test_an_empty_mask_of_a_slice_and_none_at_all():
    one, nothing = np.ones((1, 2, 2), bool), np.zeros((1, 2, 2), bool)
    row = row_of(one, nothing, (8.0, 1.0, 1.0))
    assert row["nsd"] == 0.0 and all(isnan(row[name]) for name in DISTANCES)
    row = row_of(nothing, nothing, (8.0, 1.0, 1.0))
    assert all(isnan(row[name]) for name in ("nsd", *DISTANCES))


def test_several_slices_of_which_one_is_marked_stay_a_volume():
    """The slices above and below were looked at, and are empty: the faces are surface."""
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    row = row_of(mask, mask, (8.0, 1.0, 1.0))
    assert row["surface_axes"] == 3


def test_lesions_of_a_slice_are_counted_as_in_a_volume_of_it():
    reference, prediction = np.zeros((2, 1, 3, 5), bool)
    reference[0, 0, 0] = reference[0, 2, 4] = prediction[0, 0, 0] = prediction[0, 2, 2] = True
    options = replace(OPTIONS, lesions=("organ",), lesion_rule=LesionRule())
    row = row_of(prediction, reference, (5.0, 2.0, 1.0), options)
    assert [row[f"lesion_{name}"] for name in ("tp", "fp", "fn", "f1")] == [1, 1, 1, 0.5]
    assert row["false_positive_ml"] == row["false_negative_ml"] == pytest.approx(0.01)


# --- beside distance transforms -------------------------------------------------------------
def contours(mask, spacing_mm):
    """Where contours pass, (rows + 1, columns + 1), and their length there in mm.

    Marching squares: a corner between four pixels is on the contour where they are not all alike.
    """
    padded = np.pad(mask, 1)
    left_up, up = padded[:-1, :-1], padded[:-1, 1:]
    left, here = padded[1:, :-1], padded[1:, 1:]
    inside = left_up.astype(int) + up + left + here
    down, right = spacing_mm
    lengths = np.where(inside % 2 == 1, 0.5 * hypot(down, right), 0.0)
    lengths[(inside == 2) & (left_up == up)] = right
    lengths[(inside == 2) & (left_up == left)] = down
    lengths[(inside == 2) & (left_up == here)] = hypot(down, right)
    return (inside > 0) & (inside < 4), lengths


def to_other(points, others, spacing_mm):
    """Distance of each point to the nearest of the others, by a distance transform."""
    return ndimage.distance_transform_edt(~others, sampling=spacing_mm)[points]


def share_passed(distances, lengths, percent):
    """The distance that so much of the length does not pass."""
    order = np.argsort(distances)
    reached = np.cumsum(lengths[order]) / lengths.sum()
    return distances[order][np.searchsorted(reached, percent / 100 - 1e-12)]


def numbers_of_two_dimensions(prediction, reference, spacing_mm, tolerance_mm):
    (ours, our_lengths), (theirs, their_lengths) = (
        contours(mask, spacing_mm) for mask in (prediction, reference)
    )
    there, back = to_other(ours, theirs, spacing_mm), to_other(theirs, ours, spacing_mm)
    our_lengths, their_lengths = our_lengths[ours], their_lengths[theirs]
    close = our_lengths[there <= tolerance_mm].sum() + their_lengths[back <= tolerance_mm].sum()
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, reference)]
    both = np.concatenate(
        [to_other(*edges, spacing_mm), to_other(*reversed(edges), spacing_mm)], axis=None
    )
    return {
        "nsd": close / (our_lengths.sum() + their_lengths.sum()),
        "hd_mm": max(there.max(), back.max()),
        "hd95_mm": max(share_passed(there, our_lengths, 95), share_passed(back, their_lengths, 95)),
        "prediction_to_reference_mm": there @ our_lengths / our_lengths.sum(),
        "reference_to_prediction_mm": back @ their_lengths / their_lengths.sum(),
        "assd_mm": both.mean(),
    }


def discs():
    """A disc of radius 20 pixels inside one of 24: 6 mm between their contours at 1.5 mm."""
    centre = (31.5, 31.5)
    return ball(64, centre, 20), ball(64, centre, 24), (1.5, 1.5)


def blobs(seed):
    """Random masks with pieces, holes and pixels at the border of the image."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(23, 31)), 1.5) > 0 for _ in "ab"]
    return (*smooth, tuple(rng.uniform(0.4, 3.0, size=2)))


@pytest.mark.parametrize("pair", [discs(), *(blobs(seed) for seed in range(4))])
@pytest.mark.parametrize("slice_mm", [1.0, 8.0])
def test_a_slice_has_the_numbers_of_two_dimensions(pair, slice_mm):
    prediction, reference, spacing_mm = pair
    expected = numbers_of_two_dimensions(prediction, reference, spacing_mm, 2.9)
    row = row_of(prediction[None], reference[None], (slice_mm, *spacing_mm))
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    flat = row_of(prediction, reference, spacing_mm)
    assert {name: flat[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_discs_that_lie_apart_are_not_close_however_thick_the_slice():
    prediction, reference, spacing_mm = discs()
    row = row_of(prediction[None], reference[None], (8.0, *spacing_mm))
    # In the plane every point is 4 pixels, 6 mm, from the other contour, but for their steps.
    assert row["nsd"] == 0.0
    assert 5.0 < row["assd_mm"] < 6.1
    assert 5.0 < row["reference_to_prediction_mm"] < 6.1


# --- what is said of it ---------------------------------------------------------------------
def scores_of(*shapes):
    masks = [np.ones(shape, np.uint8) for shape in shapes]
    rows = [row_of(mask, mask, (1.0,) * mask.ndim) for mask in masks]
    cases = [ScoredCase(str(n), str(n), [row]) for n, row in enumerate(rows)]
    return summarise_structures(cases, OPTIONS)


def test_conventions_say_whether_contours_or_surfaces_were_looked_at():
    volumes, slices = scores_of((3, 3, 3)), scores_of((1, 3, 3), (3, 3))
    mixed = scores_of((3, 3, 3), (1, 3, 3))

    def said(scores, name):
        return scores.metrics[f"{name}.organ"].convention

    for name in ("nsd", *DISTANCES):
        assert "contour" not in said(volumes, name)
        assert said(mixed, name).startswith(said(volumes, name).split("; with")[0])
        assert "single slices by their contours" in said(mixed, name)
    for name in ("nsd", "hd_mm", "hd95_mm", "prediction_to_reference_mm"):
        assert "contour" in said(slices, name)
        assert "surface" not in said(slices, name) and "area" not in said(slices, name)
    assert "edge pixels" in said(slices, "assd_mm")
    assert "tolerance 2.9 mm" in said(slices, "nsd")
    for name in ("dice", "iou", "precision"):
        assert said(mixed, name) == said(volumes, name)
