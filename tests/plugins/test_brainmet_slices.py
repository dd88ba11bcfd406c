"""Stages 2, 3, 4 and 6: window, size, quality, normalisation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medtool_brainmet.asymmetry import MidSagittal, asymmetry_indices, find_mid_sagittal
from medtool_brainmet.normalisation import normalise_slices
from medtool_brainmet.quality import judge_slices, neighbour_correlations, slice_noise
from medtool_brainmet.resizing import cut_square, square_around, to_patient_axes
from medtool_brainmet.settings import QualitySection
from medtool_brainmet.windowing import apply_window
from scipy import ndimage

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid


def test_window_40_80_runs_from_0_to_80_hu() -> None:
    hu = np.array([[[-1000.0, 0.0, 20.0, 40.0, 80.0, 3000.0]]], dtype=np.float32)
    assert apply_window(hu, 40, 80).tolist() == [[[0.0, 0.0, 0.25, 0.5, 1.0, 1.0]]]


# --- size ---------------------------------------------------------------------------------
def axial_grids():
    """The eight ways in which axial slices can lie: flips and transposes in the slice."""
    for transposed in (False, True):
        for sx in (1.0, -1.0):
            for sy in (1.0, -1.0):
                first = (0.0, sy, 0.0) if transposed else (sx, 0.0, 0.0)
                second = (sx, 0.0, 0.0) if transposed else (0.0, sy, 0.0)
                third = tuple(np.cross(first, second))
                matrix = np.column_stack([first, second, third])
                yield Grid((5, 4, 3), (0.7, 0.9, 4.0), (10.0, -20.0, 30.0), tuple(matrix.ravel()))


@pytest.mark.parametrize("grid", list(axial_grids()))
def test_columns_run_left_and_rows_posterior_and_no_voxel_moves(grid: Grid) -> None:
    volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    turned, new = to_patient_axes(volume, grid)
    directions = np.asarray(new.direction).reshape(3, 3)
    assert directions[0, 0] == 1
    assert directions[1, 1] == 1
    assert turned.shape == new.size[::-1]
    where = {}
    for values, its_grid in ((volume, grid), (turned, new)):
        affine = its_grid.affine_lps()
        for z, y, x in np.ndindex(values.shape):
            point = affine @ np.array([x, y, z, 1.0])
            where.setdefault(float(values[z, y, x]), []).append(point)
    assert all(np.allclose(first, second) for first, second in where.values())


def test_slices_that_are_not_axial_are_refused() -> None:
    coronal = Grid((4, 4, 4), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 0, 1, 0, -1, 0))
    with pytest.raises(CaseRefused) as caught:
        to_patient_axes(np.zeros((4, 4, 4), np.float32), coronal)
    assert caught.value.code == "not-axial"


def test_the_square_lies_around_the_brain_and_keeps_its_place_in_mm() -> None:
    mask = np.zeros((2, 100, 120), dtype=bool)
    mask[:, 20:60, 30:90] = True
    grid = Grid((120, 100, 2), (0.5, 0.5, 5.0), (-30.0, -25.0, 0.0))
    square = square_around(mask, grid, 40.0)
    # 40 mm are 80 pixels; the middle of the box is row 40, column 60.
    assert (square.first_row, square.first_column) == (0, 20)
    assert (square.rows, square.columns) == (80, 80)
    new = square.grid_of(grid, 40)
    assert new.spacing_mm == (1.0, 1.0, 5.0)
    # The first new pixel covers columns 20 and 21, rows 0 and 1: its centre is at 20.5 and 0.5.
    assert new.origin_mm == pytest.approx((-30 + 20.5 * 0.5, -25 + 0.5 * 0.5, 0.0))


def test_a_field_of_0_takes_the_whole_image_as_a_square() -> None:
    mask = np.ones((1, 60, 100), dtype=bool)
    square = square_around(mask, Grid((100, 60, 1), (1.0, 1.0, 5.0), (0, 0, 0)), 0.0)
    assert (square.first_row, square.first_column) == (-20, 0)
    images, masks = cut_square(np.ones((1, 60, 100), np.float32), mask, square, 50)
    assert images.shape == (1, 50, 50)
    assert not masks[0, :9].any()
    assert masks[0, 11:39].all()


def test_bone_does_not_bleed_into_the_edge_of_the_brain() -> None:
    image = np.ones((1, 64, 64), dtype=np.float32)
    mask = np.zeros((1, 64, 64), dtype=bool)
    image[:, 11:53, 11:53] = 0.4
    mask[:, 11:53, 11:53] = True
    square = square_around(mask, Grid((64, 64, 1), (1.0, 1.0, 5.0), (0, 0, 0)), 0.0)
    small, kept = cut_square(image, mask, square, 32)
    assert small[kept] == pytest.approx(0.4, abs=1e-6)
    assert (small[~kept] == 0).all()


# --- asymmetry ----------------------------------------------------------------------------
def oval(shift_px: float, angle_degrees: float, size: int = 96):
    """An oval of axes 25 x 35 pixels, turned and moved, in three slices."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle = np.radians(angle_degrees)
    x = x - shift_px
    across = x * np.cos(angle) + y * np.sin(angle)
    along = -x * np.sin(angle) + y * np.cos(angle)
    inside = (across / 25) ** 2 + (along / 35) ** 2 < 1
    return np.repeat(inside[None], 3, axis=0)


