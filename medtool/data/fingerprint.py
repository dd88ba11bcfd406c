"""What a segmentation data set looks like: sizes, spacings and intensities of its training cases.

Read off one case at a time and pooled afterwards, so that no two volumes need be in memory
together. As in nnU-Net (Isensee 2021), sizes are those after cropping to what is not zero, and
every case has the same weight in the intensities, however large its foreground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import InputError
from medtool.core.plan import ChannelIntensities
from medtool.data.cropping import nonzero_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Order statistics kept of the foreground of a case: its percentiles are exact to 0.01 %.
QUANTILES = 10_000
# Percentiles that CT values are clipped to.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5


@dataclass(frozen=True)
class ForegroundValues:
    """One channel inside the foreground of one case, bounded in size.

    ``quantiles`` are evenly spaced order statistics, ascending float32, at most ``QUANTILES``;
    mean, mean of squares and range are those of all voxels.
    """

    quantiles: NDArray[np.float32]
    mean: float
    mean_square: float
    low: float
    high: float


@dataclass(frozen=True)
class CaseFingerprint:
    """One training case; sizes and spacings in array order (z, y, x).

    ``foreground`` has one entry a channel and is empty where no voxel has a label over 0.
    """

    size_vox: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    relative_size: float
    foreground: tuple[ForegroundValues, ...]


@dataclass(frozen=True)
class Fingerprint:
    """A data set: one size and spacing a case, intensities a channel (none without foreground)."""

    sizes_vox: tuple[tuple[int, int, int], ...]
    spacings_mm: tuple[tuple[float, float, float], ...]
    median_relative_size: float
    intensities: tuple[ChannelIntensities, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "sizes_vox": [list(size) for size in self.sizes_vox],
            "spacings_mm": [list(spacing) for spacing in self.spacings_mm],
            "median_relative_size": self.median_relative_size,
            "intensities": [vars(channel) for channel in self.intensities],
        }


def case_fingerprint(
    image: NDArray[np.float32], label: NDArray[np.integer[Any]], spacing_mm: Sequence[float]
) -> CaseFingerprint:
    """The fingerprint of ``image`` (channels, z, y, x) with its ``label`` (z, y, x).

    ``spacing_mm`` is in array order.
    """
    box = nonzero_box(image)
    foreground = label[box] > 0
    size = foreground.shape
    channels = (channel[box][foreground] for channel in image) if foreground.any() else ()
    return CaseFingerprint(
        size_vox=(size[0], size[1], size[2]),
        spacing_mm=(float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
        relative_size=math.prod(size) / label.size,
        foreground=tuple(_foreground_values(values) for values in channels),
    )


def _foreground_values(values: NDArray[Any]) -> ForegroundValues:
    ascending = np.sort(values.astype(np.float32))
    if len(ascending) > QUANTILES:
        # The middles of as many equal shares.
        ranks = (np.arange(QUANTILES) + 0.5) / QUANTILES * len(ascending)
        kept = ascending[ranks.astype(np.int64)]
    else:
        kept = ascending
    exact = ascending.astype(np.float64)
    return ForegroundValues(
        quantiles=kept,
        mean=float(exact.mean()),
        mean_square=float((exact**2).mean()),
        low=float(ascending[0]),
        high=float(ascending[-1]),
    )


def pooled(cases: Iterable[CaseFingerprint]) -> Fingerprint:
    """The fingerprint of a data set. Raises InputError without any case."""
    known = tuple(cases)
    if not known:
        raise InputError("There is no training case to plan with.")
    channels = zip(*(case.foreground for case in known if case.foreground), strict=True)
    return Fingerprint(
        sizes_vox=tuple(case.size_vox for case in known),
        spacings_mm=tuple(case.spacing_mm for case in known),
        median_relative_size=float(np.median([case.relative_size for case in known])),
        intensities=tuple(_pooled_channel(channel) for channel in channels),
    )


def _pooled_channel(cases: Sequence[ForegroundValues]) -> ChannelIntensities:
    mean = float(np.mean([case.mean for case in cases]))
    variance = float(np.mean([case.mean_square for case in cases])) - mean**2
    values = np.concatenate([case.quantiles for case in cases])
    weights = np.concatenate(
        [np.full(len(case.quantiles), 1 / len(case.quantiles)) for case in cases]
    )
    percentiles = _weighted_percentiles(values, weights, (LOW_PERCENTILE, 50.0, HIGH_PERCENTILE))
    return ChannelIntensities(
        mean=mean,
        median=percentiles[1],
        std=math.sqrt(max(variance, 0.0)),
        low=min(case.low for case in cases),
        high=max(case.high for case in cases),
        percentile_00_5=percentiles[0],
        percentile_99_5=percentiles[2],
    )


def _weighted_percentiles(
    values: NDArray[np.float32], weights: NDArray[np.float64], percents: Sequence[float]
) -> list[float]:
    """The least value that at least so much of all weight does not exceed."""
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weights[order])
    shares /= shares[-1]
    # Sums of many shares round: a percentile that is met to twelve digits is met.
    places = np.searchsorted(shares, np.asarray(percents) / 100 - 1e-12)
    return [float(values[order[min(place, len(order) - 1)]]) for place in places]
