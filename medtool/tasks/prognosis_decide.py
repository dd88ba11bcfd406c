"""What a prognosis decides after training, for its checkpoint.

From training patients: the baseline hazard (``settle_study``). From the selection part
(``decide_study``), whose patients are dealt into two halves: one gives the temperature and the
limits beyond which a case goes to review; the other, which has no say in these, gives the conformal
quantiles. Both parts chose the checkpoint before, so that what is promised is a little optimistic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.randomness import generator
from medtool.core.records import Case, Prediction, Truth
from medtool.data.masks import voxel_ml
from medtool.score.conformal import calibrate_presence, calibrate_volumes
from medtool.score.sample import patient_sample
from medtool.score.survival import survival_sample
from medtool.score.survival_regression import baseline_hazard
from medtool.score.temperature import Temperature, fit_temperature
from medtool.score.uncertainty import region_near
from medtool.tasks.prognosis_baselines import fit_baselines
from medtool.tasks.prognosis_chances import (
    calibrated,
    doubt_beside_volume,
    entropy_of,
    logits_of,
    with_background,
)
from medtool.tasks.prognosis_decided import (
    BASELINES,
    CONFORMAL,
    HAZARD,
    LIMITS,
    REVIEW,
    TEMPERATURE,
    measured,
    spread_of,
)
from medtool.tasks.segmentation_labels import MASK, has_regions, output_ids, structures
from medtool.tasks.segmentation_predict import PROBABILITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.prognosis_settings import PrognosisSettings

# Voxels of a case that the temperature is fitted on, drawn from those near truth or prediction.
MOST_VOXELS = 20_000
# Shares of the training patients below the limits of groups of risk: three of one size.
GROUPS = (1 / 3, 2 / 3)


def settle_study(
    settings: PrognosisSettings, answers: Iterable[tuple[Case, Prediction]]
) -> dict[str, Any]:
    """Breslow's baseline hazard of the training patients, by the first case of each; and, where
    the preset wants baselines, Cox regressions of the same patients.

    {} without any event.
    """
    # What is kept of an answer are its numbers: maps of all patients would fill the memory.
    kept = [
        (case, Prediction(answer.case_id, answer.patient_id, answer.scalars))
        for case, answer in answers
        if case.outcome is not None and answer.scalars.get("risk") is not None
    ]
    by_patient: dict[str, tuple[Case, Prediction]] = {}
    for case, answer in sorted(kept, key=lambda pair: pair[0].case_id):
        by_patient.setdefault(case.patient_id, (case, answer))
    first = list(by_patient.values())
    outcomes = [case.outcome for case, _ in first if case.outcome is not None]
    if not any(outcome.event for outcome in outcomes):
        return {}
    sample = survival_sample(
        [outcome.time_days for outcome in outcomes],
        [float(outcome.event) for outcome in outcomes],
        [case.patient_id for case, _ in first],
    )
    risks = np.asarray([answer.scalars["risk"] for _, answer in first])
    found = baseline_hazard(sample, risks)
    # In the order of time, so that no row can be told to be anybody's.
    order = np.argsort(sample.times, kind="stable")
    settled: dict[str, Any] = {
        HAZARD: {
            "times_days": found.times.tolist(),
            "hazard": found.cumulative.tolist(),
            "mean_risk": found.centre,
            "risk_cuts": np.quantile(risks - found.centre, GROUPS).tolist(),
            "follow_up_days": sample.times[order].tolist(),
            "follow_up_events": sample.events[order].astype(int).tolist(),
            "patients": sample.n,
            "events": sample.event_count,
        }
    }
    if settings.train.baselines:
        settled[BASELINES] = fit_baselines(settings, first, sample)
    return settled


def decide_study(
    settings: PrognosisSettings, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> dict[str, Any]:
    """Temperature, limits of review and conformal quantiles, each where its half allows it."""
    if not predictions:
        return {}
    tuning, calibration = _halves([p.patient_id for p in predictions], settings.train.seed)
    found: dict[str, Any] = {}
    temperature = _temperature(settings, predictions, truths, tuning)
    value = 1.0
    if temperature is not None:
        value = temperature.value
        found[TEMPERATURE] = {
            "value": temperature.value,
            "before": temperature.before,
            "after": temperature.after,
            "at_limit": temperature.at_limit,
            "patients": _patients(predictions, tuning),
        }
    limits = _limits(settings, [_columns(settings, predictions[n], value) for n in tuning])
    if limits:
        found[REVIEW] = {
            "limits": limits,
            "share": settings.infer.review_share,
            "patients": _patients(predictions, tuning),
        }
    conformal = _conformal(settings, predictions, truths, calibration, value)
    return found | ({CONFORMAL: conformal} if conformal else {})


def _halves(patients: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Places of the cases of two halves of the patients, dealt by the seed of the training."""
    names = sorted(set(patients))
    order = generator("conformal-half", seed).permutation(len(names))
    first = {names[place] for place in order[: len(names) // 2]}
    places = range(len(patients))
    return (
        [n for n in places if patients[n] in first],
        [n for n in places if patients[n] not in first],
    )


def _patients(predictions: Sequence[Prediction], places: Sequence[int]) -> int:
    return len({predictions[n].patient_id for n in places})


def _temperature(
    settings: PrognosisSettings,
    predictions: Sequence[Prediction],
    truths: Sequence[Truth],
    places: Sequence[int],
) -> Temperature | None:
    """Fitted on voxels near truth or prediction, each case counting alike."""
    logits, labels, weights = [], [], []
    for place in places:
        prediction = predictions[place]
        reference = truths[place].arrays.get(MASK)
        if reference is None or PROBABILITIES not in prediction.arrays:
            continue
        own = _voxels(settings, prediction, reference)
        if own is not None:
            logits.append(own[0])
            labels.append(own[1])
            weights.append(np.full(len(own[1]), 1 / len(own[1])))
    if not labels:
        return None
    return fit_temperature(*(np.concatenate(part) for part in (logits, labels, weights)))


def _voxels(
    settings: PrognosisSettings, prediction: Prediction, reference: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.intp]] | None:
    """Logits and labels of voxels near truth or prediction; None where there are none."""
    data, grid = settings.data, prediction.grids[MASK]
    used = _used(settings, reference)
    marked = [prediction.arrays[MASK] > 0, reference > 0]
    near = region_near([mask & used for mask in marked], grid.spacing_mm[::-1])
    chosen = np.flatnonzero(near & used)
    if not chosen.size:
        return None
    rng = generator("temperature", settings.train.seed, prediction.case_id)
    if chosen.size > MOST_VOXELS:
        chosen = np.sort(rng.choice(chosen, MOST_VOXELS, replace=False))
    chances = prediction.arrays[PROBABILITIES].reshape(len(structures(data)), -1)[:, chosen]
    ids = reference.reshape(-1)[chosen]
    if has_regions(data):
        inside = np.stack([np.isin(ids, numbers) for numbers in structures(data).values()])
        return logits_of(chances, regions=True).reshape(-1), inside.reshape(-1).astype(np.intp)
    outputs = logits_of(with_background(chances), regions=False).T
    numbers = {number: place for place, number in enumerate(output_ids(data))}
    return outputs, np.asarray([numbers.get(int(number), 0) for number in ids], dtype=np.intp)


def _used(settings: PrognosisSettings, reference: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the reference says anything: not where it is the ignore label."""
    ignored = settings.data.ignore_id
    return np.full(reference.shape, True) if ignored is None else reference != ignored


def _columns(
    settings: PrognosisSettings, prediction: Prediction, temperature: float
) -> dict[str, Any]:
    """The columns of a case as they will be with the ``temperature``; before, it was 1."""
    columns = dict(prediction.scalars)
    if PROBABILITIES not in prediction.arrays or temperature == 1.0:
        return columns
    regions = has_regions(settings.data)
    chances = prediction.arrays[PROBABILITIES]
    outputs = calibrated(
        chances if regions else with_background(chances), temperature, regions=regions
    )
    columns["lesion_probability"] = float((outputs if regions else outputs[1:]).max(initial=0.0))
    if columns.get("uncertainty") is not None:
        grid = prediction.grids[MASK]
        columns["uncertainty"] = doubt_beside_volume(
            entropy_of(outputs, regions=regions),
            prediction.arrays[MASK] > 0,
            grid.spacing_mm[::-1],
            voxel_ml(grid),
        )
    return columns


def _limits(settings: PrognosisSettings, columns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of each number that sends cases to review the value that the wanted share is above."""
    limits = {}
    for name in LIMITS:
        met = [value for own in columns if (value := measured(name, own)) is not None]
        if met:
            limits[name] = float(np.quantile(met, 1 - settings.infer.review_share))
    return limits


@dataclass(frozen=True)
class _Calibrated:
    """A case of the half that calibrates."""

    patient: str
    probability: float
    present: bool
    predicted_ml: float
    reference_ml: float
    spread: float


def _conformal(
    settings: PrognosisSettings,
    predictions: Sequence[Prediction],
    truths: Sequence[Truth],
    places: Sequence[int],
    temperature: float,
) -> dict[str, Any]:
    """Quantiles of "lesion present" and of volumes; None is infinite: too few patients."""
    cases = []
    for place in places:
        prediction, truth = predictions[place], truths[place]
        if MASK not in truth.arrays or MASK not in prediction.arrays:
            continue
        columns, reference = _columns(settings, prediction, temperature), truth.arrays[MASK]
        mask = (reference > 0) & _used(settings, reference)
        cases.append(
            _Calibrated(
                patient=prediction.patient_id,
                probability=columns["lesion_probability"],
                present=bool(mask.any()),
                predicted_ml=columns["volume_ml"],
                reference_ml=float(mask.sum()) * voxel_ml(truth.grids.get(MASK)),
                spread=spread_of(columns),
            )
        )
    if not cases:
        return {}
    sample, risk = patient_sample([case.patient for case in cases]), settings.infer.conformal_risk
    presence = calibrate_presence(
        sample, [case.probability for case in cases], [case.present for case in cases], risk
    )
    volumes = calibrate_volumes(
        sample,
        [case.predicted_ml for case in cases],
        [case.reference_ml for case in cases],
        risk,
        [case.spread for case in cases],
    )
    return {
        "risk": risk,
        "presence": [_plain(quantile) for quantile in presence.quantiles],
        "volume": _plain(volumes.quantile),
        "patients": len(sample.patients),
    }


def _plain(value: float) -> float | None:
    return value if isfinite(value) else None
