"""Surface distances: what three packages say of known pairs, and what follows from geometry."""

from __future__ import annotations

from math import hypot, inf, isnan, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_fixtures import FIXTURES, ball, box

from medtool.score.overlap import overlap
from medtool.score.surface import edge_pair, surfel_pair
from medtool.score.surfels import corners_of, surface_sizes

DIGITS = 5e-7


@pytest.mark.parametrize("name", FIXTURES)
def test_numbers_are_those_of_the_independent_packages(name):
    known = FIXTURES[name]
    surfels = surfel_pair(known.prediction, known.reference, known.spacing_mm)
    edges = edge_pair(known.prediction, known.reference, known.spacing_mm)
    dice = overlap(known.prediction, known.reference).metrics()["dice"]
    assert dice == pytest.approx(known.dice, abs=DIGITS)
    assert surfels.hausdorff_mm() == pytest.approx(known.hausdorff_mm, abs=DIGITS)
    assert surfels.hausdorff_mm(95) == pytest.approx(known.hausdorff95_mm, abs=DIGITS)
    towards_prediction = pytest.approx(known.reference_to_prediction_mm, abs=DIGITS)
    assert surfels.reference.mean_mm == towards_prediction
    towards_reference = pytest.approx(known.prediction_to_reference_mm, abs=DIGITS)
    assert surfels.prediction.mean_mm == towards_reference
    assert edges.symmetric_mean_mm() == pytest.approx(known.symmetric_mean_mm, abs=DIGITS)
    assert surfels.surface_dice(1.0) == pytest.approx(known.surface_dice_1mm, abs=DIGITS)
    assert surfels.surface_dice(2.0) == pytest.approx(known.surface_dice_2mm, abs=DIGITS)


def test_edge_voxels_of_the_boxes_are_counted_as_monai_counts_them():
    known = FIXTURES["boxes"]
    edges = edge_pair(known.prediction, known.reference, known.spacing_mm)
    assert edges.prediction.mean_mm == pytest.approx(0.693878, abs=DIGITS)
    assert edges.reference.mean_mm == pytest.approx(0.558492, abs=DIGITS)
    assert edges.surface_dice(1.0) == pytest.approx(0.871186, abs=DIGITS)


# --- by hand ------------------------------------------------------------------------------------
def test_two_voxels_three_apart():
    """One voxel each, 3 voxels of 2 mm apart: every corner of one is 6 mm from the other's."""
    one, two = (box((7, 1, 1), (at, at + 1), (0, 1), (0, 1)) for at in (1, 4))
    pair = surfel_pair(one, two, (2.0, 1.0, 1.0))
    assert pair.hausdorff_mm() == pair.hausdorff_mm(95) == 6.0
    # Half of the corners look at the other voxel: they are one voxel nearer.
    assert pair.prediction.mean_mm == pair.reference.mean_mm == 5.0
    assert pair.surface_dice(4.0) == 0.5
    assert pair.surface_dice(3.999) == 0.0
    # The eight triangles at the corners of a voxel.
    assert pair.prediction.total == pytest.approx(hypot(1.0 * 1.0, 2.0 * 1.0, 2.0 * 1.0))
    assert edge_pair(one, two, (2.0, 1.0, 1.0)).symmetric_mean_mm() == 6.0


def test_two_pixels_beside_each_other():
    """In 2D a pixel's contour is four slanting lines; two corners of each pixel are shared."""
    one, two = box((3, 4), (1, 2), (1, 2)), box((3, 4), (1, 2), (2, 3))
    pair = surfel_pair(one, two, (1.0, 3.0))
    assert pair.prediction.total == pytest.approx(2.0 * sqrt(10.0))
    assert sorted(pair.prediction.distances_mm) == [0.0, 0.0, 3.0, 3.0]
    assert pair.surface_dice(2.9) == 0.5


def test_percentile_is_by_area_and_not_interpolated():
    """A slab of 1 x 1 x 20 voxels and its first 19: the far end is four of 84 corners."""
    long, short = (box((1, 1, 22), (0, 1), (0, 1), (1, end)) for end in (21, 20))
    pair = surfel_pair(short, long, (1, 1, 1))
    end = 4 * sqrt(3) / 8
    sides = 19 * 4 * sqrt(0.5)
    # Four corners at each end, four roofs at each of the 19 places between; the end is 1 mm away.
    assert pair.reference.total == pytest.approx(sides + 2 * end)
    share_near = 100 * (sides + end) / (sides + 2 * end)
    assert pair.reference.percentile_mm(share_near - 0.001) == 0.0
    assert pair.reference.percentile_mm(share_near + 0.001) == 1.0


