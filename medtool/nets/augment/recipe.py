"""nnU-Net's augmentation of patches (Isensee 2021) in 2D and 3D: what is drawn, then applied.

``draw_changes`` takes all its randomness from the generator it is given; ``apply_changes`` has
none, so what happened to a patch can be stored and replayed. What would not happen is drawn all
the same: switching one change off leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medtool.nets.augment import intensity
from medtool.nets.augment.spatial import (
    Matrix,
    change_matrix,
    changed_patch,
    enlarged_patch_size_vox,
)

# In 3D a patch this many times as long as it is deep is changed plane by plane; in 2D one that is
# this many times as long as it is wide is turned a little only.
FLAT_PATCH = 3.0
LONG_PATCH = 1.5
ROTATION_3D_DEGREES, ROTATION_PLANE_DEGREES, ROTATION_LONG_DEGREES = 30.0, 180.0, 15.0

# The label of what lies outside a patient's image, from cropping and padding.
OUTSIDE = -1

# A range that is drawn from below or above 1 with equal chances.
Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """What may happen to a patch: how often, and how strongly.

    ``in_plane`` leaves the first axis alone where axes are turned, scaled or coarsened. Channels
    of ``masked`` are set to 0 outside the patient after all changes. ``mirror_axes`` are those
    along which the labels have no side. The numbers are nnU-Net's.
    """

    patch_size_vox: tuple[int, ...]
    channels: int
    in_plane: bool
    rotation_degrees: float
    mirror_axes: tuple[int, ...]
    masked: tuple[bool, ...] = ()
    rotation_probability: float = 0.2
    scaling_probability: float = 0.2
    scale: Range = (0.7, 1.4)
    noise_probability: float = 0.1
    noise_std: Range = (0.0, 0.1)
    blur_probability: float = 0.2
    blur_channel_probability: float = 0.5
    blur_sigma_vox: Range = (0.5, 1.0)
    brightness_probability: float = 0.15
    brightness: Range = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast: Range = (0.75, 1.25)
    resolution_probability: float = 0.25
    resolution_channel_probability: float = 0.5
    resolution: Range = (0.5, 1.0)
    inverted_gamma_probability: float = 0.1
    gamma_probability: float = 0.3
    gamma: Range = (0.7, 1.5)
    mirror_probability: float = 0.5

    @property
    def enlarged_size_vox(self) -> tuple[int, ...]:
        """What nnU-Net would read for a patch, whatever is drawn."""
        return enlarged_patch_size_vox(
            self.patch_size_vox, most_degrees=self.rotation_degrees, in_plane=self.in_plane
        )


def nnunet_recipe(
    patch_size_vox: tuple[int, ...],
    *,
    channels: int,
    mirror_axes: tuple[int, ...] | None = None,
    masked: tuple[bool, ...] = (),
) -> Recipe:
    """nnU-Net's own choice for a size of patch; all axes are mirrored unless they are named."""
    dimensions, longest = len(patch_size_vox), max(patch_size_vox)
    in_plane = dimensions == 3 and longest / patch_size_vox[0] > FLAT_PATCH
    if dimensions == 3:
        degrees = ROTATION_PLANE_DEGREES if in_plane else ROTATION_3D_DEGREES
    else:
        is_long = longest / min(patch_size_vox) > LONG_PATCH
        degrees = ROTATION_LONG_DEGREES if is_long else ROTATION_PLANE_DEGREES
    axes = tuple(range(dimensions)) if mirror_axes is None else mirror_axes
    return Recipe(patch_size_vox, channels, in_plane, degrees, axes, masked)


@dataclass(frozen=True)
class PatchChanges:
    """What happens to one patch, in this order; one entry a channel, 1 where nothing happens.

    ``matrix`` is that of ``augment.spatial``, None for a patch that is cut out as it is; a
    ``noise_std`` of 0 is no noise, a channel without ``blur_sigmas_vox`` is not blurred.
    """

    matrix: Matrix | None
    noise_std: float
    noise_key: int
    blur_sigmas_vox: tuple[tuple[float, ...], ...]
    brightness: tuple[float, ...]
    contrast: tuple[float, ...]
    resolution: tuple[float, ...]
    inverted_gamma: tuple[float, ...]
    gamma: tuple[float, ...]
    mirrored_axes: tuple[int, ...]


