"""Uncertainty of many cases against their errors: numbers with intervals, curve, review list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from medtool.core.errors import UsageError
from medtool.core.records import Scores
from medtool.score.calibration import BinSums, joined_sums
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import bootstrap
from medtool.score.numbers import bootstrap_score, bootstrap_table
from medtool.score.ranking import auroc_levels, divide, levels_weighted
from medtool.score.sample import BinarySample, FloatArray, patient_sample
from medtool.score.uncertainty_quality import (
    VOXEL_RULE,
    VoxelQuality,
    calibration_error_weighted,
    review_order,
    risk_area_weighted,
    risk_coverage,
    spearman_weighted,
)

# Tables of scores: those of uncertainty, and who is looked at first.
UNCERTAINTY, REVIEW = "uncertainty", "review"
# Below this Dice an answer is one that a person had better seen first.
FAILED_DICE = 0.7
_CONVENTIONS = {
    "uncertainty_spearman": "uncertainty of a case against 1 - Dice, over cases with both",
    "voxel_ece": VOXEL_RULE,
    "voxel_auroc": "uncertainty against error of the voxels near; mean over cases with both kinds",
    "case_auroc": f"uncertainty of a case against Dice below {FAILED_DICE:g}, or a finding "
    "where there is none",
    "aurc": "mean of 1 - Dice over the most certain cases, over all coverages; 0 is best",
    "excess_aurc": "AURC less that of an uncertainty which knew the errors; 0 is best",
}
_TRIVIAL = {"uncertainty_spearman": 0.0, "voxel_auroc": 0.5, "case_auroc": 0.5}


@dataclass(frozen=True)
class UncertainCase:
    """One case: its mean uncertainty, its Dice, and how uncertainty fits its voxels' errors.

    Both numbers are NaN where they are not defined, as without a lesion. ``invented``: something
    was found where there is nothing.
    """

    case: str
    patient: str
    uncertainty: float
    dice: float
    voxels: VoxelQuality
    invented: bool = False

    @property
    def failed(self) -> bool:
        """Whether the answer is one that a person should catch."""
        return self.invented or self.dice < FAILED_DICE


def uncertainty_scores(
    cases: Sequence[UncertainCase],
    *,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> Scores:
    """Whether uncertainty finds errors, over cases and voxels, and whether probabilities are true.

    Spearman's correlation and AUROC over cases, calibration error and AUROC of voxels, area under
    the risk-coverage curve, with intervals. Tables: ``reliability`` of the voxels,
    ``risk_coverage`` of 1 - Dice by falling certainty, ``review`` with the cases that a person
    should look at first. Raises UsageError without a case.
    """
    if not cases:
        raise UsageError("There is no case to score.", met="0 cases", wanted="one at least")
    settings = metrics or MetricDefaults()
    sample = patient_sample([case.patient for case in cases])
    doubt = np.asarray([case.uncertainty for case in cases])
    error = 1.0 - np.asarray([case.dice for case in cases])
    areas = np.asarray([case.voxels.auroc for case in cases])
    bins = joined_sums([case.voxels.bins for case in cases])
    both = np.isfinite(doubt) & np.isfinite(error)
    known, judged = np.isfinite(areas), np.isfinite(doubt)
    failures = BinarySample(
        sample.patient[judged],
        sample.patients,
        np.asarray([float(case.failed) for case in cases])[judged],
        doubt[judged],
    )

    def compute(weights: FloatArray) -> dict[str, FloatArray]:
        return {
            "uncertainty_spearman": spearman_weighted(doubt[both], error[both], weights[:, both]),
            "voxel_ece": calibration_error_weighted(bins, weights),
            "voxel_auroc": divide(weights[:, known] @ areas[known], weights[:, known].sum(axis=1)),
            "case_auroc": auroc_levels(levels_weighted(failures, weights[:, judged])),
            **_risk_areas(-doubt[both], error[both], weights[:, both]),
        }

    resampled = bootstrap(
        sample, compute, draws=settings.bootstrap_draws, seed=seed, jackknife=False
    )
    counted = {"voxel_ece": np.ones_like(both), "voxel_auroc": known, "case_auroc": judged}
    found = {
        name: bootstrap_score(
            name,
            float(value[0]),
            resampled,
            settings.confidence,
            n=int(counted.get(name, both).sum()),
            convention=_CONVENTIONS[name],
            trivial=_TRIVIAL.get(name, nan),
            trivial_by="an uncertainty that knows nothing" if name in _TRIVIAL else "",
        )
        for name, value in compute(np.ones((1, len(cases)))).items()
    }
    curve = risk_coverage(-doubt[both], error[both])
    return Scores(
        metrics=found,
        per_case=tuple(_row(case) for case in cases),
        tables={
            "reliability": _reliability(bins),
            "risk_coverage": {
                "coverage": curve.coverage.tolist(),
                "risk": curve.risk.tolist(),
                "area": curve.area,
                "best": curve.best,
                "excess": curve.excess,
            },
            "review": [cases[place].case for place in review_order(doubt)],
            "bootstrap": bootstrap_table(resampled, settings.confidence),
        },
    )


def _risk_areas(
    confidence: FloatArray, losses: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    area = risk_area_weighted(confidence, losses, weights)
    return {"aurc": area, "excess_aurc": area - risk_area_weighted(-losses, losses, weights)}


def _row(case: UncertainCase) -> dict[str, Any]:
    return {
        "case": case.case,
        "patient": case.patient,
        "uncertainty": case.uncertainty,
        "dice": case.dice,
        "failed": case.failed,
        "voxels": case.voxels.voxels,
        "wrong_voxels": case.voxels.errors,
        "voxel_auroc": case.voxels.auroc,
        "voxel_average_precision": case.voxels.average_precision,
        "voxel_spearman": case.voxels.correlation,
    }


def _reliability(bins: BinSums) -> list[dict[str, float]]:
    """One row a bin that holds a voxel; without intervals, for voxels are not independent."""
    count, probability, positive = (
        part.sum(axis=0) for part in (bins.count, bins.probability, bins.positive)
    )
    return [
        {
            "low": place / count.size,
            "high": (place + 1) / count.size,
            "n": int(count[place]),
            "mean_probability": float(probability[place] / count[place]),
            "observed_rate": float(positive[place] / count[place]),
        }
        for place in np.flatnonzero(count).tolist()
    ]
