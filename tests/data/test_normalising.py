"""Each scheme by hand, inside a mask and without one."""

from __future__ import annotations

import numpy as np
import pytest

from medtool.core.errors import InputError
from medtool.core.plan import ChannelIntensities
from medtool.data.normalising import normalise

CT = ChannelIntensities(
    mean=40, median=45, std=20, low=-1000, high=900, percentile_00_5=-100, percentile_99_5=200
)


def volume(*values):
    return np.asarray(values, np.float32).reshape(-1, 1, 2)


def test_ct_is_clipped_and_scaled_by_the_training_cases():
    channel = volume(-1000, 40, 60, 3000)
    normalise(channel, "ct", intensities=CT)
    assert channel.ravel().tolist() == [-7, 0, 1, 8]


def test_ct_without_the_plans_intensities_is_refused():
    with pytest.raises(InputError, match="intensities"):
        normalise(volume(1, 2), "ct")


def test_z_scores_of_the_whole_image():
    channel = volume(1, 3, 5, 7)
    normalise(channel, "z-score")
    # Mean 4, deviation sqrt(5).
    assert channel.ravel() == pytest.approx(np.array([-3, -1, 1, 3]) / np.sqrt(5))


def test_z_scores_inside_leave_the_outside():
    channel = volume(0, 3, 5, 0)
    normalise(channel, "z-score", inside=channel > 0)
    assert channel.ravel().tolist() == [0, -1, 1, 0]


def test_values_far_from_zero_keep_their_digits():
    channel = volume(1_700_000, 1_700_001, 1_700_002, 1_700_003)
    normalise(channel, "z-score")
    assert channel.ravel() == pytest.approx(np.array([-3, -1, 1, 3]) / np.sqrt(5), abs=1e-5)


@pytest.mark.parametrize("scheme", ["z-score", "rescale-0-1"])
def test_an_image_of_one_value_becomes_zero(scheme):
    channel = volume(7, 7, 7, 7)
    normalise(channel, scheme)
    assert channel.ravel().tolist() == [0, 0, 0, 0]


def test_nothing_inside_changes_nothing():
    channel = volume(0, 0)
    normalise(channel, "z-score", inside=channel > 0)
    assert channel.ravel().tolist() == [0, 0]


def test_ranges():
    channel = volume(-2, 0, 2, 6)
    normalise(channel, "rescale-0-1")
    assert channel.ravel().tolist() == [0, 0.25, 0.5, 1]
    channel = volume(0, 51, 255, 102)
    normalise(channel, "rgb-0-1")
    assert channel.ravel() == pytest.approx([0, 0.2, 1, 0.4])
    channel = volume(3, 4)
    normalise(channel, "none")
    assert channel.ravel().tolist() == [3, 4]


@pytest.mark.parametrize("beyond", [-1, 256])
def test_colours_beyond_their_range_are_refused(beyond):
    with pytest.raises(InputError) as caught:
        normalise(volume(beyond, 5), "rgb-0-1")
    assert caught.value.wanted == "0 to 255"
