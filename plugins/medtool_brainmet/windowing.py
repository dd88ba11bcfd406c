"""Stage 2: HU to shares of a window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def apply_window(
    volume_hu: NDArray[np.float32], level_hu: float, width_hu: float
) -> NDArray[np.float32]:
    """0 at ``level - width/2`` and below, 1 at ``level + width/2`` and above, linear between.

    The plain window of radiology; DICOM's LINEAR function (PS3.3 C.11.2.1.2) differs by half a
    grey value at the ends and is not used here.
    """
    low_hu = level_hu - width_hu / 2
    share: NDArray[np.float32] = np.clip((volume_hu - low_hu) / width_hu, 0.0, 1.0)
    return share.astype(np.float32, copy=False)
