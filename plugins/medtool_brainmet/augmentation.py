"""Stage 5: random changes of training slices, drawn first and applied after.

``draw_changes`` takes all its randomness from the generator it is given; ``apply_changes`` has
none, so what happened to a slice can be stored and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool.core.environment import keep_imports_offline

if TYPE_CHECKING:
    from medtool_brainmet.settings import BrainmetAugmentSection, ChangesSection

# Unsharp masking compares a slice with its blur of this size and deviation.
SHARPEN_KERNEL_PX = 5
SHARPEN_SIGMA_PX = 1.0
BLUR_KERNEL_PX = 3

# The changes in the order in which they are drawn and applied, and the value that changes nothing.
NEUTRAL: Mapping[str, float] = {
    "gamma": 1.0,
    "clahe_clip": 0.0,
    "blur_sigma_px": 0.0,
    "sharpen_amount": 0.0,
}


def changes_for(settings: BrainmetAugmentSection, label: float | None) -> ChangesSection | None:
    """Which changes a slice of a study with ``label`` gets; None for none."""
    if not settings.enabled:
        return None
    if not settings.by_class:
        return settings.both
    if label is None:
        return None
    return settings.positive if label >= 0.5 else settings.negative


def draw_changes(rng: np.random.Generator, changes: ChangesSection | None) -> dict[str, float]:
    """Which changes happen, and how strong; a name that is missing does not happen."""
    if changes is None:
        return {}
    drawn: dict[str, float] = {}
    for name, neutral in NEUTRAL.items():
        low, high = getattr(changes, name)
        # Both numbers are always drawn: switching one change off leaves the others as they were.
        happens, value = rng.random() < changes.probability, rng.uniform(low, high)
        if happens and (low, high) != (neutral, neutral):
            drawn[name] = float(value)
    if "clahe_clip" in drawn:
        drawn["clahe_tiles"] = float(changes.clahe_tiles)
    return drawn


def apply_changes(
    image: NDArray[Any], mask: NDArray[np.bool_] | None, drawn: Mapping[str, float]
) -> NDArray[np.float32]:
    """A windowed slice (rows, columns; 0 to 1) changed as drawn; 0 outside the mask stays 0."""
    changed: NDArray[np.float32] = np.asarray(image, dtype=np.float32)
    if "gamma" in drawn:
        changed = np.power(changed, np.float32(drawn["gamma"]))
    if "clahe_clip" in drawn:
        tiles = round(drawn["clahe_tiles"])
        changed = _albumentations().clahe(changed, drawn["clahe_clip"], (tiles, tiles))
    if "blur_sigma_px" in drawn:
        kernel = (BLUR_KERNEL_PX, BLUR_KERNEL_PX)
        blurred = cv2.GaussianBlur(changed, kernel, drawn["blur_sigma_px"])
        changed = np.asarray(blurred, dtype=np.float32)
    if "sharpen_amount" in drawn:
        changed = _albumentations().unsharp_mask(
            changed, SHARPEN_KERNEL_PX, SHARPEN_SIGMA_PX, drawn["sharpen_amount"], 0
        )
    changed = np.clip(changed, 0.0, 1.0).astype(np.float32, copy=False)
    return changed if mask is None else np.where(mask, changed, np.float32(0))


def _albumentations() -> Any:
    """albumentations' pixel functions; imported late, for it takes seconds."""
    keep_imports_offline()
    from albumentations.augmentations.pixel import functional

    return functional