@pytest.mark.parametrize(("shift_mm", "angle"), [(0, 0), (6, 0), (0, 8), (-4, -12), (10, 5)])
def test_the_mid_sagittal_line_is_found(shift_mm: float, angle: float) -> None:
    line = find_mid_sagittal(oval(shift_mm / 2.0, angle), 2.0)
    assert line.shift_mm == pytest.approx(shift_mm, abs=1.0)
    assert abs(line.angle_degrees) == pytest.approx(abs(angle), abs=1.0)


def test_the_line_that_was_found_makes_the_oval_symmetric() -> None:
    mask = oval(-2.0, 9.0)
    image = mask.astype(np.float32) * 0.5
    line = find_mid_sagittal(mask, 2.0)
    assert asymmetry_indices(image, mask, line, 2.0) == pytest.approx(0.0, abs=0.005)
    lopsided = image.copy()
    lopsided[1, 40:56, 60:68] = 0.9
    indices = asymmetry_indices(lopsided, mask, line, 2.0)
    assert indices[1] > 0.02
    assert indices[0] == pytest.approx(0.0, abs=0.005)


def test_an_index_by_hand() -> None:
    # Left half 0.2, right half 0.6, wide enough that smoothing leaves the outer parts alone:
    # |0.2 - 0.6| / (0.2 + 0.6) is 0.5.
    mask = np.ones((1, 40, 400), dtype=bool)
    image = np.full((1, 40, 400), 0.2, dtype=np.float32)
    image[:, :, 200:] = 0.6
    index = asymmetry_indices(image, mask, MidSagittal(0.0, 0.0), 1.0)[0]
    assert index == pytest.approx(0.5, abs=0.01)


def test_an_empty_mask_has_no_asymmetry() -> None:
    mask = np.zeros((2, 32, 32), dtype=bool)
    line = find_mid_sagittal(mask, 1.0)
    assert line == MidSagittal(0.0, 0.0)
    assert asymmetry_indices(np.zeros((2, 32, 32), np.float32), mask, line, 1.0).tolist() == [0, 0]


# --- quality ------------------------------------------------------------------------------
def test_noise_is_the_deviation_of_the_laplacian() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(0.5, 0.02, (200, 200)).astype(np.float32)
    # The Laplacian of white noise has the deviation sqrt(4 + 16) of the noise.
    assert slice_noise(plane, np.ones((200, 200), bool)) == pytest.approx(0.02 * 20**0.5, rel=0.03)
    laplace = ndimage.laplace(plane)[1:-1, 1:-1]
    robust = 1.4826 * np.median(np.abs(laplace - np.median(laplace)))
    assert slice_noise(plane, np.ones((200, 200), bool)) == pytest.approx(robust, rel=1e-5)
    assert np.isnan(slice_noise(plane, np.zeros((200, 200), bool)))


