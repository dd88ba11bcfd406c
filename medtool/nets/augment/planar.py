"""Flat images and their masks: resized, flipped and turned together, through albumentations.

As everywhere here the parameters are drawn first; albumentations is then told exactly what to do
and draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtool.core.environment import keep_imports_offline

# The copies of an image in a training set that is made four times as large.
FOURFOLD = 4


@dataclass(frozen=True)
class PlanarRecipe:
    """How often an image is flipped (in rows, in columns) and turned, and how far."""

    flip_rows_probability: float = 0.5
    flip_columns_probability: float = 0.5
    rotation_probability: float = 0.5
    rotation_degrees: float = 45.0


@dataclass(frozen=True)
class PlanarChanges:
    """What happens to one image, in this order; by default nothing.

    ``angle_degrees`` turns against the clock as the image is looked at, rows going down.
    """

    rows_flipped: bool = False
    columns_flipped: bool = False
    angle_degrees: float = 0.0


def draw_planar_changes(rng: np.random.Generator, recipe: PlanarRecipe) -> PlanarChanges:
    """What happens to one image."""
    rows, columns, turns = (float(share) for share in rng.random(3))
    angle = float(rng.uniform(-recipe.rotation_degrees, recipe.rotation_degrees))
    return PlanarChanges(
        rows_flipped=rows < recipe.flip_rows_probability,
        columns_flipped=columns < recipe.flip_columns_probability,
        angle_degrees=angle if turns < recipe.rotation_probability else 0.0,
    )


def draw_fourfold_changes(
    rng: np.random.Generator, recipe: PlanarRecipe, copy: int
) -> PlanarChanges:
    """What happens to copy 0 to 3 of an image: nothing, columns or rows flipped, turned."""
    angle = float(rng.uniform(-recipe.rotation_degrees, recipe.rotation_degrees))
    return (
        PlanarChanges(),
        PlanarChanges(columns_flipped=True),
        PlanarChanges(rows_flipped=True),
        PlanarChanges(angle_degrees=angle),
    )[copy]


def apply_planar_changes(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    changes: PlanarChanges,
    size_px: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The image (rows, columns, channels) at ``size_px`` and its labels (rows, columns), changed.

    The image is interpolated linearly, labels take the nearest; corners that a rotation uncovers
    are 0 in both.
    """
    albumentations = _albumentations()
    steps: list[Any] = [albumentations.Resize(*size_px)]
    if changes.rows_flipped:
        steps.append(albumentations.VerticalFlip(p=1))
    if changes.columns_flipped:
        steps.append(albumentations.HorizontalFlip(p=1))
    if changes.angle_degrees:
        limit = (changes.angle_degrees, changes.angle_degrees)
        steps.append(albumentations.Rotate(limit=limit, p=1))
    # Nothing is left to chance; the seed keeps it from asking the system for one.
    changed = albumentations.Compose(steps, seed=0)(image=image, mask=labels)
    return changed["image"], changed["mask"]


def _albumentations() -> Any:
    """The package; imported late, for it takes seconds."""
    keep_imports_offline()
    import albumentations

    return albumentations