def draw_changes(rng: np.random.Generator, recipe: Recipe) -> PatchChanges:
    """What happens to one patch."""
    return PatchChanges(
        matrix=_draw_matrix(rng, recipe),
        noise_std=_sometimes(rng, recipe.noise_probability) * rng.uniform(*recipe.noise_std),
        noise_key=int(rng.integers(2**63)),
        blur_sigmas_vox=_draw_blur(rng, recipe),
        brightness=_draw_factors(rng, recipe, recipe.brightness_probability, recipe.brightness),
        contrast=_draw_factors(rng, recipe, recipe.contrast_probability, recipe.contrast),
        resolution=_draw_resolution(rng, recipe),
        inverted_gamma=_draw_factors(rng, recipe, recipe.inverted_gamma_probability, recipe.gamma),
        gamma=_draw_factors(rng, recipe, recipe.gamma_probability, recipe.gamma),
        mirrored_axes=tuple(
            axis for axis in recipe.mirror_axes if _sometimes(rng, recipe.mirror_probability)
        ),
    )


def _sometimes(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _draw_matrix(rng: np.random.Generator, recipe: Recipe) -> Matrix | None:
    turns, scales = (
        _sometimes(rng, recipe.rotation_probability),
        _sometimes(rng, recipe.scaling_probability),
    )
    planar = recipe.in_plane or len(recipe.patch_size_vox) == 2
    most = recipe.rotation_degrees
    angles = rng.uniform(-most, most, size=1 if planar else 3)
    scale = float(rng.uniform(*recipe.scale))
    if not turns and not scales:
        return None
    return change_matrix(list(angles) if turns else [0.0] * len(angles), scale if scales else 1.0)


def _draw_blur(rng: np.random.Generator, recipe: Recipe) -> tuple[tuple[float, ...], ...]:
    happens = _sometimes(rng, recipe.blur_probability)
    drawn: list[tuple[float, ...]] = []
    for _ in range(recipe.channels):
        chosen = _sometimes(rng, recipe.blur_channel_probability)
        sigmas = rng.uniform(*recipe.blur_sigma_vox, size=len(recipe.patch_size_vox))
        drawn.append(tuple(sigmas.tolist()) if happens and chosen else ())
    return tuple(drawn)


def _draw_factors(
    rng: np.random.Generator, recipe: Recipe, probability: float, reach: Range
) -> tuple[float, ...]:
    """For each channel a factor below or above 1 with equal chances, or 1 for all of them."""
    happens = _sometimes(rng, probability)
    factors = []
    for _ in range(recipe.channels):
        below, share = _sometimes(rng, 0.5), rng.random()
        end = reach[0] if below else reach[1]
        factors.append(1 + share * (end - 1))
    return tuple(factors) if happens else (1.0,) * recipe.channels


def _draw_resolution(rng: np.random.Generator, recipe: Recipe) -> tuple[float, ...]:
    happens = _sometimes(rng, recipe.resolution_probability)
    drawn = []
    for _ in range(recipe.channels):
        chosen = _sometimes(rng, recipe.resolution_channel_probability)
        scale = float(rng.uniform(*recipe.resolution))
        drawn.append(scale if happens and chosen else 1.0)
    return tuple(drawn)


def apply_changes(
    image: Tensor, labels: Tensor, changes: PatchChanges, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """The changed patch (channels, *patch), float, and its labels (*patch).

    ``image`` (channels, *source) and ``labels`` (*source) may be larger than the patch, with the
    same centre; they stay as they are. Labels of ``OUTSIDE`` become 0 at the end.
    """
    masked = any(recipe.masked)
    outside = OUTSIDE if masked else 0
    if not masked:
        labels = labels.clamp(min=0)
    image, labels = changed_patch(
        image, labels, recipe.patch_size_vox, changes.matrix, outside=outside
    )
    if changes.noise_std > 0:
        image = intensity.with_noise(image, changes.noise_std, changes.noise_key)
    coarse = range(1 if recipe.in_plane else 0, labels.ndim)
    image = torch.stack([_changed_channel(image[n], n, changes, coarse) for n in range(len(image))])
    if changes.mirrored_axes:
        image = image.flip([axis + 1 for axis in changes.mirrored_axes])
        labels = labels.flip(changes.mirrored_axes)
    for channel, is_masked in enumerate(recipe.masked):
        if is_masked:
            image[channel].masked_fill_(labels < 0, 0)
    return image, labels.clamp(min=0)


def _changed_channel(
    values: Tensor, n: int, changes: PatchChanges, coarse_axes: Sequence[int]
) -> Tensor:
    """Channel ``n`` after all changes of intensity but noise."""
    if changes.blur_sigmas_vox[n]:
        values = intensity.blurred(values, changes.blur_sigmas_vox[n])
    if changes.brightness[n] != 1:
        values = values * changes.brightness[n]
    if changes.contrast[n] != 1:
        values = intensity.with_contrast(values, changes.contrast[n])
    if changes.resolution[n] != 1:
        values = intensity.with_less_resolution(values, changes.resolution[n], coarse_axes)
    if changes.inverted_gamma[n] != 1:
        values = intensity.with_gamma(values, changes.inverted_gamma[n], inverted=True)
    if changes.gamma[n] != 1:
        values = intensity.with_gamma(values, changes.gamma[n], inverted=False)
    return values
