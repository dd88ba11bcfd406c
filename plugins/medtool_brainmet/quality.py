"""Stage 4: which slices the network sees.

Slices with little brain, much noise or motion are dropped, each with its reason; slices whose left
and right differ most are kept whatever the others say, because that is what a lesion looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtool_brainmet.asymmetry import MidSagittal, asymmetry_indices, find_mid_sagittal
from medtool_brainmet.morphology import Mask

if TYPE_CHECKING:
    from medtool_brainmet.settings import QualitySection

# Median absolute deviation to standard deviation, for a normal distribution.
MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class SliceQuality:
    """What was measured on one slice, and the verdict.

    ``correlation`` is the better one of those with the neighbours; ``reason`` is "" or the code
    that dropped the slice, or "asymmetric" where asymmetry kept it.
    """

    brain_share: float
    noise: float
    correlation: float
    asymmetry: float
    used: bool
    reason: str


def judge_slices(
    slices: NDArray[np.float32], mask: Mask, pixel_mm: float, settings: QualitySection
) -> tuple[list[SliceQuality], MidSagittal]:
    """The verdict on each slice (z, y, x; windowed, 0 outside ``mask``), and the mid-line."""
    line = find_mid_sagittal(mask, pixel_mm)
    shares = mask.mean(axis=(1, 2))
    noise = np.array([slice_noise(*pair) for pair in zip(slices, mask, strict=True)])
    correlation = neighbour_correlations(slices, mask)
    asymmetry = asymmetry_indices(slices, mask, line, pixel_mm)
    held = shares > 0
    limit = _percentile(asymmetry[held], settings.asymmetry_percentile)
    noise_limit = settings.noise_factor * _median(noise)
    correlation_limit = settings.correlation_factor * _median(correlation)
    verdicts = []
    for index, share in enumerate(shares):
        reason = ""
        if share < settings.least_brain_share:
            reason = "little-brain"
        elif noise[index] > noise_limit:
            reason = "noise"
        elif correlation[index] < correlation_limit:
            reason = "motion"
        if reason and held[index] and asymmetry[index] > limit:
            reason = "asymmetric"
        verdicts.append(
            SliceQuality(
                brain_share=float(share),
                noise=float(noise[index]),
                correlation=float(correlation[index]),
                asymmetry=float(asymmetry[index]),
                used=reason in ("", "asymmetric"),
                reason=reason,
            )
        )
    return verdicts, line


def slice_noise(plane: NDArray[np.float32], inside: Mask) -> float:
    """Robust deviation of the Laplacian where pixel and its four neighbours are inside.

    1.4826 x the median absolute deviation, in shares of the window; NaN where no pixel qualifies.
    """
    centre, up, down, left, right = _neighbourhood(plane)
    whole = np.logical_and.reduce(_neighbourhood(inside))
    laplacian = (up + down + left + right - 4 * centre)[whole]
    if laplacian.size == 0:
        return float("nan")
    return float(MAD_TO_SD * np.median(np.abs(laplacian - np.median(laplacian))))


def neighbour_correlations(slices: NDArray[np.float32], mask: Mask) -> NDArray[np.float64]:
    """Per slice the better Pearson correlation with the slice before and the one after.

    Over the pixels inside both masks; NaN where neither neighbour can be compared.
    """
    pairs = np.full(len(slices) + 1, np.nan)
    for index in range(1, len(slices)):
        both = mask[index - 1] & mask[index]
        pairs[index] = _correlation(slices[index - 1][both], slices[index][both])
    better: NDArray[np.float64] = np.fmax(pairs[:-1], pairs[1:])
    return better


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    if first.size < 3:
        return float("nan")
    first, second = first - first.mean(), second - second.mean()
    energy = float(np.sqrt(float((first**2).sum()) * float((second**2).sum())))
    return float((first * second).sum()) / energy if energy > 0 else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    """Median of what is not NaN; NaN (which no value exceeds) where nothing is left."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _percentile(values: NDArray[np.float64], percentile: float) -> float:
    return float(np.percentile(values, percentile)) if values.size else float("nan")


def _neighbourhood(plane: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The inner pixels, and their neighbours above, below, left and right."""
    return (
        plane[1:-1, 1:-1],
        plane[:-2, 1:-1],
        plane[2:, 1:-1],
        plane[1:-1, :-2],
        plane[1:-1, 2:],
    )
