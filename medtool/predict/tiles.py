"""Where the windows of a sliding window lie, and how much each of their voxels counts.

Both as in nnU-Net v2 (Isensee et al., Nature Methods 2021), so that the same weights give the same
logits. Axis order is that of the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Half a window: every voxel is seen by at least two windows along each axis of a large volume.
STEP = 0.5
# Standard deviation of the weights, as a share of the window.
SIGMA_SHARE = 1 / 8
# nnU-Net lifts the peak so that small weights survive half precision, in which it keeps them.
PEAK = 10.0


def window_starts(
    size_vox: Sequence[int], window_vox: Sequence[int], step: float = STEP
) -> tuple[tuple[int, ...], ...]:
    """First voxel of each window, for each axis; the last window ends where the volume does.

    ``step`` is the largest move between two windows, as a share of the window and at least one
    voxel; the moves are made equal. An axis that is shorter than the window has one start, 0.
    Raises ValueError where ``step`` is not in (0, 1].
    """
    if not 0 < step <= 1:
        raise ValueError(f"step is {step}, wanted more than 0 and at most 1")
    return tuple(
        _starts(max(size - window, 0), max(window * step, 1.0))
        for size, window in zip(size_vox, window_vox, strict=True)
    )


def _starts(free_vox: int, longest_move_vox: float) -> tuple[int, ...]:
    moves = math.ceil(free_vox / longest_move_vox)
    # Multiplied last, as in nnU-Net: a tie is rounded to the same voxel.
    move_vox = free_vox / max(moves, 1)
    return tuple(round(move_vox * count) for count in range(moves + 1))


def window_weights(window_vox: Sequence[int]) -> NDArray[np.float32]:
    """How much each voxel of a window counts: a Gaussian around its middle, nowhere 0.

    Rounded to half precision as in nnU-Net; what would vanish there gets the smallest weight that
    does not.
    """
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros(tuple(window_vox))
    impulse[tuple(axis_vox // 2 for axis_vox in window_vox)] = 1
    sigmas_vox = [axis_vox * SIGMA_SHARE for axis_vox in window_vox]
    weights = gaussian_filter(impulse, sigmas_vox, mode="constant")
    weights /= weights.max() / PEAK
    halves = weights.astype(np.float16)
    halves[halves == 0] = halves[halves > 0].min()
    kept: NDArray[np.float32] = halves.astype(np.float32)
    return kept
