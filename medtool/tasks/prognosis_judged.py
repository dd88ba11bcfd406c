"""One case of a prognosis beside what is known of it, without its images: scores are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.records import Outcome, Prediction, Truth
from medtool.score.overlap import Mask, overlap
from medtool.score.segmentation import SegmentationOptions
from medtool.score.segmentation_columns import ScoredCase
from medtool.score.uncertainty_quality import voxel_quality
from medtool.score.uncertainty_summary import UncertainCase
from medtool.tasks.prognosis_answers import UNCERTAINTY
from medtool.tasks.prognosis_labels import TRUE_RISK
from medtool.tasks.segmentation_labels import MASK, has_regions, structures
from medtool.tasks.segmentation_predict import PROBABILITIES
from medtool.tasks.segmentation_scores import options_of, scored_case

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.prognosis_settings import PrognosisSettings


@dataclass(frozen=True)
class JudgedCase:
    """What was said of a case and what is known of it.

    ``masks`` and ``doubt`` are None where there is no mask to compare, or no uncertainty;
    ``true_risk`` is NaN but for synthetic patients; ``volume_ml`` is that of the reference.
    """

    case: str
    patient: str
    said: Mapping[str, Any]
    outcome: Outcome | None
    true_risk: float
    masks: ScoredCase | None
    doubt: UncertainCase | None
    volume_ml: float

    @property
    def invented(self) -> bool:
        """Whether something is marked where the reference has nothing at all."""
        rows = self.masks.rows if self.masks is not None else ()
        there = any(row["tp"] + row["fn"] for row in rows)
        return not there and any(row["fp"] for row in rows)

    def number(self, column: str) -> float:
        """A column of the answer; NaN where it is empty."""
        value = self.said.get(column)
        return nan if value is None or value == "" else float(value)


def mask_options(settings: PrognosisSettings) -> SegmentationOptions:
    """Overlaps of cases with lesions only; lesions of all labels, unless some are named."""
    counted = settings.metrics.lesions or structures(settings.data)
    return replace(options_of(settings), lesions=tuple(counted), where_present=True)


def judge(
    settings: PrognosisSettings, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> list[JudgedCase]:
    """Every case, one in memory at a time, in the order of their ids.

    Raises CaseRefused where a mask and its reference are on different grids.
    """
    pairs = zip(predictions, truths, strict=True)
    return sorted((_judged(settings, one, known) for one, known in pairs), key=lambda j: j.case)


def _judged(settings: PrognosisSettings, prediction: Prediction, truth: Truth) -> JudgedCase:
    masks, doubt, volume_ml = None, None, nan
    if MASK in prediction.arrays and MASK in truth.arrays:
        options = mask_options(settings)
        known = structures(settings.data)
        masks = scored_case(settings, known, prediction, truth, options=options)
        reference = truth.arrays[MASK] > 0
        answer = prediction.arrays[MASK] > 0
        if settings.data.ignore_id is not None:
            used = truth.arrays[MASK] != settings.data.ignore_id
            reference, answer = reference & used, answer & used
        spacing_mm = prediction.grids[MASK].spacing_mm[::-1]
        volume_ml = float(reference.sum()) * float(np.prod(spacing_mm)) / 1000.0
        if PROBABILITIES in prediction.arrays and UNCERTAINTY in prediction.arrays:
            doubt = _doubt(settings, prediction, answer, reference, spacing_mm)
    return JudgedCase(
        case=prediction.case_id,
        patient=prediction.patient_id,
        said=prediction.scalars,
        outcome=truth.outcome,
        true_risk=float(truth.arrays[TRUE_RISK]) if TRUE_RISK in truth.arrays else nan,
        masks=masks,
        doubt=doubt,
        volume_ml=volume_ml,
    )


def _doubt(
    settings: PrognosisSettings,
    prediction: Prediction,
    answer: Mask,
    reference: Mask,
    spacing_mm: Sequence[float],
) -> UncertainCase:
    """How the doubts of a case fit its errors, of all labels together."""
    counts = overlap(answer, reference, answer.size)
    said = prediction.scalars.get(UNCERTAINTY)
    return UncertainCase(
        case=prediction.case_id,
        patient=prediction.patient_id,
        uncertainty=nan if said is None else float(said),
        dice=float(counts.metrics()["dice"]) if reference.any() else nan,
        voxels=voxel_quality(
            _tumour_chance(prediction.arrays[PROBABILITIES], regions=has_regions(settings.data)),
            prediction.arrays[UNCERTAINTY],
            answer,
            reference,
            spacing_mm,
        ),
        invented=bool(answer.any() and not reference.any()),
    )


def _tumour_chance(chances: NDArray[np.floating[Any]], *, regions: bool) -> NDArray[np.float64]:
    """(z, y, x) probability of any label, from those of each (labels, z, y, x)."""
    found = chances.max(axis=0) if regions else chances.sum(axis=0)
    return np.asarray(np.clip(found.astype(np.float64), 0.0, 1.0))
