"""Fingerprints: sizes after cropping, pooled intensities with equal weight for each case."""

from __future__ import annotations

import numpy as np
import pytest

from medtool.core.errors import InputError
from medtool.data.cropping import nonzero_box, nonzero_mask
from medtool.data.fingerprint import QUANTILES, case_fingerprint, pooled


def body(size=(6, 7, 8)):
    """Zero outside a box of 3 x 4 x 5 voxels from (1, 2, 3), which has a hole."""
    image = np.zeros((1, *size), np.float32)
    image[0, 1:4, 2:6, 3:8] = 5
    image[0, 2, 3, 5] = 0
    return image


def test_the_box_holds_what_is_not_zero_in_any_channel():
    image = np.concatenate([body(), np.zeros((1, 6, 7, 8), np.float32)])
    assert nonzero_box(image) == (slice(1, 4), slice(2, 6), slice(3, 8))
    image[1, 5, 0, 0] = -1
    assert nonzero_box(image) == (slice(1, 6), slice(0, 6), slice(0, 8))


def test_an_image_of_zeros_is_not_cropped():
    assert nonzero_box(np.zeros((1, 2, 3, 4), np.float32)) == (
        slice(0, 2),
        slice(0, 3),
        slice(0, 4),
    )


def test_holes_belong_to_the_body_and_bays_do_not():
    image = body()
    image[0, 1, 2, 3] = 0
    mask = nonzero_mask(image)

    assert mask[2, 3, 5]
    assert not mask[1, 2, 3]
    assert mask.sum() == 3 * 4 * 5 - 1


def test_a_case():
    image = np.concatenate([body(), body() * 2])
    image[0, 1, 2, 3:6] = (1, 2, 3)
    label = np.zeros((6, 7, 8), np.uint8)
    label[1, 2, 3:6] = (1, 1, 2)

    case = case_fingerprint(image, label, (3.0, 1.0, 0.5))

    assert case.size_vox == (3, 4, 5)
    assert case.spacing_mm == (3.0, 1.0, 0.5)
    assert case.relative_size == pytest.approx(60 / 336)
    first, second = case.foreground
    assert first.quantiles.tolist() == [1, 2, 3]
    assert (first.mean, first.mean_square, first.low, first.high) == (
        2,
        pytest.approx(14 / 3),
        1,
        3,
    )
    assert second.mean == 10


def test_cases_count_alike_however_large_their_foreground():
    def case(values):
        image = np.asarray(values, np.float32).reshape(1, 1, 1, -1)
        return case_fingerprint(image, np.ones(image.shape[1:], np.uint8), (1, 1, 1))

    found = pooled([case([1] * 300), case([3, 5])])

    (channel,) = found.intensities
    # Half of the weight on 1, a quarter each on 3 and 5.
    assert channel.mean == pytest.approx(2.5)
    assert channel.std == pytest.approx(np.sqrt((2 * 1.5**2 + 0.5**2 + 2.5**2) / 4))
    assert (channel.low, channel.high) == (1, 5)
    assert (channel.percentile_00_5, channel.median, channel.percentile_99_5) == (1, 1, 5)
    assert found.sizes_vox == ((1, 1, 300), (1, 1, 2))


def test_percentiles_of_many_voxels_are_near_numpys():
    values = np.random.default_rng(3).normal(40, 80, 200_000).astype(np.float32)
    image = values.reshape(1, 20, 100, 100)
    case = case_fingerprint(image, np.ones((20, 100, 100), np.int8), (1, 1, 1))
    (channel,) = pooled([case]).intensities

    assert len(case.foreground[0].quantiles) == QUANTILES
    low, middle, high = np.percentile(values, (0.5, 50, 99.5))
    assert channel.percentile_00_5 == pytest.approx(low, abs=0.5)
    assert channel.median == pytest.approx(middle, abs=0.05)
    assert channel.percentile_99_5 == pytest.approx(high, abs=0.5)
    assert channel.mean == pytest.approx(values.mean(dtype=np.float64), abs=1e-6)
    assert channel.std == pytest.approx(values.std(dtype=np.float64), abs=1e-6)


def test_a_case_without_foreground_gives_size_and_spacing_only():
    empty = case_fingerprint(body(), np.zeros((6, 7, 8), np.uint8), (1, 1, 1))
    label = np.ones((6, 7, 8), np.uint8)
    found = pooled([empty, case_fingerprint(body(), label, (1, 1, 1))])

    assert empty.foreground == ()
    assert len(found.sizes_vox) == 2
    assert found.intensities[0].high == 5


def test_no_case_at_all_is_refused():
    with pytest.raises(InputError, match="no training case"):
        pooled([])
