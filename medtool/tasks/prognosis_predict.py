"""Answers of a prognosis: the mask on the answer's grid, what the PET measures in it, the risk, and
how sure all of it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from medtool.core.records import Case, Prediction, Prepared
from medtool.data.masks import voxel_ml
from medtool.data.regridding import regridded
from medtool.predict.decide import LabelRule, decide_labels
from medtool.predict.postprocess import postprocessed
from medtool.predict.sliding_window import require_finite
from medtool.score.lesions import Connectivity, components
from medtool.score.uncertainty import mean_by_lesion
from medtool.score.uptake import case_uptake, lesion_uptakes
from medtool.tasks.prognosis_answers import UNCERTAINTY, survival_column
from medtool.tasks.prognosis_chances import (
    calibrated,
    disagreement,
    doubt_beside_volume,
    entropy_of,
    mean_or_most_doubtful,
)
from medtool.tasks.prognosis_covariates import missing_covariates
from medtool.tasks.prognosis_decided import (
    Decided,
    baseline_columns,
    decided_of,
    decided_together,
)
from medtool.tasks.prognosis_labels import SUV
from medtool.tasks.prognosis_passes import Looked, look_at, mean_of
from medtool.tasks.segmentation_labels import MASK, has_regions, output_ids
from medtool.tasks.segmentation_predict import PROBABILITIES, postprocessing_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid
    from medtool.predict.model import Model
    from medtool.tasks.prognosis_settings import PrognosisSettings

# Of the passes: what lies between is 95 % of them.
LOW_PERCENTILE, HIGH_PERCENTILE = 2.5, 97.5
LESION_NEIGHBOURS: Connectivity = 26


def predict_study(
    settings: PrognosisSettings, model: Model, prepared: Prepared, case: Case
) -> Prediction:
    """Mask, maps and the columns of one case. Raises CaseRefused."""
    decided = decided_of(model.document)
    looked = mean_of([look_at(settings, model, prepared, case)], [decided.centre])
    return _answered(settings, model, looked, decided, prepared, case)


def predict_study_together(model: Model, prepared: Sequence[Prepared], case: Case) -> Prediction:
    """As ``predict_study``, of all members of ``model``: a deep ensemble, with their passes."""
    every = []
    for member, own in zip(model.members, prepared, strict=True):
        settings = cast("PrognosisSettings", member.task.settings)
        every.append(look_at(settings, member, own, case))
    decided = [decided_of(member.document) for member in model.members]
    looked = mean_of(every, [one.centre for one in decided])
    settings = cast("PrognosisSettings", model.members[0].task.settings)
    return _answered(settings, model, looked, decided_together(decided), prepared[0], case)


@dataclass(frozen=True)
class _Maps:
    """On the answer's grid: ``mask``, calibrated ``chances`` (structures, z, y, x), ``entropy``
    (nats) of them, and of the passes ``mutual_information`` and ``variance``.
    """

    mask: NDArray[Any]
    chances: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]
    variance: NDArray[np.float32]


def _answered(
    settings: PrognosisSettings,
    model: Model,
    looked: Looked,
    decided: Decided,
    prepared: Prepared,
    case: Case,
) -> Prediction:
    grid = prepared.grids["image"]
    missing = missing_covariates(settings.model.known_covariates, case.covariates)
    scalars = _risk_columns(settings, looked, decided)
    if settings.train.objectives == "survival":
        scalars |= baseline_columns(decided, case, scalars) | decided.review(scalars)
        return Prediction(case.case_id, case.patient_id, scalars, findings=missing)
    maps = _maps(settings, model, looked, decided.temperature, prepared)
    sure = len(looked.risks) > 1
    lesions, own = _lesions(maps, prepared.arrays[SUV], grid, sure=sure)
    scalars = {**own, **scalars}
    if sure:
        scalars |= _doubt(maps, looked, grid)
    scalars["lesion_probability"] = float(maps.chances.max(initial=0.0))
    scalars |= baseline_columns(decided, case, scalars)
    scalars |= decided.of_volume(scalars, prod(grid.size) * voxel_ml(grid))
    scalars |= decided.review(scalars)
    arrays: dict[str, NDArray[Any]] = {MASK: maps.mask}
    if sure:
        arrays[UNCERTAINTY] = maps.entropy
    if settings.infer.probabilities:
        arrays[PROBABILITIES] = maps.chances
    return Prediction(
        case_id=case.case_id,
        patient_id=case.patient_id,
        scalars=scalars,
        arrays=arrays,
        grids=dict.fromkeys(arrays, grid),
        elements=lesions,
        findings=missing,
    )


def _maps(
    settings: PrognosisSettings,
    model: Model,
    looked: Looked,
    temperature: float,
    prepared: Prepared,
) -> _Maps:
    """The mask is that of the mean of the passes; temperature changes how sure it is, not where
    it lies.
    """
    data, grid, source = settings.data, prepared.grids["image"], prepared.grids["prepared"]
    regions = has_regions(data)
    mean = np.stack([regridded(p, source, grid, outside=0.0) for p in looked.probability])
    if not regions:
        # Where nothing was looked at there is background.
        mean[0] += np.maximum(0, 1 - mean.sum(axis=0))
    rule = LabelRule(output_ids(data), regions=regions, cut=0.5)
    mask = postprocessed(
        decide_labels(mean, rule), postprocessing_steps(settings, model), voxel_ml(grid)
    )
    information, variance = (
        regridded(values, source, grid, outside=0.0)
        for values in disagreement(
            looked.probability, looked.tumour_square, looked.entropy, regions=regions
        )
    )
    chances = calibrated(mean, temperature, regions=regions)
    entropy = entropy_of(chances, regions=regions)
    return _Maps(mask, chances if regions else chances[1:], entropy, information, variance)


def _lesions(
    maps: _Maps, suv: NDArray[np.float32], grid: Grid, *, sure: bool
) -> tuple[tuple[Mapping[str, Any], ...], dict[str, Any]]:
    """A row for each lesion, and the columns of all of them together."""
    spacing_mm = grid.spacing_mm[::-1]
    tumour = maps.mask > 0
    numbered, _ = components(tumour, LESION_NEIGHBOURS)
    each = lesion_uptakes(suv, tumour, spacing_mm, connectivity=LESION_NEIGHBOURS)
    doubt = mean_by_lesion(maps.entropy, numbered) if sure else [None] * len(each)
    chance = mean_by_lesion(maps.chances.max(axis=0), numbered)
    rows = tuple(
        {
            "lesion": number,
            "volume_ml": uptake.mtv_ml,
            "suv_max": uptake.suv_max,
            "suv_peak": uptake.suv_peak,
            "tlg_g": uptake.tlg_g,
            "uncertainty": None if own is None else float(own),
            "probability": float(likely),
        }
        for number, (uptake, own, likely) in enumerate(zip(each, doubt, chance, strict=True), 1)
    )
    whole = case_uptake(each)
    measured = {
        "volume_ml": whole.mtv_ml,
        "suv_max": whole.suv_max,
        "suv_peak": whole.suv_peak,
        "tlg_g": whole.tlg_g,
    }
    columns = {name: None if np.isnan(value) else value for name, value in measured.items()}
    return rows, {**columns, "lesions": len(each)}


def _doubt(maps: _Maps, looked: Looked, grid: Grid) -> dict[str, float]:
    """How unsure the outlines of a case are."""
    tumour = maps.mask > 0
    volumes = looked.volumes_ml
    found = {
        "uncertainty_mutual_information": maps.mutual_information,
        "uncertainty_variance": maps.variance,
    }
    mean = float(volumes.mean())
    spacing_mm = grid.spacing_mm[::-1]
    return {
        "uncertainty": doubt_beside_volume(maps.entropy, tumour, spacing_mm, voxel_ml(grid)),
        **{
            name: mean_or_most_doubtful(values, tumour, voxel_ml(grid))
            for name, values in found.items()
        },
        "volume_spread": float(volumes.std()) / mean if mean > 0 else nan,
    }


def _risk_columns(settings: PrognosisSettings, looked: Looked, decided: Decided) -> dict[str, Any]:
    """The risk and the survival at each horizon, with the interval over the passes."""
    if settings.train.objectives == "segmentation":
        return {}
    require_finite(torch.as_tensor(looked.risks))
    risk = float(looked.risks.mean())
    columns: dict[str, Any] = {"risk": risk}
    low, high = risk, risk
    several = len(looked.risks) > 1
    if several:
        low, high = (
            float(value) for value in np.percentile(looked.risks, (LOW_PERCENTILE, HIGH_PERCENTILE))
        )
        columns |= {"risk_low": low, "risk_high": high}
    for days in settings.metrics.horizons_days:
        shares = decided.survival([risk, low, high], days)
        if shares is not None:
            columns[survival_column(days)] = shares[0]
            # Who has the lower risk lives longer.
            if several:
                columns[survival_column(days, "low")] = shares[2]
                columns[survival_column(days, "high")] = shares[1]
    return columns
