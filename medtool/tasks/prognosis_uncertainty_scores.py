"""Doubts beside errors: whether they find them, keep promises, and whom to look at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.records import Score, Scores
from medtool.score.intervals import bootstrap
from medtool.score.numbers import bootstrap_score
from medtool.score.ranking import divide
from medtool.score.sample import FloatArray, patient_sample
from medtool.score.uncertainty_quality import review_order
from medtool.score.uncertainty_summary import uncertainty_scores

if TYPE_CHECKING:
    from medtool.tasks.prognosis_judged import JudgedCase
    from medtool.tasks.prognosis_settings import PrognosisSettings

VOLUME_COVERAGE, SET_COVERAGE = "volume_interval_coverage", "lesion_set_coverage"


def score_doubts(settings: PrognosisSettings, cases: Sequence[JudgedCase]) -> Scores | None:
    """Everything of uncertainty; None where no case has a map of it and a mask to compare."""
    known = [case.doubt for case in cases if case.doubt is not None]
    return uncertainty_scores(known, metrics=settings.metrics) if known else None


def coverage(settings: PrognosisSettings, cases: Sequence[JudgedCase]) -> dict[str, Score]:
    """How often intervals of the volume and sets of "lesion present" held what is true.

    Only what was promised is judged: cases without an interval or a set are not counted.
    """
    found = {
        VOLUME_COVERAGE: _kept(
            VOLUME_COVERAGE,
            "cases whose true volume is in its interval",
            settings,
            cases,
            _in_range,
        ),
        SET_COVERAGE: _kept(
            SET_COVERAGE, "cases whose set holds what is true", settings, cases, _in_set
        ),
    }
    return {name: score for name, score in found.items() if score is not None}


def _in_range(case: JudgedCase) -> bool | None:
    low, high = case.number("volume_low_ml"), case.number("volume_high_ml")
    if not np.isfinite([low, high, case.volume_ml]).all():
        return None
    return bool(low <= case.volume_ml <= high)


def _in_set(case: JudgedCase) -> bool | None:
    said = case.said.get("lesion_set")
    if not said or np.isnan(case.volume_ml):
        return None
    return said in ("both", "present" if case.volume_ml > 0 else "absent")


def _kept(
    name: str,
    what: str,
    settings: PrognosisSettings,
    cases: Sequence[JudgedCase],
    judge: Callable[[JudgedCase], bool | None],
) -> Score | None:
    """The share of promises that were kept; None where none was given."""
    judged = [(case.patient, kept) for case in cases if (kept := judge(case)) is not None]
    if not judged:
        return None
    held = np.array([kept for _, kept in judged], dtype=np.float64)

    def share(weights: FloatArray) -> dict[str, FloatArray]:
        return {name: divide(weights @ held, weights.sum(axis=1))}

    metrics = settings.metrics
    resampled = bootstrap(
        patient_sample([patient for patient, _ in judged]),
        share,
        draws=metrics.bootstrap_draws,
        jackknife=False,
    )
    promised = 1.0 - settings.infer.conformal_risk
    return bootstrap_score(
        name,
        float(held.mean()),
        resampled,
        metrics.confidence,
        n=held.size,
        convention=f"{what}; promised: {promised:.0%}",
    )


def review_rows(cases: Sequence[JudgedCase]) -> list[dict[str, Any]]:
    """Who is looked at first: those sent to review, and within that the most uncertain."""
    doubts = np.array([case.number("uncertainty") for case in cases])
    ordered = [cases[place] for place in review_order(doubts)]
    return [
        {
            "case": case.case,
            "patient": case.patient,
            "review": case.said.get("review") or "",
            "why": case.said.get("review_why") or "",
            "uncertainty": case.number("uncertainty"),
            "risk": case.number("risk"),
            "volume_ml": case.number("volume_ml"),
            "dice": case.doubt.dice if case.doubt else None,
        }
        for case in sorted(ordered, key=lambda one: one.said.get("review") != "yes")
    ]
