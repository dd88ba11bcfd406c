"""What a prognosis has to be better than: outlines alone, survival alone, and two Cox regressions.

The regressions know the predicted volume alone, and the covariates alone. They are fitted on the
training patients, kept in the checkpoint, and answer beside the model, so that whatever scores the
one scores the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import MedtoolError
from medtool.core.records import Case, Prediction
from medtool.score.survival_regression import fit_cox
from medtool.tasks.prognosis_covariates import (
    covariate_names,
    covariate_values,
    known_covariates,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.score.survival import SurvivalSample
    from medtool.tasks.prognosis_settings import PrognosisSettings

VOLUME, COVARIATES = "volume", "covariates"
# Networks that are trained beside the whole: name -> what is different, as of --set.
ALONE: Mapping[str, tuple[str, ...]] = {
    "segmentation": ("train.objectives=segmentation", "train.baselines=false"),
    "survival": (
        "train.objectives=survival",
        "train.baselines=false",
        "model.pooling=global",
    ),
}
# Of the values of a column beside the others: less is nothing new.
_LEAST_NEW = 1e-6


def fit_baselines(
    settings: PrognosisSettings,
    patients: Sequence[tuple[Case, Prediction]],
    sample: SurvivalSample,
) -> dict[str, Any]:
    """Cox regressions of ``patients``, whose outcomes ``sample`` has in the same order.

    Each has its ``names`` and ``coefficients``, or ``why`` it could not be fitted.
    """
    found: dict[str, Any] = {}
    volumes = [prediction.scalars.get("volume_ml") for _, prediction in patients]
    if None not in volumes:
        rows = np.asarray([[log1p(float(volume or 0.0))] for volume in volumes])
        found[VOLUME] = _fitted(sample, rows, ["log(volume in mL + 1)"])
    columns = settings.train.baseline_covariates or settings.model.covariates
    if columns:
        known = known_covariates(columns, [case for case, _ in patients])
        rows = np.asarray([covariate_values(known, case.covariates) for case, _ in patients])
        kept = _independent(rows)
        names = [covariate_names(known)[place] for place in kept]
        found[COVARIATES] = {
            **_fitted(sample, rows[:, kept], names),
            "inputs": kept,
            "known": [one.model_dump(mode="json") for one in known],
        }
    return found


def _fitted(
    sample: SurvivalSample, rows: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    try:
        fit = fit_cox(sample, rows, names)
    except MedtoolError as error:
        return {"names": list(names), "why": " ".join((error.what, error.met)).strip()}
    return {
        "names": list(names),
        "coefficients": fit.coefficients.tolist(),
        "standard_errors": fit.standard_errors.tolist(),
        "means": rows.mean(axis=0).tolist(),
        "patients": fit.n,
        "events": fit.events,
        "warnings": list(fit.warnings),
    }


def _independent(rows: NDArray[np.float64]) -> list[int]:
    """Columns of which none is constant or follows from those before it."""
    kept: list[int] = []
    basis = np.ones((len(rows), 1)) / np.sqrt(len(rows))
    for place, column in enumerate(rows.T):
        left = column - basis @ (basis.T @ column)
        size = float(np.linalg.norm(left))
        if size > _LEAST_NEW * max(1.0, float(np.linalg.norm(column))):
            kept.append(place)
            basis = np.column_stack([basis, left / size])
    return kept


def regression_risk(
    regression: Mapping[str, Any], case: Case, columns: Mapping[str, Any]
) -> float | None:
    """The risk of a case beside the mean training patient's; None where it cannot be told."""
    if "coefficients" not in regression:
        return None
    if "known" in regression:
        from medtool.tasks.prognosis_settings import CovariateSection

        known = [CovariateSection.model_validate(one) for one in regression["known"]]
        every = covariate_values(known, case.covariates)
        values = [every[place] for place in regression["inputs"]]
    elif columns.get("volume_ml") is None:
        return None
    else:
        values = [log1p(float(columns["volume_ml"]))]
    apart = np.asarray(values) - np.asarray(regression["means"])
    return float(apart @ np.asarray(regression["coefficients"]))
