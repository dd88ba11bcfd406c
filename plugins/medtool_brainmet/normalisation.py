"""Stage 6: windowed slices as the network's input, each slice by itself.

By slice, and not by study, so that the result does not depend on which slices stand beside it in a
chunk or in a draw.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Deviations below this share of the window (0.8 HU of 80) are an empty or constant slice.
LEAST_DEVIATION = 0.01


def normalise_slices(
    slices: NDArray[Any],
    masks: NDArray[np.bool_],
    how: Literal["brain_zscore", "radimagenet"],
) -> NDArray[np.float32]:
    """Slices (n, rows, columns; 0 to 1) scaled; outside the mask the value of the background.

    ``brain_zscore``: mean 0, deviation 1 over the masked pixels, background 0. ``radimagenet``:
    2 x - 1 as those weights were trained, background -1.
    """
    values = slices.astype(np.float32)
    if how == "radimagenet":
        return np.where(masks, 2 * values - 1, -1).astype(np.float32)
    axes = (1, 2)
    count = np.maximum(masks.sum(axis=axes, keepdims=True), 1)
    mean = np.where(masks, values, 0).sum(axis=axes, keepdims=True) / count
    centred = np.where(masks, values - mean, 0)
    deviation = np.sqrt((centred**2).sum(axis=axes, keepdims=True) / count)
    scaled: NDArray[np.float32] = centred / np.maximum(deviation, LEAST_DEVIATION)
    return scaled.astype(np.float32)
