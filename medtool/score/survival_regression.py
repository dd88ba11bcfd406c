"""Cox's regression on a table of covariates, and Breslow's baseline hazard.

The partial likelihood is maximised by Newton's method on standardised covariates; what is given
back is in the covariates' own units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from medtool.core.errors import LabelsError, UsageError
from medtool.score.intervals import DEFAULT_CONFIDENCE
from medtool.score.sample import FloatArray, IntArray
from medtool.score.survival import SurvivalSample, check_risks

Ties = Literal["efron", "breslow"]

MOST_STEPS = 50
# Newton's method doubles the digits with each step: this is reached or nothing is.
SMALLEST_STEP = 1e-9
# A likelihood that no longer grows while coefficients still do has its maximum at infinity.
SMALLEST_GAIN = 1e-10
# Of the correlation matrix of the covariates: below it one of them says what the others say.
SMALLEST_EIGENVALUE = 1e-10


@dataclass(frozen=True)
class CoxFit:
    """Coefficients of a Cox regression, with what is needed to judge them.

    ``coefficients`` and ``standard_errors`` (p,) are by covariate, in its units. ``warnings`` say
    where they cannot be believed.
    """

    names: tuple[str, ...]
    coefficients: FloatArray
    covariance: FloatArray
    log_likelihood: float
    null_log_likelihood: float
    n: int
    events: int
    ties: Ties
    warnings: tuple[str, ...] = ()

    @property
    def standard_errors(self) -> FloatArray:
        """(p,) from the inverse of the observed information."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def p_values(self) -> FloatArray:
        """(p,) two-sided, by Wald's test."""
        z = np.abs(self.coefficients) / self.standard_errors
        return np.asarray(2.0 * ndtr(-z))

    @property
    def likelihood_ratio(self) -> float:
        """Twice what the covariates add to the logarithm of the likelihood."""
        return 2.0 * (self.log_likelihood - self.null_log_likelihood)

    def hazard_ratios(
        self, confidence: float = DEFAULT_CONFIDENCE
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Hazard ratio of one unit more of each covariate, and its interval: three of (p,)."""
        half = float(ndtri(0.5 + confidence / 2.0)) * self.standard_errors
        middle, low, high = (
            np.exp(self.coefficients + shift) for shift in (np.zeros_like(half), -half, half)
        )
        return middle, low, high

    def risks(self, covariates: ArrayLike) -> FloatArray:
        """(n,) sum of coefficient times covariate for rows (n, p): higher is worse."""
        rows = np.asarray(covariates, dtype=np.float64)
        return np.asarray(rows @ self.coefficients)


def fit_cox(
    sample: SurvivalSample,
    covariates: ArrayLike,
    names: Sequence[str],
    *,
    ties: Ties = "efron",
) -> CoxFit:
    """Fit ``covariates`` (n, p), called ``names``, to the outcomes.

    ``ties``: events at one time by Efron (1977) or Breslow (1974). Where a combination of
    covariates orders the events perfectly the coefficients have no maximum; they are then where
    the search was ended, and ``warnings`` says so. Raises LabelsError without any event and
    UsageError where covariates are missing, constant, or combinations of each other.
    """
    rows = _check_covariates(sample, covariates, names)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    scaled = (rows - mean) / spread
    _refuse_copies(scaled, names)
    layout = _layout(sample)
    null = _likelihood(layout, scaled, np.zeros(len(names)), ties).value
    beta, point, step = _maximise(layout, scaled, ties)
    covariance = np.linalg.pinv(point.information, hermitian=True)
    return CoxFit(
        names=tuple(names),
        coefficients=beta / spread,
        covariance=covariance / np.outer(spread, spread),
        log_likelihood=point.value,
        null_log_likelihood=null,
        n=sample.n,
        events=sample.event_count,
        ties=ties,
        warnings=_unbounded(names, step),
    )


def cox_log_likelihood(sample: SurvivalSample, risks: ArrayLike, *, ties: Ties = "efron") -> float:
    """The partial log-likelihood of risks (n,), summed over events.

    Not finite where risks lie further apart than an exponential can hold, about 700.
    """
    values = check_risks(sample, risks)[:, None]
    return _likelihood(_layout(sample), values, np.ones(1), ties).value


def _check_covariates(
    sample: SurvivalSample, covariates: ArrayLike, names: Sequence[str]
) -> FloatArray:
    rows = np.asarray(covariates, dtype=np.float64)
    if rows.shape != (sample.n, len(names)) or not names:
        raise UsageError(
            "The covariates do not fit the patients.",
            met=f"{' x '.join(map(str, rows.shape))} values, {len(names)} names",
            wanted=f"{sample.n} patients x one column a name, at least one",
        )
    if sample.event_count == 0:
        raise LabelsError(
            "Nothing can be learned about the time to an event that no patient had.",
            met=f"{sample.n} patients, all censored",
            wanted="patients with the event, best ten for each covariate",
        )
    missing = ~np.isfinite(rows)
    if missing.any():
        counts = zip(names, missing.sum(axis=0).tolist(), strict=True)
        told = [f"{name} ({count})" for name, count in counts if count]
        raise UsageError(
            "Covariates are missing.",
            met="no number in " + ", ".join(told),
            wanted="a number in every column for every patient",
            how="leave out these columns or patients, or fill the gaps and say how.",
        )
    constant = [name for name, column in zip(names, rows.T, strict=True) if np.ptp(column) == 0.0]
    if constant:
        raise UsageError(
            "A covariate is the same in all patients.",
            met=", ".join(constant),
            wanted="covariates that differ between patients",
        )
    return rows


def _refuse_copies(scaled: FloatArray, names: Sequence[str]) -> None:
    values, vectors = np.linalg.eigh(scaled.T @ scaled / scaled.shape[0])
    if values[0] < SMALLEST_EIGENVALUE:
        part = np.abs(vectors[:, 0]) > 1e-3
        involved = [name for name, inside in zip(names, part, strict=True) if inside]
        raise UsageError(
            "Covariates are combinations of each other.",
            met=", ".join(involved),
            wanted="columns of which none follows from the others",
            how="leave out one of them.",
        )


class _Layout(NamedTuple):
    """Patients by falling time, and the events by the time they share.

    ``order`` (n,); ``last`` (groups,) where in that order the risk set of a group ends;
    ``events`` (d,) places of events in that order, ``group`` (d,) their group, ``share`` (d,)
    the part of the group's own risk that Efron takes away.
    """

    order: IntArray
    last: IntArray
    events: IntArray
    group: IntArray
    share: FloatArray


def _layout(sample: SurvivalSample) -> _Layout:
    order = np.lexsort((sample.events, -sample.times))
    times = sample.times[order]
    events = np.flatnonzero(sample.events[order] > 0)
    _, first, group, sizes = np.unique(
        -times[events], return_index=True, return_inverse=True, return_counts=True
    )
    last = np.searchsorted(-times, -times[events[first]], side="right") - 1
    number = np.arange(events.size) - first[group]
    return _Layout(order, last, events, group, number / sizes[group])


class _Point(NamedTuple):
    """The logarithm of the likelihood, its slope (p,) and minus its curvature (p, p)."""

    value: float
    slope: FloatArray
    information: FloatArray


def _likelihood(layout: _Layout, covariates: FloatArray, beta: FloatArray, ties: Ties) -> _Point:
    rows = covariates[layout.order]
    risks = rows @ beta
    top = risks.max()
    weight = np.exp(risks - top)
    first = weight[:, None] * rows
    second = first[:, :, None] * rows[:, None, :]
    share = layout.share if ties == "efron" else np.zeros_like(layout.share)
    sums = [_risk_sums(layout, values, share) for values in (weight, first, second)]
    # Too long a step leaves risk sets without any weight: then the value is not finite.
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums[1] / sums[0][:, None]
        spread = sums[2] / sums[0][:, None, None] - mean[:, :, None] * mean[:, None, :]
        value = float((risks[layout.events] - top - np.log(sums[0])).sum())
    return _Point(value, (rows[layout.events] - mean).sum(axis=0), spread.sum(axis=0))


def _risk_sums(layout: _Layout, values: FloatArray, share: FloatArray) -> FloatArray:
    """(d, ...) sum over each event's risk set, less ``share`` of its group's own events."""
    own = np.zeros((layout.last.size, *values.shape[1:]))
    np.add.at(own, layout.group, values[layout.events])
    whole = np.cumsum(values, axis=0)[layout.last]
    less = share.reshape((-1,) + (1,) * (values.ndim - 1))
    found: FloatArray = whole[layout.group] - less * own[layout.group]
    return found


def _maximise(
    layout: _Layout, covariates: FloatArray, ties: Ties
) -> tuple[FloatArray, _Point, FloatArray]:
    """Coefficients, the likelihood there, and the step that Newton's method would take next."""
    beta = np.zeros(covariates.shape[1])
    point = _likelihood(layout, covariates, beta, ties)
    step = _newton_step(point)
    for _ in range(MOST_STEPS):
        if np.abs(step).max() < SMALLEST_STEP:
            break
        beta, further = _climb(layout, covariates, beta, step, point, ties)
        gained, point = further.value - point.value, further
        step = _newton_step(point)
        if gained <= SMALLEST_GAIN * max(1.0, abs(point.value)):
            break
    return beta, point, step


def _newton_step(point: _Point) -> FloatArray:
    return np.asarray(np.linalg.lstsq(point.information, point.slope, rcond=None)[0])


def _climb(
    layout: _Layout,
    covariates: FloatArray,
    beta: FloatArray,
    step: FloatArray,
    here: _Point,
    ties: Ties,
) -> tuple[FloatArray, _Point]:
    """Newton's step, halved while it leads down; where nothing leads up, no step."""
    for _ in range(30):
        point = _likelihood(layout, covariates, beta + step, ties)
        if np.isfinite(point.value) and point.value >= here.value:
            return beta + step, point
        step = step / 2.0
    return beta, here


def _unbounded(names: Sequence[str], step: FloatArray) -> tuple[str, ...]:
    """A warning for the covariates that were still on their way when the likelihood stood."""
    moving = [name for name, size in zip(names, np.abs(step), strict=True) if size > 1e-3]
    if not moving:
        return ()
    return (
        f"The events are ordered perfectly by {', '.join(moving)} (separation): the likelihood has "
        "no maximum, and these coefficients and their errors are not to be believed.",
    )


@dataclass(frozen=True)
class BaselineHazard:
    """Breslow's cumulative hazard of a patient of risk ``centre``, the mean risk in training.

    ``times`` and ``cumulative`` (k,) are at the distinct times of events, ascending.
    """

    times: FloatArray
    cumulative: FloatArray
    centre: float

    def cumulative_at(self, times: ArrayLike) -> FloatArray:
        """The cumulative hazard at each time; beyond the last event it stays as it is."""
        place = np.searchsorted(self.times, np.asarray(times, dtype=np.float64), side="right")
        return np.append(0.0, self.cumulative)[place]

    def survival(self, risks: ArrayLike, times: ArrayLike) -> FloatArray:
        """(n, times) share without event of patients with ``risks`` (n,)."""
        relative = np.exp(np.asarray(risks, dtype=np.float64).reshape(-1, 1) - self.centre)
        return np.asarray(np.exp(-relative * self.cumulative_at(times).reshape(1, -1)))


def baseline_hazard(sample: SurvivalSample, risks: ArrayLike) -> BaselineHazard:
    """Breslow's estimate (1974) from the outcomes and risks (n,) of training patients.

    Raises LabelsError without any event.
    """
    values = check_risks(sample, risks)
    if sample.event_count == 0:
        raise LabelsError(
            "There is no baseline hazard of an event that no patient had.",
            met=f"{sample.n} patients, all censored",
            wanted="training patients with the event",
        )
    layout = _layout(sample)
    centre = float(values.mean())
    at_risk = np.cumsum(np.exp(values[layout.order] - centre))[layout.last]
    rise = np.bincount(layout.group) / at_risk
    times = sample.times[layout.order][layout.last]
    return BaselineHazard(times[::-1], np.cumsum(rise[::-1]), centre)
