"""One case's rows: structures and regions, empty masks, ignored voxels, two dimensions."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
from mask_fixtures import FIXTURES

from medtool.core.errors import UsageError
from medtool.score.lesions import LesionRule
from medtool.score.segmentation import (
    DISTANCES,
    SegmentationOptions,
    score_structures,
)

PARTS = {"body": (1,), "lesion": (2,), "whole": (1, 2)}


def labels(text: str):
    """Rows of digits as a 2D array of label ids."""
    return np.array([[int(char) for char in row] for row in text.split()], dtype=np.uint8)


def rows_of(prediction, reference, spacing_mm, structures=None, **options):
    rows = score_structures(
        prediction, reference, spacing_mm, structures or PARTS, SegmentationOptions(**options)
    )
    return {row["structure"]: row for row in rows}


@pytest.mark.parametrize("name", FIXTURES)
def test_a_row_holds_the_numbers_of_the_independent_packages(name):
    known = FIXTURES[name]
    row = rows_of(
        known.prediction.astype(np.int16) * 7,
        known.reference.astype(np.int16) * 7,
        known.spacing_mm,
        {"organ": (7,)},
        tolerance_mm={"organ": 1.0},
    )["organ"]
    expected = {
        "dice": known.dice,
        "hd_mm": known.hausdorff_mm,
        "hd95_mm": known.hausdorff95_mm,
        "prediction_to_reference_mm": known.prediction_to_reference_mm,
        "reference_to_prediction_mm": known.reference_to_prediction_mm,
        "assd_mm": known.symmetric_mean_mm,
        "nsd": known.surface_dice_1mm,
        "tolerance_mm": 1.0,
    }
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=5e-7)
    voxel_ml = np.prod(known.spacing_mm) / 1000
    assert row["reference_ml"] == pytest.approx(known.reference.sum() * voxel_ml)
    assert row["prediction_ml"] == pytest.approx(known.prediction.sum() * voxel_ml)


def test_a_region_is_its_labels_taken_as_one():
    reference = labels("1122 1122 0000")
    prediction = labels("1112 1222 0000")
    rows = rows_of(prediction, reference, (1.0, 1.0))
    assert [rows["body"][key] for key in ("tp", "fp", "fn", "tn")] == [3, 1, 1, 7]
    assert rows["whole"]["dice"] == 1.0
    assert rows["lesion"]["dice"] == 0.75
    assert list(rows) == list(PARTS)


def test_areas_stand_in_place_of_volumes_in_two_dimensions():
    row = rows_of(labels("0110"), labels("0111"), (2.0, 0.5))["body"]
    assert row["prediction_mm2"] == 2.0
    assert row["reference_mm2"] == 3.0
    assert row["relative_volume_error"] == pytest.approx(-1 / 3)
    assert row["image_diagonal_mm"] == pytest.approx(sqrt(8.0))
    assert not any(key.endswith("_ml") for key in row)


def test_ignored_voxels_count_nowhere():
    reference = labels("1199 1199 0099")
    one = rows_of(labels("1100 1100 0000"), reference, (1, 1), ignore_label=9)["body"]
    other = rows_of(labels("1111 1122 0011"), reference, (1, 1), ignore_label=9)["body"]
    assert one == other
    assert [one[key] for key in ("tp", "fp", "fn", "tn")] == [4, 0, 0, 2]
    assert one["hd_mm"] == 0.0


def test_a_structure_that_neither_mask_has_is_undefined():
    row = rows_of(labels("1100"), labels("1000"), (1, 1), lesions=("lesion",))["lesion"]
    for name in ("dice", "iou", "sensitivity", "precision", "nsd", "lesion_f1", *DISTANCES):
        assert isnan(row[name]), name
    assert row["false_positive_mm2"] == row["false_negative_mm2"] == 0.0


@pytest.mark.parametrize(("prediction", "reference"), [("1000", "0000"), ("0000", "1000")])
def test_a_structure_that_one_mask_lacks_scores_nothing(prediction, reference):
    row = rows_of(labels(prediction), labels(reference), (1, 1), lesions=("body",))["body"]
    for name in ("dice", "iou", "nsd", "lesion_f1"):
        assert row[name] == 0.0, name
    for name in DISTANCES:
        assert isnan(row[name]), name


def test_lesions_are_counted_where_they_are_asked_for():
    reference, prediction = labels("20200 00000 20000"), labels("20000 00000 00022")
    rows = rows_of(
        prediction, reference, (1, 2), lesions=("lesion",), lesion_rule=LesionRule(connectivity=6)
    )
    lesion = rows["lesion"]
    assert [lesion[f"lesion_{key}"] for key in ("tp", "fp", "fn")] == [1, 1, 2]
    assert lesion["lesion_f1"] == pytest.approx(0.4)
    assert lesion["false_positive_mm2"] == lesion["false_negative_mm2"] == 4.0
    assert "lesion_f1" not in rows["whole"]


def test_surfaces_may_be_left_out():
    row = rows_of(labels("10"), labels("11"), (1, 1), surfaces=False)["body"]
    assert "hd95_mm" not in row
    assert row["dice"] == pytest.approx(2 / 3)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(UsageError, match="differ in shape") as refused:
        rows_of(labels("1100"), labels("11 00"), (1, 1))
    assert "1 x 4 and 2 x 2 voxels" in str(refused.value)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1, 0), (1, float("nan")), (1, -2)])
def test_a_spacing_that_does_not_fit_is_refused(spacing_mm):
    with pytest.raises(UsageError):
        rows_of(labels("1100"), labels("1100"), spacing_mm)
