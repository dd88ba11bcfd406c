"""PET, CT and mask move together; SUV stays the quantity that it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from medtool.nets.augment.pet_ct import (
    PetCtChanges,
    PetCtRecipe,
    apply_pet_ct_changes,
    draw_pet_ct_changes,
)
from medtool.nets.augment.spatial import change_matrix

RECIPE = PetCtRecipe(
    flip_axes=(-1, -2),
    flip_probability=0.5,
    rotation_probability=0.5,
    rotation_degrees=20.0,
    suv_change=0.1,
    suv_noise=0.1,
    suv_maximum=30.0,
    ct_gamma=0.2,
    ct_noise=0.02,
)


def example(shape: tuple[int, ...] = (17, 17)) -> tuple[Tensor, Tensor]:
    """Three images with a hot, dense bar off the middle; air around a body."""
    labels = torch.zeros(3, *shape, dtype=torch.int64)
    labels[..., 4:7, 9:14] = 1
    suv = 1.0 + 9.0 * labels
    ct = -0.1 + 0.3 * labels
    return torch.stack([suv, ct], dim=1), labels


def test_nothing_drawn_changes_nothing_and_spares_what_was_given() -> None:
    images, labels = example()
    found, same = apply_pet_ct_changes(images, labels, PetCtChanges())
    assert torch.equal(found, images) and torch.equal(same, labels)
    found += 1
    assert float(images[0, 0, 0, 0]) == 1.0


@pytest.mark.parametrize("shape", [(17, 17), (5, 17, 17)])
def test_what_is_hot_stays_what_is_marked(shape: tuple[int, ...]) -> None:
    images, labels = example(shape)
    changes = PetCtChanges(flipped=(-1,), matrix=change_matrix([90.0], 1.0))
    found, moved = apply_pet_ct_changes(images, labels, changes)
    assert moved is not None and not torch.equal(moved, labels)
    assert int(moved.sum()) == int(labels.sum())
    assert torch.equal(found[:, 0] > 5, moved == 1)
    assert torch.equal(found[:, 1] > 0.1, moved == 1)


def test_corners_that_a_rotation_uncovers_are_air() -> None:
    images, labels = example()
    turned, _ = apply_pet_ct_changes(
        images, labels, PetCtChanges(matrix=change_matrix([45.0], 1.0))
    )
    assert turned[:, 0, 0, 0].tolist() == [0, 0, 0]
    assert turned[:, 1, 0, 0].tolist() == [-1, -1, -1]


def test_suv_is_scaled_by_a_tenth_at_most_and_stays_in_its_range() -> None:
    images, labels = example()
    factors = []
    for seed in range(200):
        changes = draw_pet_ct_changes(np.random.default_rng(seed), RECIPE)
        quiet = replace(changes, matrix=None, flipped=(), suv_noise=0.0)
        found, _ = apply_pet_ct_changes(images, labels, quiet)
        factors.append(float((found[:, 0] / images[:, 0]).mean()))
        # One factor for all: what is twice as hot stays twice as hot.
        torch.testing.assert_close(found[:, 0], images[:, 0] * factors[-1])
    assert 0.9 <= min(factors) < 0.92 and 1.08 < max(factors) <= 1.1
    hot, _ = apply_pet_ct_changes(
        images * 3, labels, PetCtChanges(suv_factor=1.1, suv_maximum=30.0)
    )
    assert float(hot[:, 0].max()) == 30.0
    noisy, _ = apply_pet_ct_changes(images * 0, labels, PetCtChanges(suv_noise=1.0, noise_key=3))
    assert float(noisy[:, 0].min()) == 0.0 and float(noisy[:, 0].max()) > 1


def test_the_curve_of_the_ct_bends_between_its_ends() -> None:
    images, labels = example()
    images[0, 1, 0] = torch.linspace(-1, 1, 17)
    found, _ = apply_pet_ct_changes(images, labels, PetCtChanges(ct_power=1.2, suv_maximum=30.0))
    bent = found[0, 1, 0]
    assert (float(bent[0]), float(bent[-1])) == (-1.0, 1.0)
    assert bool((bent.diff() > 0).all()) and float(bent[8]) < 0
    assert torch.equal(found[:, 0], images[:, 0])


def test_the_same_draw_gives_the_same_images_without_a_mask_too() -> None:
    images, labels = example()
    for seed in range(20):
        changes = draw_pet_ct_changes(np.random.default_rng(seed), RECIPE)
        assert changes == draw_pet_ct_changes(np.random.default_rng(seed), RECIPE)
        with_mask, _ = apply_pet_ct_changes(images, labels, changes)
        without, nothing = apply_pet_ct_changes(images, None, changes)
        assert torch.equal(with_mask, without) and nothing is None
