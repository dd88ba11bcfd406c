"""Arrays are turned as nibabel turns them, and back."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medtool.core.geometry import Grid
from medtool.core.plan import Orientation
from medtool.data.orientation import AS_STORED, Turn, left_right_axis, turn_to

SIZE_VOX = (4, 3, 5)
ANGLES = st.floats(-180, 180, allow_nan=False)


def grid_of(directions: np.ndarray) -> Grid:
    """A grid of x 5, y 3, z 4 voxels whose axes are the columns of ``directions`` in LPS."""
    return Grid((5, 3, 4), (0.5, 0.7, 2.0), (1.0, 2.0, 3.0), tuple(directions.ravel()))


def canonical(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Array (z, y, x) and spacings as nibabel has them after ``as_closest_canonical``."""
    affine = np.diag([-1, -1, 1, 1]) @ grid.affine_lps()
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine))
    return np.asarray(image.dataobj).transpose(2, 1, 0), np.array(image.header.get_zooms()[::-1])


def check(directions: np.ndarray) -> None:
    grid = grid_of(directions)
    array = np.arange(60, dtype=np.int16).reshape(SIZE_VOX)
    turn = turn_to("ras", grid)
    wanted, spacing_mm = canonical(array, grid)
    np.testing.assert_array_equal(turn.there(array), wanted)
    np.testing.assert_allclose([grid.spacing_mm[::-1][axis] for axis in turn.axes], spacing_mm)
    np.testing.assert_array_equal(turn.back(turn.there(array)), array)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_every_orientation_of_a_straight_image(
    axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    check(np.eye(3)[list(axes)] * np.array(signs))


@settings(max_examples=200, deadline=None)
@given(st.tuples(ANGLES, ANGLES, ANGLES), st.booleans())
def test_oblique_images(angles: tuple[float, float, float], mirrored: bool) -> None:
    directions = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    # Where two axes are as clear as each other, rounding decides.
    sizes = np.sort(np.abs(directions).ravel())
    assume(np.diff(sizes).min() > 1e-6)
    check(directions * np.array([1, 1, -1 if mirrored else 1]))


def test_an_array_that_is_left_as_it_is() -> None:
    assert turn_to("stored", grid_of(np.diag([-1.0, 1.0, 1.0]))) == AS_STORED


def test_a_voxel_goes_where_the_array_does() -> None:
    array = np.arange(60).reshape(SIZE_VOX)
    turn = Turn((1, 2, 0), (True, False, True))
    for voxel in itertools.product(*map(range, SIZE_VOX)):
        assert turn.there(array)[tuple(turn.voxel(voxel, SIZE_VOX))] == array[voxel]


def test_axes_are_turned_further_after_the_first_turn() -> None:
    """A plan counts the axes of the turned array; channels in front stay where they are."""
    array = np.arange(120).reshape(2, *SIZE_VOX)
    first = Turn((2, 0, 1), (False, True, True))
    whole = first.then((1, 2, 0))
    by_hand = first.there(array).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(whole.there(array), by_hand)
    np.testing.assert_array_equal(whole.back(by_hand), array)


@pytest.mark.parametrize("orientation", ["stored", "ras"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("tilt", [0, 20])
def test_the_axis_from_left_to_right_is_the_one_that_crosses_the_patient(
    orientation: Orientation, order: tuple[int, ...], tilt: float
) -> None:
    """A step along it moves a voxel, placed by SimpleITK, most of all in the patient's x."""
    tilted = Rotation.from_euler("zyx", [tilt, tilt, -tilt], degrees=True).as_matrix()
    grid = grid_of(tilted @ np.eye(3)[list(order)])
    image = sitk.Image(*grid.size, sitk.sitkUInt8)
    image.SetDirection(grid.direction)
    turn = turn_to(orientation, grid).then((1, 2, 0))
    moves = []
    for axis in turn.axes:
        voxel = [0, 0, 0]
        voxel[2 - axis] = 1
        moves.append(abs(image.TransformIndexToPhysicalPoint(voxel)[0]))
    assert left_right_axis(grid, turn.axes) == int(np.argmax(moves))