def test_correlations_are_those_of_numpy_and_the_better_neighbour_counts() -> None:
    rng = np.random.default_rng(1)
    first, second, third = rng.normal(size=(3, 30, 30)).astype(np.float32)
    slices = np.stack([first, first + 0.1 * second, third])
    masks = np.ones(slices.shape, dtype=bool)
    found = neighbour_correlations(slices, masks)
    near = np.corrcoef(slices[0].ravel(), slices[1].ravel())[0, 1]
    far = np.corrcoef(slices[1].ravel(), slices[2].ravel())[0, 1]
    assert found == pytest.approx([near, max(near, far), far], abs=1e-5)


def brain_stack(count: int = 12):
    """Slices of one symmetric texture that changes slowly, and a mask of full ovals."""
    rng = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 3)
    texture = 0.5 + 0.1 * (texture + texture[:, ::-1]) / texture.std()
    masks = np.repeat(oval(0, 0)[:1], count, axis=0)
    noise = rng.normal(0, 0.01, (count, 96, 96))
    slices = np.where(masks, np.clip(texture + noise, 0, 1), 0).astype(np.float32)
    return slices, masks, rng


def test_little_brain_noise_and_motion_are_dropped_with_their_reason() -> None:
    slices, masks, rng = brain_stack()
    masks[0] = False
    masks[0, 40:50, 40:50] = True
    slices[3] += np.where(masks[3], rng.normal(0, 0.2, (96, 96)), 0)
    slices[7] = np.where(masks[7], 1 - slices[7], 0)
    slices[11] = np.where(masks[11], slices[11] + 0.5 * (np.arange(96) > 60), 0)
    settings_ = QualitySection(asymmetry_percentile=95)
    verdicts, _ = judge_slices(slices, masks, 2.0, settings_)
    reasons = {index: verdict.reason for index, verdict in enumerate(verdicts) if verdict.reason}
    assert reasons == {0: "little-brain", 3: "noise", 7: "motion"}
    assert [v.used for v in verdicts] == [k not in reasons for k in range(12)]


def test_a_slice_of_high_asymmetry_stays_whatever_the_others_say() -> None:
    slices, masks, rng = brain_stack()
    slices[3] += np.where(masks[3], rng.normal(0, 0.1, (96, 96)), 0)
    slices[3, :, 60:] += np.where(masks[3, :, 60:], 0.4, 0).astype(np.float32)
    verdicts, _ = judge_slices(slices, masks, 2.0, QualitySection())
    assert verdicts[3].reason == "asymmetric"
    assert verdicts[3].used


# --- normalisation ------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.05, 0.3))
def test_zscore_has_mean_0_and_deviation_1_inside(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((2, 20, 20)) > 0.4
    slices = (0.5 + scale * (rng.random((2, 20, 20)) - 0.5)).astype(np.float16)
    found = normalise_slices(slices, masks, "brain_zscore")
    for plane, inside in zip(found, masks, strict=True):
        assert plane[inside].mean() == pytest.approx(0, abs=1e-3)
        assert plane[inside].std() == pytest.approx(1, abs=1e-3)
        assert (plane[~inside] == 0).all()


def test_radimagenet_runs_from_minus_1_to_1() -> None:
    slices = np.array([[[0.0, 0.25], [1.0, 0.7]]], dtype=np.float32)
    masks = np.array([[[True, True], [True, False]]])
    expected = [[[-1.0, -0.5], [1.0, -1.0]]]
    assert normalise_slices(slices, masks, "radimagenet").tolist() == expected


def test_a_constant_slice_stays_finite() -> None:
    slices = np.full((1, 4, 4), 0.5, dtype=np.float32)
    assert not normalise_slices(slices, np.ones((1, 4, 4), bool), "brain_zscore").any()
    assert not normalise_slices(slices, np.zeros((1, 4, 4), bool), "brain_zscore").any()


def test_a_slice_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(5)
    slices, masks = rng.random((5, 16, 16)).astype(np.float32), rng.random((5, 16, 16)) > 0.3
    whole = normalise_slices(slices, masks, "brain_zscore")
    parts = [
        normalise_slices(slices[k : k + 1], masks[k : k + 1], "brain_zscore") for k in range(5)
    ]
    assert np.array_equal(whole, np.concatenate(parts))
