"""Fields of view of two grids, by hand and turned."""

from __future__ import annotations

import numpy as np
import pytest

from medtool.core.fields import covered_shares, field_box_mm, shared_box_mm
from medtool.core.geometry import Grid

FIRST = Grid((10, 20, 5), (2.0, 1.0, 4.0), (0.0, 0.0, 0.0))
# x to the right, y to the front, z down: the same patient, the other way round.
TURNED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def test_a_field_reaches_half_a_voxel_beyond_the_centres() -> None:
    box = field_box_mm(FIRST, FIRST)
    assert box[0].tolist() == [-1.0, -0.5, -2.0]
    assert box[1].tolist() == [19.0, 19.5, 18.0]


def test_what_two_grids_share_by_hand() -> None:
    other = Grid((5, 5, 5), (2.0, 2.0, 2.0), (10.0, 10.0, 10.0))
    shared = shared_box_mm(FIRST, other)
    assert shared is not None
    assert shared.tolist() == [[9.0, 9.0, 9.0], [19.0, 19.0, 18.0]]
    assert covered_shares(FIRST, other) == pytest.approx((10 / 20, 10 / 20, 9 / 20))
    assert covered_shares(other, FIRST) == pytest.approx((1.0, 1.0, 0.9))


def test_axes_that_run_the_other_way() -> None:
    same = Grid(FIRST.size, FIRST.spacing_mm, (18.0, 19.0, 0.0), TURNED)
    assert covered_shares(FIRST, same) == pytest.approx((1.0, 1.0, 1.0))
    box = field_box_mm(same, same)
    assert (box[1] - box[0]).tolist() == [20.0, 20.0, 20.0]


@pytest.mark.parametrize("place", [(19.5, 0.0, 0.0), (0.0, 0.0, 1000.0), (-20.5, 0.0, 0.0)])
def test_nothing_shared(place: tuple[float, float, float]) -> None:
    other = Grid((10, 20, 5), (1.0, 1.0, 4.0), place)
    if place[0] == -20.5:
        other = Grid((10, 20, 5), (2.0, 1.0, 4.0), (-20.0, 0.0, 0.0))
    assert shared_box_mm(FIRST, other) is None
    assert covered_shares(FIRST, other) == (0.0, 0.0, 0.0)


def test_oblique_axes_count_by_the_box_around_the_corners() -> None:
    half = np.sqrt(0.5)
    turned = (half, -half, 0.0, half, half, 0.0, 0.0, 0.0, 1.0)
    square = Grid((10, 10, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), turned)
    axes = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    box = field_box_mm(square, axes)
    assert (box[1] - box[0]).tolist() == pytest.approx([10 * np.sqrt(2), 10 * np.sqrt(2), 1.0])
