"""Times to an event or to the end of follow-up, one a patient, checked once.

Conventions of everything that is named survival here: an event is 1, censoring 0; a higher risk is
worse; a patient whose follow-up ends at the time of another's event was still at risk then; times
have one unit, the caller's, which nothing here needs to know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtool.core.errors import LabelsError, UsageError
from medtool.score.sample import FloatArray, PatientSample, patient_sample

# Patients named in a refusal.
_NAMED = 3


@dataclass(frozen=True)
class SurvivalSample(PatientSample):
    """n patients, each with one outcome.

    ``times`` (n,) until the event or the end of follow-up, above 0; ``events`` (n,) 1 where the
    event was seen, 0 where follow-up ended before it.
    """

    times: FloatArray
    events: FloatArray

    @property
    def event_count(self) -> int:
        """How many patients had the event."""
        return int(self.events.sum())

    def take(self, rows: NDArray[np.bool_]) -> SurvivalSample:
        """The patients where ``rows`` (n,) is true."""
        kept = [self.patients[i] for i in self.patient[rows]]
        return survival_sample(self.times[rows], self.events[rows], kept)


def survival_sample(
    times: ArrayLike, events: ArrayLike, patients: Sequence[str] | None = None
) -> SurvivalSample:
    """Checked outcomes; without ``patients`` they are called 0, 1, ...

    Raises UsageError (lengths differ) and LabelsError (a time that is no number above 0, an event
    other than 0 and 1, a patient with two outcomes); each names the first patients it met.
    """
    until = np.asarray(times, dtype=np.float64).reshape(-1)
    seen = np.asarray(events, dtype=np.float64).reshape(-1)
    ids = [str(i) for i in range(until.size)] if patients is None else [str(p) for p in patients]
    if not until.size == seen.size == len(ids):
        raise UsageError(
            "Times, events and patients differ in number.",
            met=f"{until.size} times, {seen.size} events, {len(ids)} patients",
            wanted="one of each per patient",
        )
    _refuse(
        ids,
        ~(np.isfinite(until) & (until > 0)),
        until,
        what="A time of follow-up is no time.",
        wanted="a number above 0 for each patient; one without follow-up has no outcome",
    )
    _refuse(
        ids,
        ~np.isin(seen, (0.0, 1.0)),
        seen,
        what="An event is neither seen nor not seen.",
        wanted="1 where the event was seen, 0 where follow-up ended before it",
    )
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise LabelsError(
            "A patient has more than one outcome.",
            met=f"{len(twice)} patients, first {', '.join(twice[:_NAMED])}",
            wanted="one row a patient",
        )
    whose = patient_sample(ids)
    return SurvivalSample(whose.patient, whose.patients, until, seen)


def check_risks(sample: SurvivalSample, risks: ArrayLike) -> FloatArray:
    """Risks (n,) as numbers; raises UsageError where one is missing or no finite number."""
    values = np.asarray(risks, dtype=np.float64)
    if values.shape != (sample.n,) or not np.isfinite(values).all():
        shape = " x ".join(map(str, values.shape)) or "one"
        raise UsageError(
            "The risks do not fit the patients.",
            met=f"{shape} risks, {int((~np.isfinite(values)).sum())} of them no finite number",
            wanted=f"{sample.n}, one a patient",
        )
    return values


def _refuse(
    ids: list[str], wrong: NDArray[np.bool_], values: FloatArray, *, what: str, wanted: str
) -> None:
    places = np.flatnonzero(wrong)
    if places.size:
        named = ", ".join(f"{ids[i]}: {values[i]:g}" for i in places[:_NAMED])
        raise LabelsError(
            what, met=f"{places.size} of {values.size} patients, first {named}", wanted=wanted
        )
