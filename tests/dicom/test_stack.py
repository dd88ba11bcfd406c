"""Stack geometry against positions worked out by hand and in the builder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import AXIAL, all_orientations, normal_of, oblique, stack_positions
from hypothesis import given
from hypothesis import strategies as st

from medtool.dicom.series import PixelFormat, Plane
from medtool.dicom.stack import Stack, plane_axes, stack_geometry, target_positions

PIXELS = PixelFormat("1.2.840.10008.1.2.1", 64, 48, 16, 16, 15, True)


def planes(positions: Sequence[Sequence[float]]) -> list[Plane]:
    return [
        Plane(Path(f"{k}"), 0, f"1.{k}", None, (p[0], p[1], p[2]), math.nan, PIXELS)
        for k, p in enumerate(positions)
    ]


def along_z(heights: Sequence[float], thickness_mm: float | None = None) -> Stack:
    return stack_geometry(
        planes([(0.0, 0.0, z) for z in heights]), AXIAL, (0.5, 0.5), thickness_mm=thickness_mm
    )


def codes(stack: Stack) -> list[str]:
    return [finding.code for finding in stack.findings]


def heights(*steps: float) -> list[float]:
    return [0.0, *np.cumsum(steps).tolist()]


# --- regular stacks ---------------------------------------------------------------------------


def test_plain_axial_stack() -> None:
    stack = along_z([10.0 + 2.5 * k for k in range(12)])
    assert codes(stack) == []
    geometry = stack.geometry
    assert geometry is not None
    assert geometry.slice_spacing_mm == pytest.approx(2.5)
    assert geometry.normal == (0.0, 0.0, 1.0)
    assert geometry.shear_mm == (0.0, 0.0)
    assert geometry.tilt_degrees == 0.0
    assert not geometry.is_sheared
    assert not geometry.is_resampled
    assert (geometry.rows, geometry.columns) == (64, 48)


@pytest.mark.parametrize("orientation", list(all_orientations()))
@pytest.mark.parametrize("descending", [False, True])
def test_all_48_axis_orders_and_flips(orientation: tuple[float, ...], descending: bool) -> None:
    places = stack_positions([3.0 * k for k in range(11)], orientation, (5.0, -7.0, 11.0))
    given_order = places[::-1] if descending else places
    stack = stack_geometry(planes(given_order), orientation, (0.7, 0.9))
    geometry = stack.geometry
    assert geometry is not None
    assert codes(stack) == []
    assert [plane.position_mm for plane in stack.planes] == [tuple(p) for p in places]
    assert geometry.normal == pytest.approx(normal_of(orientation).tolist())
    assert (geometry.row_spacing_mm, geometry.column_spacing_mm) == (0.7, 0.9)
    assert geometry.slice_spacing_mm == pytest.approx(3.0)
    matrix = np.asarray([geometry.row_direction, geometry.column_direction, geometry.normal])
    assert np.linalg.det(matrix) == pytest.approx(1.0)


@given(
    seed=st.integers(0, 10_000),
    step_mm=st.floats(0.3, 8.0),
    count=st.integers(3, 40),
    shear=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    order=st.randoms(use_true_random=False),
)
def test_any_oblique_leaning_shuffled_stack(
    seed: int, step_mm: float, count: int, shear: tuple[float, float], order: object
) -> None:
    """A point of any plane is where its header says, after undoing the shear on paper."""
    orientation = oblique(seed)
    distances = [k * step_mm for k in range(count)]
    places = stack_positions(distances, orientation, (1.0, 2.0, 3.0), shear)
    shuffled = list(places)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    stack = stack_geometry(planes(shuffled), orientation, (0.5, 0.6), thickness_mm=step_mm)
    geometry = stack.geometry
    assert geometry is not None
    assert geometry.slice_spacing_mm == pytest.approx(step_mm, rel=1e-6)
    lean = math.hypot(*shear)
    drift_mm = lean * distances[-1]
    if geometry.is_sheared:
        assert geometry.shear_mm == pytest.approx(shear, abs=1e-6)
        assert geometry.tilt_degrees == pytest.approx(math.degrees(math.atan(lean)), abs=1e-4)
    else:
        # What is left alone moves by less than a quarter of a pixel in the whole stack.
        assert drift_mm <= 0.125 + 1e-9
    first = np.asarray(places[0])
    axes = np.asarray([geometry.row_direction, geometry.column_direction, geometry.normal])
    for place, plane in zip(places, stack.planes, strict=True):
        assert plane.position_mm == pytest.approx(place)
        height = plane.along_normal_mm - stack.planes[0].along_normal_mm
        moved = axes.T @ np.asarray([*(height * np.asarray(geometry.shear_mm)), height])
        allowed_mm = 1e-4 if geometry.is_sheared else drift_mm + 1e-6
        assert np.linalg.norm(first + moved - np.asarray(place)) <= allowed_mm


# --- tilt ---------------------------------------------------------------------------------------


def test_table_step_of_5_mm_at_20_degrees() -> None:
    """5 cos 20 = 4.698463 mm along the normal, 5 sin 20 = 1.710101 mm in the plane, a slice."""
    cosine, sine = math.cos(math.radians(20)), math.sin(math.radians(20))
    orientation = (1.0, 0.0, 0.0, 0.0, cosine, -sine)
    stack = stack_geometry(
        planes([(0.0, 0.0, 5.0 * k) for k in range(10)]), orientation, (0.5, 0.5)
    )
    geometry = stack.geometry
    assert geometry is not None
    assert codes(stack) == ["gantry-tilt"]
    assert geometry.tilt_degrees == pytest.approx(20.0)
    assert geometry.slice_spacing_mm == pytest.approx(4.698463, abs=1e-6)
    across, down = (value * geometry.slice_spacing_mm for value in geometry.shear_mm)
    assert across == pytest.approx(0.0, abs=1e-9)
    assert abs(down) == pytest.approx(1.710101, abs=1e-6)
    # z = 5 k is (0, 0, 5): 5 * cos along the normal (0, sin, cos), -5 * sin along the columns.
    assert down == pytest.approx(-1.710101, abs=1e-6)


def test_small_lean_is_sheared_when_it_adds_up_to_a_quarter_of_a_pixel() -> None:
    leaning = [(0.0, 0.005 * 2.0 * k, 2.0 * k) for k in range(100)]
    stack = stack_geometry(planes(leaning), AXIAL, (0.5, 0.5))
    assert codes(stack) == ["gantry-tilt"]


def test_rounded_positions_of_a_thin_stack_are_no_tilt() -> None:
    rounded = [(0.0, 0.01 * (k % 2), 0.4 * k) for k in range(10)]
    assert codes(stack_geometry(planes(rounded), AXIAL, (0.5, 0.5))) == []


def test_positions_off_a_line_are_refused() -> None:
    wandering = [(3.0 * math.sin(k), 0.0, 2.0 * k) for k in range(12)]
    stack = stack_geometry(planes(wandering), AXIAL, (0.5, 0.5))
    assert "positions-off-line" in codes(stack)
    assert stack.geometry is None


# --- steps ----------------------------------------------------------------------------------------


def test_pet_bed_joint_of_two_hundredths_is_regular() -> None:
    stack = along_z(heights(*[3.27] * 20, 3.29, *[3.27] * 20))
    assert codes(stack) == []
    assert stack.geometry is not None
    assert not stack.geometry.is_resampled


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # one slice lost in the middle, at the beginning, at the end
        ([2.0] * 5 + [4.0] + [2.0] * 5, ["missing-slices"]),
        ([4.0] + [2.0] * 10, ["missing-slices"]),
        ([2.0] * 10 + [4.0], ["missing-slices"]),
        # within 5 % of twice
        ([2.0] * 5 + [3.81] + [2.0] * 5, ["missing-slices"]),
        # three times the step, but thin
        ([1.0] * 5 + [3.0] + [1.0] * 5, ["missing-slices"]),
        # a hole over 2.5 steps and 10 mm within a run of long steps
        ([4.0] * 10 + [10.5] * 4, ["missing-slices"]),
        # half as much again, once: an irregularity
        ([2.0] * 5 + [3.0] + [2.0] * 5, ["uneven-spacing"]),
        # a second spacing
        ([2.5] * 8 + [5.0] * 8, ["uneven-spacing"]),
        ([5.0] * 12 + [2.5] * 6, ["uneven-spacing"]),
        # a hole inside the thin half, although its step is usual in the thick one
        ([2.5] * 4 + [5.0] + [2.5] * 4 + [5.0] * 12, ["missing-slices"]),
        # within and beyond one percent
        ([2.0] * 10 + [2.02], []),
        ([2.0] * 10 + [2.05], ["uneven-spacing"]),
    ],
)
def test_rules_of_steps(steps: list[float], expected: list[str]) -> None:
    found = codes(along_z(heights(*steps)))
    assert found == expected


def test_two_spacings_are_resampled_to_the_smaller_common_step() -> None:
    stack = along_z(heights(*[5.0] * 12, *[2.5] * 6))
    assert stack.geometry is not None
    assert stack.geometry.slice_spacing_mm == pytest.approx(2.5)
    assert stack.geometry.is_resampled
    targets = stack.geometry.target_positions_mm
    assert targets == pytest.approx([2.5 * k for k in range(31)])


def test_smaller_irregularities_are_resampled_to_the_median_step() -> None:
    stack = along_z(heights(*[2.0] * 5, 2.4, *[2.0] * 5))
    assert stack.geometry is not None
    assert stack.geometry.slice_spacing_mm == pytest.approx(2.0)
    # 22.4 mm hold 11 steps of 2 mm, and nothing is extrapolated.
    assert len(stack.geometry.target_positions_mm) == 12
    assert stack.geometry.target_positions_mm[-1] == pytest.approx(22.0)


def test_tiny_differences_that_add_up_are_resampled() -> None:
    stack = along_z(heights(*[1.0] * 60, *[1.009] * 60))
    assert codes(stack) == ["uneven-spacing"]


def test_with_two_steps_thickness_judges_gaps() -> None:
    assert codes(along_z([0.0, 2.0, 34.0], 2.0)) == ["few-slices", "missing-slices"]
    assert codes(along_z([0.0, 32.5], 2.5)) == ["too-few-slices", "missing-slices"]
    # Philips: 2.371 mm steps of slices 2.5 mm thick are even.
    stack = along_z([0.0, 2.371, 4.742], 2.5)
    assert codes(stack) == ["few-slices"]
    assert stack.geometry is not None
    assert stack.geometry.slice_spacing_mm == pytest.approx(2.371)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices(count: int) -> None:
    stack = along_z([2.0 * k for k in range(count)], 2.0)
    assert codes(stack) == ["too-few-slices"]
    assert stack.geometry is None


def test_targets_end_at_the_last_plane() -> None:
    assert target_positions([0.0, 1.0, 2.0], 0.5) == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert target_positions([0.0, 1.0, 2.2], 1.0) == (0.0, 1.0, 2.0)


# --- invalid values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "orientation",
    [
        (1.0, 0.0, 0.0, 0.0, math.nan, 0.0),
        (1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
        (0.0,) * 6,
        (2.0, 0.0, 0.0, 0.0, 2.0, 0.0),
        (1.0, 0.0, 0.0),
    ],
)
def test_orientations_that_are_none(orientation: tuple[float, ...]) -> None:
    assert plane_axes(orientation) is None
    stack = stack_geometry(planes([(0.0, 0.0, z) for z in range(4)]), orientation, (1.0, 1.0))
    assert codes(stack) == ["invalid-geometry"]


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (math.nan, 1.0), (1.0,), (-1.0, 1.0)])
def test_spacings_that_are_none(spacing: tuple[float, ...]) -> None:
    stack = stack_geometry(planes([(0.0, 0.0, z) for z in range(4)]), AXIAL, spacing)
    assert codes(stack) == ["invalid-geometry"]


def test_position_that_is_no_number() -> None:
    stack = stack_geometry(
        planes([(0.0, 0.0, 0.0), (0.0, 0.0, math.nan), (0.0, 0.0, 2.0)]), AXIAL, (1.0, 1.0)
    )
    assert codes(stack) == ["invalid-geometry"]


def test_rounded_direction_cosines_are_made_exact() -> None:
    axes = plane_axes((0.9998, 0.0175, 0.0, -0.0175, 0.9998, 0.0))
    assert axes is not None
    assert np.linalg.norm(axes.row) == pytest.approx(1.0, abs=1e-12)
    assert np.dot(axes.row, axes.column) == pytest.approx(0.0, abs=1e-12)
