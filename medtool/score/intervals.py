"""Intervals: Wilson for a share of independent cases, bootstrap by patient for everything else.

The bootstrap draws patients with replacement and keeps all cases of each with their multiplicity.
A draw with one class only is drawn again and counted. Draws are a matrix of weights, so that every
metric is computed for all draws at once (memory bounded by chunks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from scipy.special import ndtr, ndtri

from medtool.score.ranking import divide
from medtool.score.sample import BinarySample, FloatArray, PatientSample

DEFAULT_DRAWS = 2000
DEFAULT_CONFIDENCE = 0.95
# Elements of one chunk of weights (draws x cases): 4 million float64 are 32 MB.
CHUNK_ELEMENTS = 4_000_000
# A draw is repeated at most so often; with one patient of a class, 1 in e draws lacks it.
LARGEST_REDRAWS = 200

Metrics = Callable[[FloatArray], dict[str, FloatArray]]


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of each metric, (draws,); how often a draw was repeated for want of a class."""

    replicates: dict[str, FloatArray]
    draws: int
    redrawn: int
    patients: int
    seed: int
    jackknife: dict[str, FloatArray] = field(default_factory=dict)

    def percentile(self, name: str, confidence: float = DEFAULT_CONFIDENCE) -> tuple[float, float]:
        """The plain quantiles of the replicates; NaN where a draw left the metric undefined."""
        return percentile_interval(self.replicates[name], confidence)

    def bca(
        self, name: str, estimate: float, confidence: float = DEFAULT_CONFIDENCE
    ) -> tuple[float, float]:
        """Bias-corrected and accelerated interval; the percentiles where it is degenerate."""
        return bca_interval(
            self.replicates[name],
            estimate,
            self.jackknife.get(name, np.empty(0)),
            confidence,
        )


