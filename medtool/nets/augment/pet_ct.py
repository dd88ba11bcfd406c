"""Slices or patches of PET and CT, and their mask: turned and flipped together, each kind of value
changed as it may be.

SUV is a quantity: it is scaled by a little and gets noise, and nothing else. The CT's window may
bend and get noise. Parameters are drawn first, then applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medtool.nets.augment.intensity import with_noise
from medtool.nets.augment.spatial import Matrix, change_matrix, changed_patch


@dataclass(frozen=True)
class PetCtRecipe:
    """What may happen, how often and how strongly.

    ``flip_axes`` count from the end (-1 are columns). SUV is multiplied by 1 +- ``suv_change`` at
    most; noise has a standard deviation of up to ``suv_noise`` SUV, and of ``ct_noise`` where the
    window is -1 to 1; the CT's curve is bent by a power of 1 +- ``ct_gamma``. SUV stays within 0
    and ``suv_maximum``.
    """

    flip_axes: tuple[int, ...]
    flip_probability: float
    rotation_probability: float
    rotation_degrees: float
    suv_change: float
    suv_noise: float
    suv_maximum: float
    ct_gamma: float
    ct_noise: float


@dataclass(frozen=True)
class PetCtChanges:
    """What happens to all images of one example; by default nothing."""

    flipped: tuple[int, ...] = ()
    matrix: Matrix | None = None
    suv_factor: float = 1.0
    suv_noise: float = 0.0
    suv_maximum: float = np.inf
    ct_power: float = 1.0
    ct_noise: float = 0.0
    noise_key: int = 0


def draw_pet_ct_changes(rng: np.random.Generator, recipe: PetCtRecipe) -> PetCtChanges:
    """What happens to one example."""
    flips = rng.random(len(recipe.flip_axes)) < recipe.flip_probability
    turns, angle, factor, power = rng.random(), *rng.uniform(-1, 1, 3)
    noise = rng.random(2)
    return PetCtChanges(
        flipped=tuple(axis for axis, is_on in zip(recipe.flip_axes, flips, strict=True) if is_on),
        matrix=change_matrix([float(angle) * recipe.rotation_degrees], 1.0)
        if turns < recipe.rotation_probability and recipe.rotation_degrees
        else None,
        suv_factor=1 + float(factor) * recipe.suv_change,
        suv_noise=float(noise[0]) * recipe.suv_noise,
        suv_maximum=recipe.suv_maximum,
        ct_power=1 + float(power) * recipe.ct_gamma,
        ct_noise=float(noise[1]) * recipe.ct_noise,
        noise_key=int(rng.integers(2**63)),
    )


def apply_pet_ct_changes(
    images: Tensor, labels: Tensor | None, changes: PetCtChanges
) -> tuple[Tensor, Tensor | None]:
    """Images (n, channels, ..., y, x) and labels (n, ..., y, x) after the changes.

    The first half of the channels is SUV, the second the CT from -1 to 1; corners that a rotation
    uncovers are SUV 0 and air. Images are interpolated linearly, labels take what has most of a
    voxel.
    """
    images = images.clone()
    if changes.matrix is not None:
        images, labels = _turned(images, labels, changes.matrix)
    if changes.flipped:
        images = images.flip(changes.flipped)
        labels = labels if labels is None else labels.flip(changes.flipped)
    if changes == PetCtChanges():
        return images, labels
    suv, ct = images.chunk(2, dim=1)
    if changes.suv_noise > 0:
        suv = with_noise(suv, changes.suv_noise, changes.noise_key)
    suv = (suv * changes.suv_factor).clamp(0, changes.suv_maximum)
    ct = ((ct.clamp(-1, 1) + 1) / 2) ** changes.ct_power * 2 - 1
    if changes.ct_noise > 0:
        ct = with_noise(ct, changes.ct_noise, changes.noise_key ^ 1).clamp(-1, 1)
    return torch.cat([suv, ct], dim=1), labels


def _turned(images: Tensor, labels: Tensor | None, matrix: Matrix) -> tuple[Tensor, Tensor | None]:
    """Every plane turned alike."""
    *stack, rows, columns = images.transpose(0, 1).shape[1:]
    size = (int(np.prod(stack)), rows, columns)
    planes = images.transpose(0, 1).reshape(images.shape[1], *size)
    half = len(planes) // 2
    # What is uncovered becomes 0, which is to be the CT's air.
    planes = torch.cat([planes[:half], planes[half:] + 1])
    known = planes.new_zeros(size, dtype=torch.int64) if labels is None else labels.reshape(size)
    planes, known = changed_patch(planes, known, size, matrix, outside=0)
    planes = torch.cat([planes[:half], planes[half:] - 1])
    turned = planes.reshape(images.shape[1], *images.transpose(0, 1).shape[1:]).transpose(0, 1)
    return turned.contiguous(), labels if labels is None else known.reshape(labels.shape)
