"""Images on another grid: what stands at a place in the patient stays there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dicom_builder import oblique
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medtool.core.errors import CaseRefused
from medtool.core.fields import covered_shares
from medtool.core.geometry import Grid, Triple
from medtool.data.grids import orientation, same_grid
from medtool.data.regridding import axial, common_grid, labels_on, regridded, sliced_grid

SOURCE = Grid((24, 22, 20), (2.0, 2.5, 3.0), (-20.0, -25.0, -30.0))


def centres(grid: Grid) -> NDArray[np.float64]:
    """LPS mm (z, y, x, 3) of every voxel."""
    z, y, x = np.indices(grid.size[::-1])
    return np.stack([x, y, z, np.ones_like(x)], axis=-1) @ grid.affine_lps().T[:, :3]


def turned(seed: int) -> tuple[float, ...]:
    """Columns are the x, y, z axes of a grid that lies askew in the patient."""
    row, column = np.reshape(oblique(seed), (2, 3))
    return tuple(float(v) for v in np.stack([row, column, np.cross(row, column)], axis=1).ravel())


def centred(grid: Grid) -> Grid:
    """The grid with its middle at the patient's origin; the middle of ``SOURCE`` is 4 mm off."""
    middle = grid.affine_lps() @ [*((n - 1) / 2 for n in grid.size), 1.0]
    x, y, z = (float(start - place) for start, place in zip(grid.origin_mm, middle, strict=False))
    return replace(grid, origin_mm=(x, y, z))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Grids of any axes whose voxels lie in and around ``SOURCE``."""
    spacing_mm: Triple = draw(st.tuples(*[st.floats(1.0, 4.0)] * 3))
    size = draw(st.tuples(*[st.integers(1, 12)] * 3))
    origin: Triple = draw(st.tuples(*[st.floats(-15.0, 10.0)] * 3))
    direction = turned(draw(st.integers(0, 1000)))
    if draw(st.booleans()):
        direction = tuple(float(v) for v in np.diag(draw(st.sampled_from(SIGNS))).ravel())
    return Grid(size, spacing_mm, origin, direction)


SIGNS = [(1.0, 1.0, 1.0), (-1.0, -1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0)]


@given(grids(), st.tuples(*[st.floats(-1, 1)] * 4))
@settings(max_examples=60)
def test_what_is_linear_in_the_patient_stays_so(
    target: Grid, slopes: tuple[float, float, float, float]
) -> None:
    def plane(grid: Grid) -> NDArray[np.float64]:
        return centres(grid) @ np.asarray(slopes[:3]) + slopes[3]

    found = regridded(plane(SOURCE), SOURCE, target, outside=-1024.0)
    index = np.linalg.inv(SOURCE.affine_lps())
    place = np.concatenate([centres(target), np.ones((*target.size[::-1], 1))], axis=-1)
    vox = (place @ index.T)[..., :3]
    last = np.asarray(SOURCE.size) - 1
    inside = ((vox >= 1e-4) & (vox <= last - 1e-4)).all(axis=-1)
    beyond = ((vox < -0.501) | (vox > last + 0.501)).any(axis=-1)
    assert found[inside] == pytest.approx(plane(target)[inside], abs=2e-3)
    assert (found[beyond] == -1024.0).all()


@given(
    st.tuples(*[st.floats(-6.0, 6.0)] * 3), st.tuples(*[st.floats(1.0, 3.0)] * 3), st.integers(0, 9)
)
@settings(max_examples=30)
def test_a_landmark_stays_where_it_was(landmark_mm: Triple, spacing_mm: Triple, seed: int) -> None:
    def spot(grid: Grid) -> NDArray[np.float64]:
        return np.exp(-((centres(grid) - landmark_mm) ** 2).sum(axis=-1) / (2 * 4.0**2))

    other = centred(Grid((40, 40, 40), (1.7, 1.7, 1.7), (0.0, 0.0, 0.0), turned(seed)))
    target = common_grid(SOURCE, other, spacing_mm)
    for grid in (SOURCE, other):
        found = regridded(spot(grid), grid, target, outside=0.0).astype(np.float64)
        weights = found / found.sum()
        centroid = (centres(target) * weights[..., None]).sum(axis=(0, 1, 2))
        assert centroid == pytest.approx(np.asarray(landmark_mm), abs=0.1)


def test_as_scipy_does_it() -> None:
    draw = np.random.default_rng(4)
    values = draw.normal(size=SOURCE.size[::-1]).astype(np.float32)
    target = centred(Grid((25, 24, 45), (2.1, 1.9, 1.3), (0.0, 0.0, 0.0), turned(8)))
    found = regridded(values, SOURCE, target, outside=-9.0)
    place = np.concatenate([centres(target), np.ones((*target.size[::-1], 1))], axis=-1)
    vox = (place @ np.linalg.inv(SOURCE.affine_lps()).T)[..., 2::-1]
    expected = ndimage.map_coordinates(values, np.moveaxis(vox, -1, 0), order=1, mode="nearest")
    last = np.asarray(SOURCE.size[::-1]) - 1
    inside = ((vox > -0.499) & (vox < last + 0.499)).all(axis=-1)
    outside = ((vox < -0.501) | (vox > last + 0.501)).any(axis=-1)
    assert 0.3 < inside.mean() < 1.0
    assert found[inside] == pytest.approx(expected[inside], abs=1e-4)
    assert (found[outside] == -9.0).all()


def test_the_same_grid_gives_the_same_values() -> None:
    values = np.random.default_rng(1).normal(size=SOURCE.size[::-1]).astype(np.float32)
    same = regridded(values, SOURCE, SOURCE, outside=0.0)
    assert (same == values).all()
    assert same is not values


def test_a_mask_by_the_nearest_voxel() -> None:
    mask = np.zeros(SOURCE.size[::-1], np.uint8)
    mask[5:9, 5:9, 5:9] = 3
    finer = Grid((96, 88, 80), (0.5, 0.625, 0.75), (-20.75, -25.9375, -31.125))
    found = regridded(mask, SOURCE, finer, outside=0.0, how="nearest")
    assert set(np.unique(found)) == {0.0, 3.0}
    assert (found > 0).sum() == 64 * (mask > 0).sum()


def test_long_steps_average_what_lies_between() -> None:
    """Every fourth voxel alone would see all of a comb, or nothing."""
    fine = Grid((64, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    comb = np.zeros((4, 4, 64), np.float32)
    comb[:, :, ::4] = 1.0
    coarse = Grid((16, 4, 4), (4.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    found = regridded(comb, fine, coarse, outside=0.0)
    assert found[:, :, 2:-2] == pytest.approx(0.25, abs=0.05)
    # Twice as long is still read as it is.
    twice = Grid((32, 4, 4), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert (regridded(comb, fine, twice, outside=0.0) == comb[:, :, ::2]).all()


def test_uptake_never_falls_below_what_it_was() -> None:
    values = np.zeros(SOURCE.size[::-1], np.float32)
    values[10, 10, 10] = 50.0
    target = common_grid(SOURCE, SOURCE, (1.0, 1.0, 1.0))
    found = regridded(values, SOURCE, target, outside=0.0)
    assert found.min() == 0.0
    assert found.max() <= 50.0


# --- the common grid ----------------------------------------------------------------------------
def test_a_common_grid_by_hand() -> None:
    ct = Grid((100, 100, 50), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    pet = Grid((20, 20, 20), (4.0, 4.0, 4.0), (30.0, 40.0, 20.5))
    # Shared edges: x 28 to 99.5 and to 108: 71.5 mm; y 38 to 99.5: 61.5; z 18.5 to 98.5: 80.
    grid = common_grid(ct, pet, (2.0, 2.0, 2.0))
    assert grid.size == (35, 30, 40)
    # Whole voxels in the middle: 1.5 and 1.5 mm are left over, and 0.
    assert grid.origin_mm == pytest.approx((28 + 0.75 + 1, 38 + 0.75 + 1, 18.5 + 1))
    assert covered_shares(grid, pet) == pytest.approx((1.0, 1.0, 1.0))
    assert covered_shares(grid, ct) == pytest.approx((1.0, 1.0, 1.0))


@given(grids(), st.floats(1.0, 3.0))
@settings(max_examples=40)
def test_a_common_grid_lies_in_both_fields_of_view(other: Grid, step_mm: float) -> None:
    try:
        grid = common_grid(SOURCE, other, (step_mm,) * 3)
    except CaseRefused as refusal:
        assert refusal.code == "fields-apart"
        return
    assert grid.direction == SOURCE.direction
    assert min(covered_shares(grid, SOURCE)) == pytest.approx(1.0)
    assert min(covered_shares(grid, other)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("place", "spacing_mm", "code"),
    [
        ((0.0, 0.0, 500.0), (2.0, 2.0, 2.0), "fields-apart"),
        ((-20.0, -25.0, -30.0), (45.0, 45.0, 49.0), "fields-apart"),
        ((-20.0, -25.0, -30.0), (0.0, 2.0, 2.0), "invalid-spacing"),
        ((-20.0, -25.0, -30.0), (float("nan"), 2.0, 2.0), "invalid-spacing"),
    ],
)
def test_no_common_grid(place: Triple, spacing_mm: Triple, code: str) -> None:
    with pytest.raises(CaseRefused) as caught:
        common_grid(SOURCE, Grid((10, 10, 10), (4.0, 4.0, 4.0), place), spacing_mm)
    assert caught.value.code == code


def test_an_array_that_does_not_fit_its_grid() -> None:
    with pytest.raises(ValueError, match="on a grid of"):
        regridded(np.zeros((2, 2, 2)), SOURCE, SOURCE, outside=0.0)


# --- slices for a network -----------------------------------------------------------------
@given(grids())
@settings(max_examples=60)
def test_the_same_voxels_in_the_order_of_the_patient(grid: Grid) -> None:
    turned_grid = axial(grid)
    directions = np.reshape(turned_grid.direction, (3, 3))
    assert (np.diag(directions) > 0).all()
    # Each axis is the nearest one that is left, so the sum of the three is the largest.
    assert np.trace(directions) >= np.trace(np.reshape(grid.direction, (3, 3))) - 1e-9
    ours = np.sort(np.round(centres(grid).reshape(-1, 3), 6), axis=0)
    theirs = np.sort(np.round(centres(turned_grid).reshape(-1, 3), 6), axis=0)
    assert np.allclose(ours, theirs, atol=1e-5)
    again = axial(turned_grid)
    assert again.size == turned_grid.size and same_grid(again, turned_grid) is None


def test_a_grid_of_right_anterior_inferior_is_turned_to_left_posterior_superior() -> None:
    signs = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
    grid = Grid((4, 5, 6), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), signs)
    assert orientation(grid) == "RAI"
    # The last voxel of each axis comes first: 10 - 3, 20 - 8, 30 - 15.
    assert axial(grid) == Grid((4, 5, 6), (1.0, 2.0, 3.0), (7.0, 12.0, 15.0))


def test_square_pixels_over_the_shared_field() -> None:
    """A PET of 100 x 100 mm from 0, a CT from 20 to 80 along x and from 30 to 70 along y."""
    pet = Grid((20, 20, 10), (5.0, 5.0, 4.0), (2.5, 2.5, 2.0))
    ct = Grid((60, 40, 15), (1.0, 1.0, 2.0), (20.5, 30.5, 6.0))
    grid = sliced_grid(pet, ct, (30, 30))
    # 60 mm over 30 pixels; along y they reach beyond the 40 mm, to both sides alike. The CT
    # reaches from 5 to 35 mm along z: slices of the PET at 6, 10, ... 34.
    assert grid == Grid((30, 30, 8), (2.0, 2.0, 4.0), (21.0, 21.0, 6.0))
    assert sliced_grid(pet, ct, (30, 60), 10.0) == Grid(
        (60, 30, 3), (4.0 / 3, 4.0 / 3, 10.0), grid_origin(4.0 / 3), pet.direction
    )


def grid_origin(step_mm: float) -> Triple:
    """Of 60 x 30 pixels around (50, 50), and three slices of 10 mm around 20."""
    return (50.0 - 29.5 * step_mm, 50.0 - 14.5 * step_mm, 10.0)


@pytest.mark.parametrize("away_mm", [(200.0, 0.0, 0.0), (0.0, 0.0, 55.0)])
def test_no_slices_where_nothing_is_shared(away_mm: Triple) -> None:
    x, y, z = SOURCE.origin_mm
    other = replace(SOURCE, origin_mm=(x + away_mm[0], y + away_mm[1], z + away_mm[2]))
    if away_mm[2]:
        # Five millimetres are shared, and no slice is asked for within.
        with pytest.raises(CaseRefused, match="no field of view"):
            sliced_grid(SOURCE, other, (8, 8), 20.0)
        return
    with pytest.raises(CaseRefused, match="no field of view"):
        sliced_grid(SOURCE, other, (8, 8))


def test_labels_on_a_coarser_grid_keep_their_volume_and_what_most_of_a_voxel_is() -> None:
    fine = Grid((24, 24, 24), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    coarse = Grid((8, 8, 8), (3.0, 3.0, 3.0), (1.5, 1.5, 1.5))
    labels = np.zeros((24, 24, 24), np.int16)
    labels[6:18, 6:18, 6:12] = 1
    labels[6:18, 6:18, 12:18] = 2
    wanted = np.zeros((8, 8, 8), np.int16)
    wanted[2:6, 2:6, 2:4] = 1
    wanted[2:6, 2:6, 4:6] = 2
    assert (labels_on(labels, fine, coarse) == wanted).all()
    assert (labels_on(wanted, coarse, fine) == labels).all()
    assert labels_on(labels, fine, fine) is not labels
    assert (labels_on(labels, fine, fine) == labels).all()


def test_two_labels_that_share_a_voxel_are_not_taken_for_background() -> None:
    """Neither has half of it, both together have all."""
    fine = Grid((9, 9, 9), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    middle = Grid((1, 1, 1), (1.0, 1.0, 1.0), (4.0, 4.5, 4.5))
    labels = np.zeros((9, 9, 9), np.int16)
    labels[:, :, :4], labels[:, :, 4:] = 1, 2
    assert labels_on(labels, fine, middle).item() in (1, 2)