def test_voxels_at_the_border_of_the_image_are_surface():
    whole = np.ones((3, 3, 3), dtype=bool)
    assert edge_pair(whole, whole, (1, 1, 1)).prediction.sizes.size == 26
    assert surfel_pair(whole, whole, (1, 1, 1)).prediction.sizes.size == 4**3 - 2**3


def test_a_tolerance_of_just_the_distance_is_kept_wherever_the_masks_lie():
    """0.7 mm times (9 - 7) is 1.4, but 9 times 0.7 minus 7 times 0.7 is 1.3999999999999995."""
    for at in range(12):
        one, two = box((20, 1, 1), (at, at + 1)), box((20, 1, 1), (at + 3, at + 4))
        pair = surfel_pair(one, two, (0.7, 1.0, 1.0))
        assert sorted(set(pair.prediction.distances_mm)) == [2 * 0.7, 3 * 0.7]


# --- empty masks --------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5)])
def test_empty_masks(shape):
    nothing, something = np.zeros(shape, bool), np.zeros(shape, bool)
    something[1:3, 1:3] = True
    spacing_mm = (1.0,) * len(shape)
    for look in (surfel_pair, edge_pair):
        for pair in (look(nothing, something, spacing_mm), look(something, nothing, spacing_mm)):
            assert pair.hausdorff_mm() == pair.hausdorff_mm(95) == inf
            assert pair.symmetric_mean_mm() == inf
            assert pair.surface_dice(100.0) == 0.0
        neither = look(nothing, nothing, spacing_mm)
        assert isnan(neither.surface_dice(1.0))
        assert isnan(neither.symmetric_mean_mm())


# --- areas --------------------------------------------------------------------------------------
def test_area_of_a_digitised_ball_is_that_of_a_ball():
    """Within a few percent: the slopes that voxels know are few."""
    mask = ball(67, (33, 33, 33), 30)
    area = surfel_pair(mask, mask, (1, 1, 1)).prediction.total
    assert area == pytest.approx(4 * pi * 30**2, rel=0.1)
    length = surfel_pair(mask[33], mask[33], (1, 1)).prediction.total
    assert length == pytest.approx(2 * pi * 30, rel=0.07)


def test_area_of_a_box_is_exact_but_for_edges_and_corners():
    mask = box((14, 13, 12), (1, 11), (1, 9), (1, 7))
    # Faces between the outermost points where voxels meet; slanting edges; cut corners.
    spacing = (2.0, 1.0, 0.5)
    a, b, c = (s * (n - 1) for s, n in zip(spacing, (10, 8, 6), strict=True))
    faces = 2 * (a * b + b * c + a * c)
    edges = 4 * 0.5 * (a * hypot(1.0, 0.5) + b * hypot(2.0, 0.5) + c * hypot(2.0, 1.0))
    corners = hypot(1.0 * 0.5, 2.0 * 0.5, 2.0 * 1.0)
    area = surfel_pair(mask, mask, spacing).prediction.total
    assert area == pytest.approx(faces + edges + corners)


SPACINGS = st.tuples(*[st.floats(0.1, 10.0)] * 3)


@settings(max_examples=20)
@given(SPACINGS)
def test_a_hole_has_the_surface_of_what_would_fill_it(spacing_mm):
    sizes = surface_sizes(spacing_mm)
    np.testing.assert_allclose(sizes, sizes[::-1], rtol=1e-12)
    assert sizes[0] == sizes[-1] == 0.0
    assert (sizes[1:-1] > 0).all()


