"""docs/metrics.md explains every metric, and says what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medtool.score.lesions import CRITERIA
from medtool.score.multiclass import CONVENTIONS as OF_CLASSES
from medtool.score.segmentation import (
    DEFAULT_TOLERANCE_MM,
    SegmentationOptions,
    score_structures,
)
from medtool.score.segmentation_columns import ScoredCase
from medtool.score.segmentation_summary import summarise_structures

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"`([a-z0-9_]+)(?:\.NAME)?`", PAGE))


def cases(shape: tuple[int, ...]) -> list[ScoredCase]:
    """Two cases of one structure: found in part, and missed."""
    reference = np.ones(shape, dtype=np.uint8)
    options = SegmentationOptions(lesions=("lesion",))
    found = []
    for name, prediction in (("a", np.tril(reference)), ("b", 0 * reference)):
        rows = score_structures(
            prediction, reference, (1.0,) * len(shape), {"lesion": (1,)}, options
        )
        found.append(ScoredCase(name, name, rows))
    return found


def test_every_number_of_a_case_is_explained() -> None:
    for shape in ((3, 3), (3, 3, 3)):
        row = cases(shape)[0].rows[0]
        missing = set(row) - NAMES - {"structure", "image_diagonal_mm"}
        assert not missing


def test_every_number_of_many_cases_is_explained() -> None:
    scores = summarise_structures(cases((3, 3, 3)), SegmentationOptions(lesions=("lesion",)))
    told = {name.partition(".")[0] for name in scores.metrics}
    assert {name.removesuffix("_penalised") for name in told} <= NAMES
    keys = set(scores.tables["structures"][0]) - {"structure", "metric", "convention"}
    assert {key.removesuffix("_interval") for key in keys} <= NAMES


def test_every_number_of_classes_and_every_rule_is_explained() -> None:
    assert set(OF_CLASSES) | set(CRITERIA) <= NAMES


def test_the_default_tolerance_is_the_one_that_is_said() -> None:
    assert f"is {DEFAULT_TOLERANCE_MM:g} mm where" in PAGE.replace("\n", " ")
