"""How much two masks overlap: counts of voxels, and everything that is computed from them.

Source of the names: Metrics Reloaded (Maier-Hein et al., Nat Methods 2024). A ratio without a
denominator is NaN: a mask that is empty like its reference is no success and no failure, while
Dice and IoU are 0 when one of the two is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Voxels of a prediction against its reference: true and false, positive and negative."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def reference_vox(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def prediction_vox(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    def metrics(self) -> dict[str, float]:
        """Shares by name, NaN where undefined.

        ``relative_volume_error`` is (predicted - reference) / reference: negative when too little
        was found.
        """
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        return {
            "dice": _ratio(2 * tp, 2 * tp + fp + fn),
            "iou": _ratio(tp, tp + fp + fn),
            "sensitivity": _ratio(tp, tp + fn),
            "specificity": _ratio(tn, tn + fp),
            "precision": _ratio(tp, tp + fp),
            "relative_volume_error": _ratio(fp - fn, tp + fn),
        }


def overlap(prediction: Mask, reference: Mask, voxels: int | None = None) -> Overlap:
    """Count the voxels of two masks of one shape.

    ``voxels`` is the number of the whole image where the masks are a part cut out of it with
    nothing outside; it is needed for true negatives alone.
    """
    tp = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return Overlap(tp, fp, fn, (prediction.size if voxels is None else voxels) - tp - fp - fn)


def _ratio(above: int, below: int) -> float:
    return above / below if below else nan
