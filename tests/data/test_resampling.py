"""Resampling equals scipy's spline zoom, which skimage and so nnU-Net call; slabs are the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medtool.data.resampling import resample, resampled_slabs, separate_axis
from medtool.data.resampling_axes import tiles
from medtool.data.resampling_labels import resample_labels

SIZES = [
    ((20, 31, 17), (33, 25, 40)),
    ((9, 30, 40), (21, 45, 20)),
    ((1, 30, 30), (1, 20, 50)),
    ((90, 9, 5), (70, 9, 150)),
    ((3, 2, 1), (5, 5, 4)),
]


def zoomed(volume, size, order):
    """What ``skimage.transform.resize(mode="edge", anti_aliasing=False)`` does (its source)."""
    factors = [new / old for old, new in zip(volume.shape, size, strict=True)]
    exact = volume.astype(np.float64)
    zoomed = ndimage.zoom(exact, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, exact.min(), exact.max())


def hu(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1000, 2000, shape).astype(np.float32)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equal_to_scipys_zoom(old, new, order):
    volume = hu(old)

    found = resample(volume, new, order=order)

    assert found.dtype == np.float32
    assert np.abs(found - zoomed(volume, new, order)).max() < 3e-3


@pytest.mark.parametrize(("old", "new"), [(512, 410), (400, 320), (100, 900)])
def test_no_weight_is_too_small_for_fast_products(old, new):
    for tile in tiles(old, new, 3):
        used = np.abs(tile.weights[tile.weights != 0])

        assert used.min() >= np.finfo(np.float32).tiny


def test_a_step_does_not_overshoot():
    volume = np.zeros((4, 8, 8), np.float32)
    volume[:, 4:] = 1000

    found = resample(volume, (4, 13, 8))

    assert found.min() == 0 and found.max() == 1000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_apart_along_a_coarse_axis(axis):
    old, new = [30, 31, 32], [45, 20, 37]
    old[axis], new[axis] = 5, 12
    volume = hu(tuple(old))
    in_plane = [
        zoomed(plane, [n for a, n in enumerate(new) if a != axis], 3)
        for plane in np.moveaxis(volume, axis, 0)
    ]
    # Centres of 12 voxels in 5: (i + 0.5) * 5 / 12 - 0.5, rounded.
    nearest = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    expected = np.moveaxis(np.stack([in_plane[plane] for plane in nearest]), 0, axis)

    found = resample(volume, new, separate=axis)

    assert np.abs(found - expected).max() < 3e-3


def test_slabs_are_the_whole_in_order():
    channels = hu((2, 150, 12, 11))
    size = (200, 15, 9)

    slabs = list(resampled_slabs(channels, size, order=1))

    assert len(slabs) > 1
    assert [planes.start for planes, _ in slabs][1:] == [planes.stop for planes, _ in slabs][:-1]
    whole = np.concatenate([slab for _, slab in slabs], axis=1)
    for channel, found in zip(channels, whole, strict=True):
        assert np.abs(found - zoomed(channel, size, 1)).max() < 3e-3


def test_an_image_of_that_size_stays():
    volume = hu((5, 6, 7))
    assert np.array_equal(resample(volume, (5, 6, 7)), volume)


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((5.0, 1.0, 1.0), (2.0, 1.0, 1.0), 0),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), None),
        ((1.0, 1.0, 2.0), (1.0, 1.0, 5.0), 2),
        ((0.24, 1.25, 1.25), (5.0, 1.0, 1.0), None),
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), 1),
    ],
)
def test_which_axis_is_resampled_apart(spacing, target, axis):
    assert separate_axis(spacing, target) == axis


def favoured(label, size):
    """The label with the greatest of the interpolated maps, and where no other comes near."""
    values = np.unique(label)
    scores = np.stack([zoomed(label == value, size, 1) for value in values])
    second, first = np.sort(scores, axis=0)[-2:]
    return values[np.argmax(scores, axis=0)], first - second > 1e-9


@pytest.mark.parametrize(("old", "new"), SIZES[:2] + SIZES[3:4])
def test_labels_equal_the_greatest_of_interpolated_maps(old, new):
    label = np.random.default_rng(1).integers(-1, 4, old).astype(np.int8)

    found = resample_labels(label, new)

    assert found.dtype == np.int8
    expected, clear = favoured(label, new)
    assert clear.mean() > 0.5
    assert np.array_equal(found[clear], expected[clear])


def test_labels_that_share_the_greatest_score_go_to_the_nearest():
    # Twice as many voxels: each new one is 3/4 in its own old voxel along every axis.
    label = np.array([[[1, 2, 2, 1]]], np.uint8)
    assert resample_labels(label, (1, 1, 8)).ravel().tolist() == [1, 1, 2, 2, 2, 2, 1, 1]
    # Half as many: new voxels lie between two old ones, and halves go up.
    label = np.array([[[1, 2, 2, 1]]], np.uint8)
    assert resample_labels(label, (1, 1, 2)).ravel().tolist() == [2, 1]


def test_a_label_that_wins_nowhere_leaves_no_hole():
    # Four labels meet at the sampled point: none reaches a half, one of them still wins.
    label = np.array([[[1, 2], [3, 4]]], np.uint8)
    assert resample_labels(label, (1, 1, 1)).item() == 4


def test_labels_apart_along_a_coarse_axis():
    label = np.random.default_rng(2).integers(0, 3, (5, 20, 21)).astype(np.uint8)
    nearest = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    in_plane = [resample_labels(plane[None], (1, 33, 17))[0] for plane in label]

    found = resample_labels(label, (12, 33, 17), separate=0)

    assert np.array_equal(found, np.stack([in_plane[plane] for plane in nearest]))
