"""Logits back on the image's grid and decided: against scipy on whole volumes, and by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import softmax

from medtool.predict.decide import LabelRule, Placement, decide, decide_labels
from medtool.predict.planes import planes_of, resized_planes
from medtool.predict.sliding_window import Slab

SHAPES = [
    ((6, 9, 7), (6, 9, 7)),
    ((6, 9, 7), (11, 20, 13)),
    ((12, 20, 13), (5, 9, 6)),
    ((6, 9, 7), (1, 9, 20)),
    ((1, 9, 7), (4, 3, 7)),
]


def random_logits(*shape: int, seed: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def in_slabs(logits: NDArray[np.float32], heights: Sequence[int] = (1, 3, 2)) -> Iterator[Slab]:
    start = 0
    while start < logits.shape[1]:
        height = heights[start % len(heights)]
        yield Slab(start, logits[:, start : start + height])
        start += height


def zoomed(
    logits: NDArray[np.float32], size: Sequence[int], nearest_axis: int | None
) -> NDArray[np.float64]:
    """nnU-Net's resampling by scipy: linear with voxel centres, then the nearest plane."""
    out = logits.astype(np.float64)
    for axis in range(3):
        factors = [1.0] * 4
        factors[axis + 1] = size[axis] / logits.shape[axis + 1]
        order = 0 if axis == nearest_axis else 1
        out = ndimage.zoom(out, factors, order=order, mode="nearest", grid_mode=True)
    return out


@pytest.mark.parametrize(("old", "new"), SHAPES)
@pytest.mark.parametrize("nearest_axis", [None, 0, 1, 2])
def test_planes_are_those_of_the_resampled_whole(
    old: tuple[int, int, int], new: tuple[int, int, int], nearest_axis: int | None
) -> None:
    logits = random_logits(3, *old)
    planes = resized_planes(planes_of(in_slabs(logits)), old[0], new, nearest_axis)
    expected = zoomed(logits, new, nearest_axis)
    np.testing.assert_allclose(np.stack(list(planes), axis=1), expected, atol=2e-6)


def test_planes_are_given_before_all_have_arrived() -> None:
    taken: list[int] = []

    def arriving() -> Iterator[NDArray[np.float32]]:
        for index in range(10):
            taken.append(index)
            yield np.zeros((1, 2, 2), dtype=np.float32)

    needed = [len(taken) for _ in resized_planes(arriving(), 10, (20, 2, 2))]
    # Plane k lies at (k + 0.5) / 2 - 0.5 of the old ones: 0 needs one, 1 lies at 0.25, ...
    assert needed == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 10]


@pytest.mark.parametrize("axes_forward", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_mask_lies_where_the_image_was_cut(axes_forward: tuple[int, int, int]) -> None:
    image_size = (9, 14, 11)
    turned = tuple(image_size[axis] for axis in axes_forward)
    crop = (slice(1, turned[0] - 2), slice(2, turned[1]), slice(0, turned[2] - 3))
    logits = random_logits(3, 5, 8, 6)
    size = tuple(part.stop - part.start for part in crop)
    expected = np.zeros(turned, np.uint8)
    expected[crop] = zoomed(logits, size, None).argmax(axis=0)
    back = np.argsort(axes_forward)
    placement = Placement(image_size, axes_forward, crop, depth_vox=5)
    decided = decide(in_slabs(logits), placement, LabelRule((0, 1, 2)))
    assert decided.mask.dtype == np.uint8
    assert decided.mask.flags.c_contiguous
    assert decided.probabilities is None
    assert (decided.mask == expected.transpose(back)).all()


def test_probabilities_come_on_demand() -> None:
    logits = random_logits(3, 4, 5, 6)
    placement = Placement(
        (8, 5, 6), (0, 1, 2), (slice(2, 6), slice(0, 5), slice(0, 6)), depth_vox=4
    )
    rule = LabelRule((0, 1, 2))
    chances = decide(in_slabs(logits), placement, rule, probabilities=True).probabilities
    assert chances is not None
    np.testing.assert_allclose(chances[:, 2:6], softmax(logits, axis=0), rtol=1e-5)
    assert (chances[0, :2] == 1).all()
    assert (chances[1:, 6:] == 0).all()
    regions = decide(
        in_slabs(logits), placement, LabelRule((1, 2, 3), regions=True), probabilities=True
    ).probabilities
    assert regions is not None
    np.testing.assert_allclose(regions[:, 2:6], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert not regions[:, :2].any()


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_probabilities_lie_where_the_mask_does(axes: tuple[int, int, int]) -> None:
    """Turned, cropped and resampled: the most probable label is the label of the mask."""
    placement = Placement((9, 8, 7), axes, (slice(1, 6), slice(2, 6), slice(0, 7)), depth_vox=3)
    decided = decide(
        in_slabs(random_logits(3, 3, 5, 4)), placement, LabelRule((0, 1, 2)), probabilities=True
    )
    chances = decided.probabilities
    assert chances is not None and chances.shape == (3, 9, 8, 7)
    assert (np.asarray(chances).argmax(axis=0) == decided.mask).all()
    np.testing.assert_allclose(np.asarray(chances).sum(axis=0), 1.0, rtol=1e-5)


def test_the_first_of_equal_logits_wins() -> None:
    logits = np.array([[1, 0, 2, 0], [1, 3, 2, 0], [0, 3, 5, 0]], np.float32)
    assert decide_labels(logits, LabelRule((0, 1, 2))).tolist() == [0, 1, 2, 0]
    assert decide_labels(logits, LabelRule((0, 4, 300))).tolist() == [0, 4, 300, 0]


def test_many_classes_are_decided_as_argmax_does() -> None:
    logits = random_logits(300, 4, 5)
    labels = decide_labels(logits, LabelRule(tuple(range(300))))
    assert (labels == logits.argmax(axis=0)).all()
    assert labels.dtype == np.uint16


def test_later_regions_are_painted_over_earlier_ones() -> None:
    # Whole tumour, core, enhancing part, painted as 1, 3, 2; a logit of 0 is no more than a half.
    logits = np.array([[1, 1, 1, -1, 0], [-1, 1, 1, -1, 0], [-1, -1, 1, 2, 0]], np.float32)
    rule = LabelRule((1, 3, 2), regions=True)
    assert decide_labels(logits, rule).tolist() == [1, 3, 2, 2, 0]


def test_channels_and_labels_have_to_agree() -> None:
    with pytest.raises(ValueError, match="3 channels and 2 labels"):
        decide_labels(random_logits(3, 4), LabelRule((0, 1)))
