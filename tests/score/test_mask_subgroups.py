"""Masks by groups of cases: means by hand, intervals by patient, and where they are put."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from medtool.core.records import Scores
from medtool.score.classification import MetricDefaults
from medtool.score.completion import completed
from medtool.score.mask_subgroups import mask_subgroup_table
from medtool.score.segmentation import score_structures
from medtool.score.segmentation_columns import APART, BY_CASE, ScoredCase

QUICK = MetricDefaults(bootstrap_draws=100)
PARTS = {"organ": (1, 2), "lesion": (2,)}


def case(name, patient, prediction, reference):
    masks = (np.array([[int(char) for char in text]]) for text in (prediction, reference))
    return ScoredCase(name, patient, score_structures(*masks, (1.0, 1.0), PARTS))


# Dice of the organ: 1 and 2/3 at the first site, 0.5 and 0 at the second.
CASES = [
    case("a", "p", "1100", "1100"),
    case("b", "p", "1000", "1100"),
    case("c", "q", "0111", "1000"),
    case("d", "r", "0110", "1100"),
]
SITES = ["one", "one", "two", "two"]


def test_a_row_for_each_structure_of_each_group():
    rows = mask_subgroup_table(CASES, {"site": SITES}, metrics=QUICK)
    assert [(row["by"], row["group"], row["structure"], row["n"]) for row in rows] == [
        ("site", "one", "organ", 2),
        ("site", "one", "lesion", 2),
        ("site", "two", "organ", 2),
        ("site", "two", "lesion", 2),
    ]
    first, lesion, second, _ = rows
    assert (first["patients"], second["patients"]) == (1, 2)
    assert first["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert second["dice"] == pytest.approx((0 + 1 / 2) / 2)
    # One patient is drawn again and again; of two, each may be drawn twice.
    assert first["dice_low"] == first["dice_high"] == pytest.approx(first["dice"])
    assert (second["dice_low"], second["dice_high"]) == pytest.approx((0.0, 0.5))
    assert first["hd95_mm"] == pytest.approx((0.0 + 1.0) / 2)
    # No case has a lesion in either mask.
    assert isnan(lesion["dice"]) and isnan(lesion["dice_low"])


def test_structures_apart_have_no_rows():
    rows = mask_subgroup_table(CASES, {"site": SITES}, metrics=QUICK, apart=("organ",))
    assert {row["structure"] for row in rows} == {"lesion"}


def test_scores_of_masks_are_completed_by_the_facts_that_are_known():
    by_case = [
        {"case": case.case, "patient": case.patient, **row} for case in CASES for row in case.rows
    ]
    bare = Scores({}, ({"case": "a"},), {BY_CASE: by_case, APART: ["organ"]})
    facts = {case.case: {"site": site} for case, site in zip(CASES, SITES, strict=True)}
    whole = completed(bare, facts=facts, subgroups=["site", "kernel"], metrics=QUICK)
    rows = whole.tables["subgroups"]
    assert [(row["by"], row["group"], row["structure"]) for row in rows] == [
        ("site", "one", "lesion"),
        ("site", "two", "lesion"),
    ]
    assert completed(bare, facts=facts, subgroups=["kernel"], metrics=QUICK) is bare
