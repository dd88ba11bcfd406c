"""Every number of predicted survival with its interval by patient, convention and trivial value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medtool.core.errors import UsageError
from medtool.core.records import Score, Scores
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import Bootstrap, bootstrap
from medtool.score.numbers import bootstrap_score, bootstrap_table
from medtool.score.sample import FloatArray
from medtool.score.survival import SurvivalSample, check_risks
from medtool.score.survival_curves import censoring_curve, kaplan_meier, log_rank
from medtool.score.survival_error import (
    DEFAULT_GROUPS,
    brier_terms,
    brier_weighted,
    calibration_at,
    integrated_brier,
)
from medtool.score.survival_ranking import (
    PAIRS_RULE,
    auc_weighted,
    equal_time_pairs,
    harrell,
    mean_auc_weighted,
    uno,
)

_CHANCE = "one risk for all"
# How names of differences begin, which are no scores.
_MORE_THAN = "more_than."
_CURVE = "one Kaplan-Meier curve for all, of the patients whose censoring weighs"
# The table of scores that holds those of survival, and in it that with a row a patient.
SURVIVAL, PATIENTS = "survival", "patients"
# Groups of risk where no cuts of training are known.
OWN_GROUPS = 2
# Groups of calibration are fewer where they would hold fewer patients.
LEAST_OF_GROUP = 8
OWN_CUTS = (
    "The groups of risk are halves of the scored patients: no cuts from training are known, and"
    " these look a little better than they would on new patients."
)
OWN_CENSORING = (
    "The outcomes of the training patients are not known here: weights are by the censoring of"
    " the scored patients themselves."
)


@dataclass(frozen=True)
class Rival:
    """Another risk of the same patients, (n,), higher is worse; ``what`` says whose."""

    risks: ArrayLike
    what: str


@dataclass(frozen=True)
class SurvivalPrediction:
    """What was said of n patients.

    ``risks`` (n,), higher is worse; ``survival`` (n, horizons), the share expected without event
    at each of ``horizons``, ascending, in ``unit``, where it is known. ``cuts``, ascending, part
    the risks into groups for the curves; they and ``training``, the outcomes of the patients that
    the model learned from, must not come from the patients that are scored. Where these are not
    known the scored patients stand in for them, and the notes say so. ``rivals`` are compared by
    Harrell's C.
    """

    risks: ArrayLike
    survival: ArrayLike | None
    horizons: Sequence[float]
    unit: str
    training: SurvivalSample | None = None
    cuts: Sequence[float] = ()
    rivals: Mapping[str, Rival] = field(default_factory=dict)


def survival_scores(
    sample: SurvivalSample,
    said: SurvivalPrediction,
    *,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> Scores:
    """Score predictions against outcomes: C-indices, AUC and Brier score at each horizon.

    Tables: ``pairs``, ``curves`` by group of risk with the numbers at risk, ``log_rank``,
    ``calibration`` at each horizon, ``rivals`` with how much higher C is than theirs. A horizon
    after the last time of training is undefined.
    Raises UsageError where predictions and patients do not fit.
    """
    settings = metrics or MetricDefaults()
    times = _check_horizons(said.horizons)
    measured = _Measured(sample, said, times)
    resampled = bootstrap(
        sample,
        measured.all,
        draws=settings.bootstrap_draws,
        seed=seed,
        jackknife=False,
    )
    values = measured.all(np.ones((1, sample.n)))
    trivial = _trivial(sample, said.training or sample, times)
    found = {
        name: bootstrap_score(
            name,
            float(value[0]),
            resampled,
            settings.confidence,
            n=sample.n,
            convention=_convention(name, said, times),
            trivial=trivial.get(name, 0.5),
            trivial_by=_CURVE if name in trivial else _CHANCE,
        )
        for name, value in values.items()
        if not name.startswith(_MORE_THAN)
    }
    cuts = said.cuts if len(said.cuts) else _own_cuts(measured.risks)
    return Scores(
        metrics=found,
        tables={
            "pairs": _pairs(sample, measured),
            **_groups(sample, measured.risks, cuts, times, settings.confidence),
            "calibration": _calibration(sample, said, times, settings.confidence),
            "rivals": [
                _rival_row(name, rival, values, resampled, settings.confidence)
                for name, rival in said.rivals.items()
            ],
            "unit": said.unit,
            "bootstrap": bootstrap_table(resampled, settings.confidence),
        },
        notes=_notes(found, said, times, sample),
    )


class _Measured:
    """The numbers for any weights, with what does not depend on them worked out once."""

    def __init__(self, sample: SurvivalSample, said: SurvivalPrediction, times: FloatArray) -> None:
        self.sample, self.times = sample, times
        self.risks = check_risks(sample, said.risks)
        self.censoring = censoring_curve(said.training or sample)
        self.harrell = harrell(sample, self.risks)
        self.rivals = {name: harrell(sample, one.risks) for name, one in said.rivals.items()}
        self.uno = uno(sample, self.risks, self.censoring, before=float(times[-1]))
        self.terms = (
            None
            if said.survival is None
            else brier_terms(sample, said.survival, self.censoring, times)
        )

    def all(self, weights: FloatArray) -> dict[str, FloatArray]:
        """(draws,) values by name for ``weights`` (draws, n)."""
        areas = auc_weighted(self.sample, self.risks, self.censoring, self.times, weights)
        named = [f"{time:g}" for time in self.times]
        ours = self.harrell.count(weights).c_index
        theirs = {name: one.count(weights).c_index for name, one in self.rivals.items()}
        return {
            "harrell_c": ours,
            **theirs,
            **{f"{_MORE_THAN}{name}": ours - value for name, value in theirs.items()},
            "uno_c": self.uno.count(weights).c_index,
            **{f"auc_{name}": areas[:, place] for place, name in enumerate(named)},
            "mean_auc": mean_auc_weighted(self.sample, areas, self.times, weights),
            **self._errors(weights, named),
        }

    def _errors(self, weights: FloatArray, named: Sequence[str]) -> dict[str, FloatArray]:
        """Brier scores; nothing where no survival was said."""
        if self.terms is None:
            return {}
        briers = brier_weighted(self.terms, weights)
        return {
            **{f"brier_{name}": briers[:, place] for place, name in enumerate(named)},
            "integrated_brier": integrated_brier(briers, self.times),
        }


def _check_horizons(horizons: Sequence[float]) -> FloatArray:
    times = np.asarray(horizons, dtype=np.float64).reshape(-1)
    if not times.size or times[0] <= 0 or (np.diff(times) <= 0).any():
        raise UsageError(
            "The horizons are no times.",
            met=", ".join(f"{time:g}" for time in times) or "none",
            wanted="one at least, above 0, ascending",
        )
    return times


def _own_cuts(risks: FloatArray) -> FloatArray:
    return np.quantile(risks, np.arange(1, OWN_GROUPS) / OWN_GROUPS)


def _rival_row(
    name: str,
    rival: Rival,
    values: Mapping[str, FloatArray],
    resampled: Bootstrap,
    confidence: float,
) -> dict[str, Any]:
    """The C of a rival, and by how much ours is higher on the same draws of patients."""
    low, high = resampled.percentile(name, confidence)
    more_low, more_high = resampled.percentile(f"{_MORE_THAN}{name}", confidence)
    return {
        "name": name,
        "what": rival.what,
        "c": float(values[name][0]),
        "low": low,
        "high": high,
        "difference": float(values[f"{_MORE_THAN}{name}"][0]),
        "difference_low": more_low,
        "difference_high": more_high,
    }


def _trivial(
    sample: SurvivalSample, training: SurvivalSample, times: FloatArray
) -> dict[str, float]:
    """Brier scores of who says of every patient what is true of training on average."""
    average = np.tile(kaplan_meier(training).at(times), (sample.n, 1))
    terms = brier_terms(sample, average, censoring_curve(training), times)
    scores = brier_weighted(terms, np.ones((1, sample.n)))
    named = {f"brier_{time:g}": float(scores[0, i]) for i, time in enumerate(times)}
    return named | {"integrated_brier": float(integrated_brier(scores, times)[0])}


def _convention(name: str, said: SurvivalPrediction, times: FloatArray) -> str:
    whose = "scored" if said.training is None else "training"
    weighed = f"weights by the censoring of the {whose} patients"
    if name == "harrell_c":
        return PAIRS_RULE
    if name in said.rivals:
        return f"Harrell's C of {said.rivals[name].what}; pairs as for harrell_c"
    if name == "uno_c":
        last = f"first event before {times[-1]:g} {said.unit}"
        return f"pairs as for harrell_c; {last}; {weighed}"
    if name == "mean_auc":
        return f"mean over the horizons by the fall of survival; {weighed}"
    if name == "integrated_brier":
        span = f"{times[0]:g} to {times[-1]:g} {said.unit}"
        return f"trapezoids over the horizons, {span}; {weighed}"
    kind, _, time = name.partition("_")
    about = "event by then against free of it then" if kind == "auc" else "0 is best"
    return f"at {time} {said.unit}; {about}; {weighed}"


def _pairs(sample: SurvivalSample, measured: _Measured) -> dict[str, int]:
    counted = measured.harrell.count()
    at_once, both = equal_time_pairs(sample)
    return {
        "patients": sample.n,
        "events": sample.event_count,
        **{name: int(part[0]) for name, part in counted._asdict().items()},
        "of_equal_time": at_once,
        "left_out_two_events_at_once": both,
    }


def _groups(
    sample: SurvivalSample,
    risks: FloatArray,
    cuts: ArrayLike,
    times: FloatArray,
    confidence: float,
) -> dict[str, Any]:
    """The curve of each group of risk, lowest first, and whether the groups differ."""
    edges = np.asarray(cuts, dtype=np.float64)
    names = [f"{n + 1} of {edges.size + 1}" for n in np.searchsorted(edges, risks, side="right")]
    rows = []
    for name in sorted(set(names)):
        part = sample.take(np.asarray([other == name for other in names]))
        curve = kaplan_meier(part)
        low, high = curve.interval_at(curve.times, confidence)
        rows.append(
            {
                "group": name,
                "n": part.n,
                "events": part.event_count,
                "median": curve.median(),
                "times": curve.times.tolist(),
                "share": curve.share.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "horizons": times.tolist(),
                "at_risk": curve.at_risk_at(times).tolist(),
            }
        )
    tables: dict[str, Any] = {"curves": rows}
    if len(rows) > 1:
        tables["log_rank"] = asdict(log_rank(sample, names))
    return tables


def _calibration(
    sample: SurvivalSample, said: SurvivalPrediction, times: FloatArray, confidence: float
) -> list[dict[str, Any]]:
    if said.survival is None:
        return []
    predicted = np.asarray(said.survival, dtype=np.float64)
    groups = min(DEFAULT_GROUPS, max(2, sample.n // LEAST_OF_GROUP))
    return [
        {"time": float(time), **asdict(group)}
        for place, time in enumerate(times)
        for group in calibration_at(
            sample, predicted[:, place], time, groups=groups, confidence=confidence
        )
    ]


def _notes(
    found: Mapping[str, Score],
    said: SurvivalPrediction,
    times: FloatArray,
    sample: SurvivalSample,
) -> tuple[str, ...]:
    notes = [f"Times are in {said.unit}. A higher risk is worse."]
    if said.training is None:
        notes.append(OWN_CENSORING)
    if not len(said.cuts):
        notes.append(OWN_CUTS)
    followed = float((said.training or sample).times.max(initial=0.0))
    late = [f"{time:g}" for time in times if time >= followed]
    if late:
        whose = "scored" if said.training is None else "training"
        notes.append(
            f"No {whose} patient was followed beyond {followed:g} {said.unit}: what is said of "
            f"{', '.join(late)} {said.unit} rests on nobody."
        )
    undefined = [name for name, score in found.items() if np.isnan(score.value)]
    if undefined:
        notes.append("Undefined here: " + ", ".join(undefined) + ".")
    return tuple(notes)
