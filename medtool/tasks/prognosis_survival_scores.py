"""Risks beside outcomes: one case a patient, and what else could have ranked the patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.records import Scores
from medtool.score.survival import SurvivalSample, survival_sample
from medtool.score.survival_summary import (
    PATIENTS,
    Rival,
    SurvivalPrediction,
    survival_scores,
)
from medtool.tasks.prognosis_answers import survival_column

if TYPE_CHECKING:
    from medtool.tasks.prognosis_judged import JudgedCase
    from medtool.tasks.prognosis_settings import PrognosisSettings

UNIT = "days"
# The best that anybody could reach, known of synthetic patients alone.
REACHABLE = "reachable_c"
VOLUME_ALONE, COVARIATES_ALONE = "volume_alone_c", "covariates_alone_c"


def judged_patients(cases: Sequence[JudgedCase]) -> list[JudgedCase]:
    """Of each patient with an outcome and a risk the first case by id."""
    first: dict[str, JudgedCase] = {}
    for case in sorted(cases, key=lambda one: one.case):
        if case.outcome is not None and np.isfinite(case.number("risk")):
            first.setdefault(case.patient, case)
    return list(first.values())


def outcomes_of(patients: Sequence[JudgedCase]) -> SurvivalSample:
    """Their outcomes in days."""
    known = [(one.patient, one.outcome) for one in patients if one.outcome is not None]
    return survival_sample(
        [outcome.time_days for _, outcome in known],
        [float(outcome.event) for _, outcome in known],
        [patient for patient, _ in known],
    )


def score_risks(
    settings: PrognosisSettings, cases: Sequence[JudgedCase], learned: Mapping[str, Any]
) -> Scores | None:
    """Everything of survival; None where no patient has both an outcome and a risk.

    ``learned`` is what the checkpoint keeps of its training patients. The table ``patients`` has
    a row a patient, from which models are compared.
    """
    patients = judged_patients(cases)
    if not patients:
        return None
    said = SurvivalPrediction(
        risks=[one.number("risk") for one in patients],
        survival=_survival(settings, patients),
        horizons=settings.metrics.horizons_days,
        unit=UNIT,
        training=_training(learned),
        cuts=learned.get("risk_cuts", ()),
        rivals=_rivals(patients),
    )
    scores = survival_scores(outcomes_of(patients), said, metrics=settings.metrics)
    return replace(
        scores,
        tables={**scores.tables, PATIENTS: [_row(one) for one in patients]},
        notes=(*scores.notes, *_left_out(cases, patients)),
    )


def _row(patient: JudgedCase) -> dict[str, Any]:
    outcome = patient.outcome
    return {
        "case": patient.case,
        "patient": patient.patient,
        "risk": patient.number("risk"),
        "time_days": outcome.time_days if outcome else None,
        "event": outcome.event if outcome else None,
    }


def _training(learned: Mapping[str, Any]) -> SurvivalSample | None:
    """Outcomes of the training patients, who have no names here."""
    days, events = learned.get("follow_up_days"), learned.get("follow_up_events")
    return survival_sample(days, events) if days and events else None


def _survival(
    settings: PrognosisSettings, patients: Sequence[JudgedCase]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    """(patients, horizons) as predicted; None where the model has no baseline hazard."""
    columns = [survival_column(days) for days in settings.metrics.horizons_days]
    found = np.array([[one.number(column) for column in columns] for one in patients])
    return found if np.isfinite(found).all() else None


def _rivals(patients: Sequence[JudgedCase]) -> dict[str, Rival]:
    """What the risk has to be better than, and what it cannot be better than, where known."""
    volumes = [one.number("risk_volume") for one in patients]
    if not np.isfinite(volumes).all():
        volumes = [one.number("volume_ml") for one in patients]
    candidates = {
        REACHABLE: Rival(
            [one.true_risk for one in patients],
            "the true hazard of these synthetic patients, the best that can be reached",
        ),
        VOLUME_ALONE: Rival(volumes, "the predicted tumour volume alone"),
        COVARIATES_ALONE: Rival(
            [one.number("risk_covariates") for one in patients],
            "a Cox regression on clinical covariates alone",
        ),
    }
    return {name: one for name, one in candidates.items() if np.isfinite(one.risks).all()}


def _left_out(cases: Sequence[JudgedCase], patients: Sequence[JudgedCase]) -> list[str]:
    """Who counts nowhere, and who is compared with whom."""
    without = sum(case.outcome is None for case in cases)
    silent = sum(case.outcome is not None and np.isnan(case.number("risk")) for case in cases)
    further = len(cases) - without - silent - len(patients)
    counted = {
        "have no outcome and count in no number of survival": without,
        "have an outcome and no predicted risk": silent,
        "are later cases of patients whose first case counts in the numbers of survival": further,
    }
    notes = [f"{count} cases {words}." for words, count in counted.items() if count]
    strata = {one.outcome.stratum for one in patients if one.outcome is not None}
    if len(strata) > 1:
        notes.append(
            f"Patients of {len(strata)} strata are compared with one another here; in learning they"
            " were compared within their own."
        )
    return notes
