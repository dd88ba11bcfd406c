"""Many cases: means, medians and penalties by hand, intervals by patient, what is left out."""

from __future__ import annotations

import json
from math import isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults
from medtool.score.document import scores_from_document, scores_to_document
from medtool.score.lesions import LesionRule
from medtool.score.segmentation import SegmentationOptions, score_structures
from medtool.score.segmentation_columns import ScoredCase
from medtool.score.segmentation_summary import _medians, summarise_structures

PARTS = {"organ": (1, 2), "lesion": (2,)}
OPTIONS = SegmentationOptions(lesions=("lesion",), lesion_rule=LesionRule(connectivity=6))


def case(name: str, patient: str, prediction: str, reference: str) -> ScoredCase:
    """Two masks of one row, voxels of 3 mm by 4 mm."""
    masks = (np.array([[int(char) for char in text]]) for text in (prediction, reference))
    return ScoredCase(name, patient, score_structures(*masks, (3.0, 4.0), PARTS, OPTIONS))


# Lesion: Dice 2/3, none in either, 0 (missed), 0 (invented), 1.
CASES = [
    case("a1", "a", "1122000000", "1112000000"),
    case("a2", "a", "1111000000", "1111100000"),
    case("b", "b", "1100000000", "2110000000"),
    case("c", "c", "1200000000", "1100000000"),
    case("d", "d", "0112200000", "0112200000"),
]


@pytest.fixture(scope="module")
def scores():
    return summarise_structures(CASES, OPTIONS, metrics=MetricDefaults(bootstrap_draws=500))


def table_row(scores, structure, metric):
    rows = scores.tables["structures"]
    return next(r for r in rows if (r["structure"], r["metric"]) == (structure, metric))


def test_means_and_medians_by_hand(scores):
    lesion = table_row(scores, "lesion", "dice")
    assert lesion["n_valid"] == 4
    assert lesion["n_missing"] == 0
    assert lesion["mean"] == pytest.approx((2 / 3 + 0 + 0 + 1) / 4)
    assert lesion["median"] == pytest.approx((0 + 2 / 3) / 2)
    organ = (1 + 8 / 9 + 4 / 5 + 1 + 1) / 5
    assert scores.metrics["dice.organ"].value == pytest.approx(organ)
    assert scores.metrics["dice.organ"].n == 5
    assert scores.metrics["dice"].value == pytest.approx((organ + 5 / 12) / 2)


def test_a_mean_stands_beside_that_of_cases_that_have_the_structure(scores):
    present = scores.metrics["dice_where_present.lesion"]
    assert (present.value, present.n) == (pytest.approx((2 / 3 + 0 + 1) / 3), 3)
    assert "dice_where_present.organ" not in scores.metrics


def test_pooled_dice_sums_volumes_over_cases(scores):
    # Twice the common voxels over the voxels of both, summed over the cases.
    assert scores.metrics["dice_pooled.lesion"].value == pytest.approx(2 * 3 / (5 + 4))
    assert scores.metrics["dice_pooled.organ"].value == pytest.approx(2 * 16 / (16 + 18))


def test_lesions_are_pooled_too(scores):
    # Found 2, missed 1, invented 1.
    assert scores.metrics["lesion_f1_pooled.lesion"].value == pytest.approx(4 / 6)
    assert "components of 6 neighbours" in scores.metrics["lesion_f1.lesion"].convention


def test_distances_say_how_many_cases_are_missing_and_what_they_would_cost(scores):
    row = table_row(scores, "lesion", "hd95_mm")
    assert (row["n_valid"], row["n_missing"]) == (2, 2)
    # One voxel too many on one side: its far corners are 4 mm away. The image is 3 by 40 mm.
    assert row["mean"] == pytest.approx((4.0 + 0.0) / 2)
    diagonal = sqrt(3.0**2 + 40.0**2)
    assert row["penalised"] == pytest.approx((4.0 + 0.0 + 2 * diagonal) / 4)
    assert scores.metrics["hd95_mm_penalised.lesion"].value == row["penalised"]
    assert any(note.startswith("lesion: 2 cases have one empty mask") for note in scores.notes)
    organ = table_row(scores, "organ", "hd95_mm")
    assert organ["penalised"] == organ["mean"]


def test_trivial_dice_is_that_of_marking_every_voxel(scores):
    # Cases with 1, 1, 0 and 2 of 10 voxels: 2p / (1 + p).
    expected = (2 * 0.2 / 1.1 + 0 + 0.4 / 1.2) / 4
    trivial = scores.metrics["dice.lesion"]
    assert trivial.trivial == pytest.approx(expected)
    assert trivial.trivial_by == "every voxel marked"


def test_every_number_says_how_it_was_made(scores):
    for name, score in scores.metrics.items():
        assert score.convention, name
        assert score.interval, name
        assert isnan(score.low) or score.low <= score.value <= score.high, name
    assert "tolerance 2 mm" in scores.metrics["nsd.organ"].convention
    assert "5 cases of 4 patients" in scores.notes[0]


def test_all_cases_of_a_patient_are_drawn_together():
    """Copies of a case under one patient leave the interval as wide as it was."""
    alone = summarise_structures(CASES[2:], OPTIONS).metrics["dice.organ"]
    copied = summarise_structures([*CASES[2:]] * 10, OPTIONS).metrics["dice.organ"]
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert copied.n == 30


def test_scores_survive_their_document(scores):
    document = json.loads(json.dumps(scores_to_document(scores), allow_nan=False))
    back = scores_from_document(document)
    assert back.metrics["dice.lesion"] == scores.metrics["dice.lesion"]
    assert back.per_case[0]["case"] == "a1"
    assert {row["structure"] for row in back.per_case} == set(PARTS)


def test_a_structure_that_no_case_has_is_undefined_and_says_so():
    empty = [case("a", "a", "1100", "1100"), case("b", "b", "1000", "1100")]
    scores = summarise_structures(empty, OPTIONS)
    lesion = scores.metrics["dice.lesion"]
    assert isnan(lesion.value)
    assert lesion.n == 0
    assert lesion.convention.startswith("undefined in every case")
    assert scores.metrics["dice"].value == scores.metrics["dice.organ"].value


def test_no_case():
    assert summarise_structures([], OPTIONS).notes == ("No case to score.",)


def test_cases_of_other_structures_are_refused():
    other = ScoredCase("x", "x", CASES[0].rows[:1])
    with pytest.raises(UsageError, match="different structures"):
        summarise_structures([CASES[0], other], OPTIONS)


@given(
    st.lists(
        st.tuples(st.one_of(st.just(float("nan")), st.floats(-9, 9)), st.integers(0, 4)),
        min_size=1,
        max_size=9,
    )
)
def test_weighted_median_is_the_median_of_repeated_values(pairs):
    values, weights = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    (median,) = _medians(values, weights[None])
    repeated = np.repeat(values, weights.astype(int))
    repeated = repeated[np.isfinite(repeated)]
    if repeated.size:
        assert median == pytest.approx(np.median(repeated))
    else:
        assert isnan(median)
