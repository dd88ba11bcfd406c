"""Masks beside their references, case by case, and what is said of all of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from medtool.core.records import Prediction, Scores, Truth
from medtool.data.grids import require_same_grid
from medtool.score.lesions import LesionRule
from medtool.score.segmentation import SegmentationOptions, score_structures
from medtool.score.segmentation_columns import APART, BY_CASE, ScoredCase
from medtool.score.segmentation_summary import OVERALL, summarise_structures
from medtool.tasks.segmentation_labels import MASK, structures

if TYPE_CHECKING:
    from medtool.tasks.segmentation_settings import SegmentationSettings


def options_of(settings: SegmentationSettings) -> SegmentationOptions:
    """What is computed, as the preset says."""
    metrics = settings.metrics
    return SegmentationOptions(
        tolerance_mm=metrics.nsd_tolerances_mm,
        default_tolerance_mm=metrics.nsd_tolerance_mm,
        ignore_label=settings.data.ignore_id,
        lesions=tuple(metrics.lesions),
        lesion_rule=LesionRule(
            metrics.lesion_neighbours, metrics.lesion_rule, metrics.lesion_share
        ),
    )


def score_masks(
    settings: SegmentationSettings, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> Scores:
    """Every metric of every structure; one case in memory at a time.

    ``per_case`` has a row a case with ``error`` (1 - mean Dice) and, in words, what it scored.
    Raises CaseRefused where a mask and its reference are on different grids.
    """
    known = structures(settings.data)
    cases = [
        scored_case(settings, known, prediction, truth)
        for prediction, truth in zip(predictions, truths, strict=True)
    ]
    return summarised(settings, cases)


def scored_case(
    settings: SegmentationSettings,
    known: Mapping[str, tuple[int, ...]],
    prediction: Prediction,
    truth: Truth,
    options: SegmentationOptions | None = None,
) -> ScoredCase:
    """One case in the structures ``known`` (name -> ids). Raises CaseRefused as above."""
    grid, found = truth.grids.get(MASK), prediction.grids.get(MASK)
    if grid is not None and found is not None:
        require_same_grid(grid, found, names=("reference", "mask"), where=prediction.case_id)
    rows = score_structures(
        prediction.arrays[MASK],
        truth.arrays[MASK],
        None if grid is None else grid.spacing_mm[::-1],
        known,
        options or options_of(settings),
    )
    return ScoredCase(prediction.case_id, prediction.patient_id, rows)


def summarised(
    settings: SegmentationSettings,
    cases: Sequence[ScoredCase],
    *,
    apart: Collection[str] = (),
    options: SegmentationOptions | None = None,
    overall: Sequence[str] = OVERALL,
) -> Scores:
    """All cases together; structures named in ``apart`` are in no mean over structures, of which
    those of ``overall`` are told.
    """
    scores = summarise_structures(
        cases,
        options or options_of(settings),
        metrics=settings.metrics,
        apart=apart,
        overall=overall,
    )
    return replace(
        scores,
        per_case=tuple(_case_row(case, apart) for case in cases),
        tables={
            **scores.tables,
            BY_CASE: list(scores.per_case),
            **({APART: sorted(apart)} if apart else {}),
        },
    )


def _case_row(case: ScoredCase, apart: Collection[str]) -> dict[str, Any]:
    """A case as one row: how wrong, and in words."""
    dices = {str(row["structure"]): float(row["dice"]) for row in case.rows}
    defined = [v for name, v in dices.items() if math.isfinite(v) and name not in apart]
    said = [
        f"Dice {name} {value:.3f}" if math.isfinite(value) else f"{name} absent in both masks"
        for name, value in dices.items()
    ]
    # Nothing there and nothing found is no error.
    error = 1.0 - fmean(defined) if defined else 0.0
    return {"case": case.case, "patient": case.patient, "error": error, "said": said}