def wilson(events: float, n: float, confidence: float = DEFAULT_CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of events / n, clipped to 0..1; NaN when n is 0."""
    if n <= 0:
        return float("nan"), float("nan")
    z = float(ndtri(0.5 + confidence / 2.0))
    share = events / n
    below = 1.0 + z * z / n
    centre = (share + z * z / (2.0 * n)) / below
    half = z * sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / below
    low = 0.0 if events == 0 else max(0.0, centre - half)
    high = 1.0 if events == n else min(1.0, centre + half)
    return low, high


def percentile_interval(
    replicates: FloatArray, confidence: float = DEFAULT_CONFIDENCE
) -> tuple[float, float]:
    """Quantiles of the finite replicates; NaN when fewer than half are finite."""
    finite = replicates[np.isfinite(replicates)]
    if finite.size == 0 or finite.size * 2 < replicates.size:
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(finite, (tail, 1.0 - tail))
    return float(low), float(high)


def bca_interval(
    replicates: FloatArray,
    estimate: float,
    jackknife: FloatArray,
    confidence: float = DEFAULT_CONFIDENCE,
) -> tuple[float, float]:
    """Efron's BCa interval; ``jackknife`` holds the metric with each patient left out.

    Falls back on the percentiles when all replicates are equal, the jackknife is constant or a
    value is undefined.
    """
    finite = replicates[np.isfinite(replicates)]
    plain = percentile_interval(replicates, confidence)
    left = jackknife[np.isfinite(jackknife)]
    spread = float(np.ptp(finite)) if finite.size else 0.0
    if spread == 0.0 or left.size < 2 or not np.isfinite(estimate):
        return plain
    share = float(np.mean(finite < estimate) + 0.5 * np.mean(finite == estimate))
    deviation = left.mean() - left
    squares = float((deviation**2).sum())
    if squares == 0.0 or not 0.0 < share < 1.0:
        return plain
    z0 = float(ndtri(share))
    acceleration = float((deviation**3).sum()) / (6.0 * squares**1.5)
    z = float(ndtri(0.5 + confidence / 2.0))
    bounds = []
    for tail in (z0 - z, z0 + z):
        below = 1.0 - acceleration * tail
        if below <= 0.0:
            return plain
        bounds.append(float(ndtr(z0 + tail / below)))
    low, high = np.quantile(finite, bounds)
    return float(low), float(high)


def separated_interval(
    sample: BinarySample, estimate: float, confidence: float = DEFAULT_CONFIDENCE
) -> tuple[float, float]:
    """Interval of an AUROC of exactly 0 or 1, where every bootstrap draw gives the same.

    k disjoint pairs of a positive and a negative patient, all in one order, are k independent
    trials: Wilson's interval of k (or 0) in k, k being the smaller number of patients.
    """
    positive = np.unique(sample.patient[sample.labels == 1.0]).size
    negative = np.unique(sample.patient[sample.labels == 0.0]).size
    pairs = min(positive, negative)
    return wilson(pairs * estimate, pairs, confidence)


def draw_patients(sample: PatientSample, draws: int, seed: int) -> tuple[FloatArray, int]:
    """(draws, patients) how often each patient is drawn, and the number of draws repeated.

    Nothing is repeated where the sample has no classes, or one only.
    """
    generator = np.random.default_rng(seed)
    counts = _counts(generator, draws, len(sample.patients))
    if not isinstance(sample, BinarySample) or not sample.both_classes:
        return counts, 0
    positive = np.bincount(sample.patient, sample.labels, len(sample.patients))
    negative = np.bincount(sample.patient, 1.0 - sample.labels, len(sample.patients))
    redrawn = 0
    for _ in range(LARGEST_REDRAWS):
        lacking = np.flatnonzero((counts @ positive == 0) | (counts @ negative == 0))
        if lacking.size == 0:
            break
        redrawn += int(lacking.size)
        counts[lacking] = _counts(generator, int(lacking.size), len(sample.patients))
    return counts, redrawn


def _counts(generator: np.random.Generator, draws: int, patients: int) -> FloatArray:
    drawn = generator.integers(0, patients, size=(draws, patients))
    drawn += np.arange(draws)[:, None] * patients
    counts = np.bincount(drawn.reshape(-1), minlength=draws * patients)
    return counts.reshape(draws, patients).astype(np.float64)


def row_weights(sample: PatientSample, counts: FloatArray) -> Iterator[FloatArray]:
    """Chunks of (draws, cases) weights from (draws, patients) counts."""
    step = _rows_of_a_chunk(sample)
    for start in range(0, counts.shape[0], step):
        yield counts[start : start + step][:, sample.patient]


def jackknife_weights(sample: PatientSample) -> Iterator[FloatArray]:
    """Chunks of (patients, cases) weights, each row without one patient, in their order.

    There is no matrix of patients by patients: its memory would grow with their square.
    """
    patients = len(sample.patients)
    step = _rows_of_a_chunk(sample)
    for start in range(0, patients, step):
        left_out = np.arange(start, min(start + step, patients))
        yield (sample.patient != left_out[:, None]).astype(np.float64)


def _rows_of_a_chunk(sample: PatientSample) -> int:
    return max(1, CHUNK_ELEMENTS // max(sample.n, 1))


def _over_chunks(chunks: Iterable[FloatArray], metrics: Metrics) -> dict[str, FloatArray]:
    parts = [metrics(weights) for weights in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bootstrap(
    sample: PatientSample,
    metrics: Metrics,
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
    jackknife: bool = True,
) -> Bootstrap:
    """Replicates of ``metrics`` over resampled patients, and their jackknife values.

    ``metrics`` takes (draws, cases) weights and gives (draws,) values by name. Without the
    ``jackknife``, which takes a draw a patient, there are percentiles alone.
    """
    counts, redrawn = draw_patients(sample, draws, seed)
    replicates = _over_chunks(row_weights(sample, counts), metrics)
    patients = len(sample.patients)
    without: dict[str, FloatArray] = {}
    if jackknife and patients > 1:
        without = _over_chunks(jackknife_weights(sample), metrics)
    return Bootstrap(replicates, draws, redrawn, patients, seed, without)


def two_sided_p(differences: FloatArray) -> float:
    """Bootstrap p of "no difference": 2 min(P(d <= 0), P(d >= 0)), each count plus one."""
    finite = differences[np.isfinite(differences)]
    if finite.size == 0:
        return float("nan")
    tail = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return float(min(1.0, 2.0 * float(divide(tail + 1.0, finite.size + 1.0))))
