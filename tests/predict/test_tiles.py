"""Where windows lie and what their voxels count, against nnU-Net's values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medtool.predict.tiles import window_starts, window_weights


@pytest.mark.parametrize(
    ("size", "window", "starts"),
    [
        ((110,), (64,), ((0, 23, 46),)),
        (
            (93, 512, 512),
            (40, 224, 224),
            ((0, 18, 35, 53), (0, 96, 192, 288), (0, 96, 192, 288)),
        ),
        ((64,), (64,), ((0,),)),
        ((65,), (64,), ((0, 1),)),
        ((20,), (64,), ((0,),)),
        ((7,), (1,), ((0, 1, 2, 3, 4, 5, 6),)),
    ],
)
def test_starts(
    size: tuple[int, ...], window: tuple[int, ...], starts: tuple[tuple[int, ...], ...]
) -> None:
    assert window_starts(size, window) == starts


def test_a_step_of_a_whole_window_leaves_no_overlap_where_it_fits() -> None:
    assert window_starts((128,), (64,), 1.0) == ((0, 64),)


@pytest.mark.parametrize("step", [0.0, -0.5, 1.5])
def test_a_step_beyond_the_window_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="step"):
        window_starts((128,), (64,), step)


def test_weights_are_a_gaussian_of_an_eighth_of_the_window() -> None:
    weights = window_weights((64, 32))
    assert weights.max() == weights[32, 16] == 10
    # One standard deviation from the middle: 8 voxels of 64, 4 of 32.
    for at in ((40, 16), (24, 16), (32, 20), (32, 12)):
        assert weights[at] == pytest.approx(10 * math.exp(-0.5), rel=1e-3)
    assert weights[40, 20] == pytest.approx(10 * math.exp(-1), rel=1e-3)


def test_weights_that_vanish_in_half_precision_get_the_smallest_that_does_not() -> None:
    weights = window_weights((64, 64, 64))
    # exp(-24) of the corner is no half-precision number; 2 ** -24 is the smallest there is.
    assert weights.min() == weights[0, 0, 0] == np.float32(2**-24)