@settings(max_examples=20)
@given(SPACINGS, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_areas_do_not_depend_on_how_the_grid_is_turned(spacing_mm, order, flips):
    sizes = surface_sizes(spacing_mm)
    turned = surface_sizes(tuple(spacing_mm[axis] for axis in order))
    codes = np.array([_turned(code, order, flips) for code in range(256)])
    np.testing.assert_allclose(sizes, turned[codes], rtol=1e-12)


def _turned(code: int, order, flips) -> int:
    cube = np.zeros((2, 2, 2), dtype=int)
    for corner in corners_of(code, 3):
        cube[corner] = 1
    cube = np.flip(cube.transpose(order), [axis for axis in range(3) if flips[axis]])
    return int("".join(str(bit) for bit in cube.reshape(-1)), 2)


def test_areas_of_known_shapes():
    sizes = surface_sizes((1, 1, 1))
    triangle = sqrt(3) / 8
    # Bits are voxels (0,0,0), (0,0,1), (0,1,0), (0,1,1), (1,0,0), ...
    assert sizes[0b10000000] == pytest.approx(triangle)
    assert sizes[0b11000000] == pytest.approx(sqrt(0.5))
    assert sizes[0b10010000] == pytest.approx(2 * triangle)
    assert sizes[0b11110000] == pytest.approx(1.0)
    assert sizes[0b11101000] == pytest.approx(6 * triangle)
    assert sizes[0b10010110] == pytest.approx(4 * triangle)
    assert surface_sizes((2, 3)).tolist()[:4] == pytest.approx([0, hypot(1, 1.5), hypot(1, 1.5), 3])


# --- whatever the masks -------------------------------------------------------------------------
def pairs():
    """Two random masks of one shape, neither empty, and a spacing."""

    def masks(shape):
        cells = st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        one = cells.filter(any).map(lambda bits: np.array(bits).reshape(shape))
        return st.tuples(one, one)

    return st.tuples(st.tuples(*[st.integers(1, 6)] * 3).flatmap(masks), SPACINGS)


@settings(max_examples=40)
@given(pairs())
def test_sides_may_be_exchanged(sample):
    (one, two), spacing_mm = sample
    forth, back = surfel_pair(one, two, spacing_mm), surfel_pair(two, one, spacing_mm)
    assert forth.hausdorff_mm(95) == back.hausdorff_mm(95)
    assert forth.surface_dice(1.0) == pytest.approx(back.surface_dice(1.0))
    assert forth.prediction.mean_mm == back.reference.mean_mm
    symmetric = [
        edge_pair(*both, spacing_mm).symmetric_mean_mm() for both in ((one, two), (two, one))
    ]
    assert symmetric[0] == pytest.approx(symmetric[1])


@settings(max_examples=40)
@given(pairs(), st.floats(0.5, 4.0))
def test_distances_grow_with_the_voxels(sample, factor):
    (one, two), spacing_mm = sample
    small = surfel_pair(one, two, spacing_mm)
    large = surfel_pair(one, two, tuple(factor * s for s in spacing_mm))
    assert large.hausdorff_mm() == pytest.approx(factor * small.hausdorff_mm())
    assert large.reference.mean_mm == pytest.approx(factor * small.reference.mean_mm)
    assert large.reference.total == pytest.approx(factor**2 * small.reference.total)


@settings(max_examples=40)
@given(pairs())
def test_distances_are_the_nearest_of_all_pairs(sample):
    """Every distance by brute force, from the definition."""
    (one, two), spacing_mm = sample
    points = [_meeting_points(mask) * spacing_mm for mask in (one, two)]
    apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    pair = surfel_pair(one, two, spacing_mm)
    np.testing.assert_allclose(pair.prediction.distances_mm, apart.min(axis=1), atol=1e-9)
    np.testing.assert_allclose(pair.reference.distances_mm, apart.min(axis=0), atol=1e-9)


def _meeting_points(mask):
    padded = np.pad(mask, 1).astype(int)
    count = sum(
        padded[i : i + mask.shape[0] + 1, j : j + mask.shape[1] + 1, k : k + mask.shape[2] + 1]
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    )
    return np.argwhere((count > 0) & (count < 8))


@settings(max_examples=40)
@given(pairs())
def test_a_mask_is_at_no_distance_from_itself(sample):
    (one, _), spacing_mm = sample
    pair = surfel_pair(one, one, spacing_mm)
    assert pair.hausdorff_mm() == pair.prediction.mean_mm == 0.0
    assert pair.surface_dice(0.0) == 1.0


@pytest.mark.parametrize("look", [surfel_pair, edge_pair])
def test_large_masks_are_looked_at_in_blocks(look, monkeypatch):
    known = FIXTURES["balls"]
    whole = look(known.prediction, known.reference, known.spacing_mm)
    monkeypatch.setattr("medtool.score.surface.BLOCK_VOX", 1000)
    parts = look(known.prediction, known.reference, known.spacing_mm)
    for one, other in ((whole.prediction, parts.prediction), (whole.reference, parts.reference)):
        np.testing.assert_array_equal(one.distances_mm, other.distances_mm)
        np.testing.assert_array_equal(one.sizes, other.sizes)
