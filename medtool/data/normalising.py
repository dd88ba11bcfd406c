"""Values of a channel made comparable between images, in place and plane by plane.

The schemes of nnU-Net (Isensee 2021; default_normalization_schemes.py of version 2.8.1), told apart
by ``core.plan.Normalisation``: ``ct`` by the foreground of all training cases, ``z-score`` by the
image itself, ``rescale-0-1`` by its range, ``rgb-0-1`` by 255.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import InputError
from medtool.core.plan import ChannelIntensities, Normalisation

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Deviations and ranges under this are those of an image of one value: it becomes 0.
SMALLEST_SCALE = 1e-8
RGB_MOST = 255.0


def normalise(
    channel: NDArray[np.float32],
    scheme: Normalisation,
    *,
    intensities: ChannelIntensities | None = None,
    inside: NDArray[np.bool_] | None = None,
) -> None:
    """Normalise ``channel`` (z, y, x) in place.

    ``intensities`` are those of all training cases and are needed for ``ct`` alone; ``inside``
    limits ``z-score`` to a mask and leaves what is outside as it is. Raises InputError where an
    ``rgb-0-1`` channel goes beyond 0 to 255.
    """
    if scheme == "z-score":
        _to_z_scores(channel, inside)
    elif scheme == "ct":
        if intensities is None:
            raise InputError("CT is normalised by the plan's intensities, and it has none.")
        np.clip(channel, intensities.percentile_00_5, intensities.percentile_99_5, out=channel)
        _shift_and_scale(channel, intensities.mean, intensities.std)
    elif scheme == "rescale-0-1":
        low, high = float(channel.min()), float(channel.max())
        _shift_and_scale(channel, low, high - low)
    elif scheme == "rgb-0-1":
        _check_rgb(channel)
        channel /= np.float32(RGB_MOST)


def _shift_and_scale(values: NDArray[np.float32], shift: float, scale: float) -> None:
    values -= np.float32(shift)
    values /= np.float32(max(scale, SMALLEST_SCALE))


def _to_z_scores(channel: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> None:
    count = channel.size if inside is None else int(np.count_nonzero(inside))
    if not count:
        return
    kept = [slice(None)] * len(channel) if inside is None else list(inside)
    planes = list(zip(channel, kept, strict=True))
    # A plane at a time in float64: a volume in float64 would double the memory.
    mean = math.fsum(float(plane[part].sum(dtype=np.float64)) for plane, part in planes) / count
    squares = math.fsum(
        float(np.square(plane[part].astype(np.float64) - mean).sum()) for plane, part in planes
    )
    deviation = math.sqrt(squares / count)
    for plane, part in planes:
        values = plane[part]
        _shift_and_scale(values, mean, deviation)
        plane[part] = values


def _check_rgb(channel: NDArray[np.float32]) -> None:
    low, high = float(channel.min()), float(channel.max())
    if low < 0 or high > RGB_MOST:
        raise InputError(
            "A channel is said to hold colours, but its values are none.",
            met=f"{low:g} to {high:g}",
            wanted="0 to 255",
        )
