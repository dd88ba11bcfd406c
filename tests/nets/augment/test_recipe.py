"""What nnU-Net's augmentation draws, how often, and that it can be replayed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medtool.nets.augment.recipe import (
    PatchChanges,
    Recipe,
    apply_changes,
    draw_changes,
    nnunet_recipe,
)
from medtool.nets.augment.spatial import source_size_vox

NOTHING = PatchChanges(
    matrix=None,
    noise_std=0.0,
    noise_key=0,
    blur_sigmas_vox=((),),
    brightness=(1.0,),
    contrast=(1.0,),
    resolution=(1.0,),
    inverted_gamma=(1.0,),
    gamma=(1.0,),
    mirrored_axes=(),
)


@pytest.mark.parametrize(
    ("patch", "in_plane", "degrees"),
    [
        ((128, 128, 128), False, 30.0),
        ((40, 56, 40), False, 30.0),
        ((40, 120, 100), False, 30.0),
        ((40, 121, 100), True, 180.0),
        ((40, 224, 224), True, 180.0),
        ((256, 256), False, 180.0),
        ((150, 100), False, 180.0),
        ((100, 151), False, 15.0),
    ],
)
def test_how_nnunet_turns_a_patch(patch: tuple[int, ...], in_plane: bool, degrees: float) -> None:
    recipe = nnunet_recipe(patch, channels=1)
    assert (recipe.in_plane, recipe.rotation_degrees) == (in_plane, degrees)
    assert recipe.mirror_axes == tuple(range(len(patch)))


def test_the_size_that_nnunet_would_read() -> None:
    assert nnunet_recipe((128,) * 3, channels=1).enlarged_size_vox == (205,) * 3
    assert nnunet_recipe((40, 224, 224), channels=1).enlarged_size_vox == (40, 263, 263)


DRAWS = 6000
RECIPE = nnunet_recipe((40, 56, 40), channels=2)


@pytest.fixture(scope="module")
def drawn() -> list[PatchChanges]:
    rng = np.random.default_rng(5)
    return [draw_changes(rng, RECIPE) for _ in range(DRAWS)]


def near(found: float, probability: float, count: int = DRAWS) -> bool:
    """Within five standard errors."""
    return abs(found - probability) < 5 * (probability * (1 - probability) / count) ** 0.5


def test_how_often_each_change_happens(drawn: list[PatchChanges]) -> None:
    def share(happens: list[bool]) -> float:
        return float(np.mean(happens))

    assert near(share([c.matrix is not None for c in drawn]), 1 - 0.8 * 0.8)
    assert near(share([c.noise_std > 0 for c in drawn]), 0.1)
    assert near(share([c.brightness != (1.0, 1.0) for c in drawn]), 0.15)
    assert near(share([c.contrast != (1.0, 1.0) for c in drawn]), 0.15)
    assert near(share([c.inverted_gamma != (1.0, 1.0) for c in drawn]), 0.1)
    assert near(share([c.gamma != (1.0, 1.0) for c in drawn]), 0.3)
    for n in range(2):
        assert near(share([bool(c.blur_sigmas_vox[n]) for c in drawn]), 0.2 * 0.5)
        assert near(share([c.resolution[n] != 1 for c in drawn]), 0.25 * 0.5)
    for axis in range(3):
        assert near(share([axis in c.mirrored_axes for c in drawn]), 0.5)


def test_how_strong_each_change_is(drawn: list[PatchChanges]) -> None:
    stds = [c.noise_std for c in drawn if c.noise_std > 0]
    sigmas = [sigma for c in drawn for some in c.blur_sigmas_vox for sigma in some]
    scales = [scale for c in drawn for scale in c.resolution if scale != 1]
    for values, low, high in [(stds, 0.0, 0.1), (sigmas, 0.5, 1.0), (scales, 0.5, 1.0)]:
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high
        error = 5 * (high - low) / 12**0.5 / len(values) ** 0.5
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=error)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.75, 1.25),
        ("contrast", 0.75, 1.25),
        ("gamma", 0.7, 1.5),
        ("inverted_gamma", 0.7, 1.5),
    ],
)
def test_factors_lie_below_1_as_often_as_above(
    drawn: list[PatchChanges], name: str, low: float, high: float
) -> None:
    values = np.array([factor for c in drawn for factor in getattr(c, name) if factor != 1])
    assert near(float((values < 1).mean()), 0.5, len(values))
    assert low <= values.min() < low + 0.02
    assert high - 0.02 < values.max() <= high
    below, above = values[values < 1], values[values > 1]
    assert below.mean() == pytest.approx((low + 1) / 2, abs=0.02)
    assert above.mean() == pytest.approx((high + 1) / 2, abs=0.03)


def test_rotations_and_scales(drawn: list[PatchChanges]) -> None:
    matrices = [np.array(c.matrix) for c in drawn if c.matrix is not None]
    scales = np.array([np.linalg.det(matrix) ** (1 / 3) for matrix in matrices])
    assert near(float((np.abs(scales - 1) > 1e-9).mean()), 0.2 / 0.36, len(scales))
    changed = scales[np.abs(scales - 1) > 1e-9]
    assert 0.7 <= changed.min() < 0.72
    assert 1.38 < changed.max() <= 1.4
    for matrix, scale in zip(matrices, scales, strict=True):
        # About three axes by 30 degrees each: no axis may end up more than 90 away.
        assert np.diag(matrix).min() / scale > 0
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3) * scale**2, atol=1e-9)
    # The angle about the axis 2 is that of the first column in the plane of the axes 0 and 1.
    angles = [np.degrees(np.arctan2(m[1, 0], m[0, 0])) for m in matrices]
    turned = np.array([angle for angle in angles if abs(angle) > 1e-9])
    assert 29 < turned.max() <= 30
    assert -30 <= turned.min() < -29


def test_in_a_plane_there_is_one_angle() -> None:
    rng = np.random.default_rng(0)
    recipe = replace(nnunet_recipe((10, 64, 64), channels=1), rotation_probability=1.0)
    for _ in range(20):
        assert np.shape(draw_changes(rng, recipe).matrix) == (2, 2)


def test_switching_one_change_off_leaves_the_others() -> None:
    off = replace(RECIPE, rotation_probability=0.0, scaling_probability=0.0, gamma_probability=0.0)
    for seed in range(50):
        with_all = draw_changes(np.random.default_rng(seed), RECIPE)
        without = draw_changes(np.random.default_rng(seed), off)
        assert without == replace(with_all, matrix=None, gamma=(1.0, 1.0))


def scene(recipe: Recipe, changes: PatchChanges) -> tuple[torch.Tensor, torch.Tensor]:
    size = source_size_vox(recipe.patch_size_vox, changes.matrix)
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(size, dtype=torch.int16)
    labels[tuple(slice(length // 3, 2 * length // 3) for length in size)] = 2
    labels[tuple(slice(length // 3, length // 2) for length in size)] = 1
    return torch.randn(recipe.channels, *size, generator=generator), labels


@pytest.mark.parametrize("patch", [(12, 16, 10), (4, 20, 16), (24, 20)])
def test_a_patch_can_be_replayed(patch: tuple[int, ...]) -> None:
    recipe = nnunet_recipe(patch, channels=2)
    for seed in range(25):
        changes = draw_changes(np.random.default_rng(seed), recipe)
        image, labels = scene(recipe, changes)
        before = image.clone(), labels.clone()
        first, second = (apply_changes(image, labels, changes, recipe) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert torch.equal(image, before[0])
        assert torch.equal(labels, before[1])
        assert first[0].shape == (2, *patch)
        assert first[1].shape == patch
        assert torch.isfinite(first[0]).all()
        assert set(torch.unique(first[1]).tolist()) <= {0, 1, 2}


def test_no_global_stream_is_drawn_from() -> None:
    recipe = replace(nnunet_recipe((8, 8), channels=1), noise_probability=1.0)
    states = torch.get_rng_state(), np.random.get_state()[1]
    changes = draw_changes(np.random.default_rng(0), recipe)
    apply_changes(*scene(recipe, changes), changes, recipe)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])


def test_nothing_drawn_nothing_changed() -> None:
    recipe = nnunet_recipe((4, 5), channels=1)
    image, labels = torch.randn(1, 4, 5), torch.ones(4, 5, dtype=torch.uint8)
    found = apply_changes(image, labels, NOTHING, recipe)
    assert torch.equal(found[0], image)
    assert torch.equal(found[1], labels)


def test_mirrored_and_brightened_by_hand() -> None:
    recipe = nnunet_recipe((2, 3), channels=1)
    image = torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    labels = torch.tensor([[0, 0, 1], [0, 2, 2]])
    changes = replace(NOTHING, brightness=(2.0,), mirrored_axes=(1,))
    found = apply_changes(image, labels, changes, recipe)
    assert found[0].tolist() == [[[6, 4, 2], [12, 10, 8]]]
    assert found[1].tolist() == [[1, 0, 0], [2, 2, 0]]


def test_sides_are_kept_where_labels_have_one() -> None:
    recipe = nnunet_recipe((8, 8, 8), channels=1, mirror_axes=(0, 1))
    rng = np.random.default_rng(0)
    axes = {axis for _ in range(100) for axis in draw_changes(rng, recipe).mirrored_axes}
    assert axes == {0, 1}


def test_outside_the_patient_masked_channels_are_zero() -> None:
    labels = torch.full((6, 6), -1, dtype=torch.int16)
    labels[2:4, 2:4] = 1
    image = torch.ones(2, 6, 6)
    changes = replace(
        NOTHING,
        noise_std=0.5,
        **dict.fromkeys(("brightness", "contrast", "resolution"), (1.0, 1.0)),
        **dict.fromkeys(("inverted_gamma", "gamma"), (1.0, 1.0)),
        blur_sigmas_vox=((), ()),
    )
    recipe = nnunet_recipe((6, 6), channels=2, masked=(False, True))
    found, left = apply_changes(image, labels, changes, recipe)
    inside = labels > 0
    assert (found[1][~inside] == 0).all()
    assert (found[1][inside] != 0).all()
    assert (found[0] != 0).all()
    assert torch.equal(left, inside.to(torch.int16))
