"""From slices back to planes: shear and resampling are inverted, for points and for masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dicom_builder as build
import numpy as np
import pytest
import series_by_hand
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medtool.core.errors import CaseRefused
from medtool.dicom.provenance import (
    map_from_source,
    map_to_source,
    mask_from_source,
    mask_to_source,
    provenance,
)
from medtool.dicom.resample import blends
from medtool.dicom.series import Series
from medtool.dicom.shear import split_shift
from medtool.dicom.volume import series_grid

EVEN = tuple(2.0 * k for k in range(8))
UNEVEN = (0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 17.0)
ROWS, COLUMNS = 12, 9
SPACING = (1.5, 1.2)


def built(
    folder: Path,
    distances: Sequence[float] = EVEN,
    shear: tuple[float, float] = (0.0, 0.0),
    orientation: Sequence[float] = build.AXIAL,
) -> tuple[Series, build.BuiltSeries]:
    files = build.build_series(
        folder,
        (len(distances), ROWS, COLUMNS),
        orientation=orientation,
        positions_mm=build.stack_positions(distances, orientation, (3.0, -5.0, 7.0), shear),
        spacing_mm=SPACING,
        shuffle=1,
    )
    return series_by_hand.series(files.files), files


def test_each_slice_of_a_plain_stack_is_one_plane(tmp_path: Path) -> None:
    series, files = built(tmp_path)
    origins = provenance(series)
    assert [o.index for o in origins] == list(range(8))
    assert [o.planes for o in origins] == [(k,) for k in range(8)]
    assert {o.weights for o in origins} == {(1.0,)}
    assert {o.shift_px for o in origins} == {((0.0, 0.0),)}
    for k, origin in enumerate(origins):
        assert origin.nearest.path == files.files[k]
        np.testing.assert_allclose(origin.position_mm, files.positions_mm[k], atol=1e-9)


def test_slices_between_planes_name_both_and_the_nearer_one(tmp_path: Path) -> None:
    """Steps of 2 and 3 mm: resampled to 2, so that slice 5 at 10 mm lies 2/3 up a step of 3."""
    series, files = built(tmp_path, UNEVEN)
    origins = provenance(series)
    assert len(origins) == 9
    tenth = origins[5]
    assert tenth.planes == (4, 5)
    assert tenth.weights == pytest.approx((1 / 3, 2 / 3))
    assert tenth.nearest.path == files.files[5]
    assert tenth.position_mm == pytest.approx((3.0, -5.0, 17.0))
    # 14 mm is a plane, 16 mm lies 2/3 up the last step; 17 mm is no multiple of 2.
    assert (origins[7].planes, origins[7].weights) == ((6,), (1.0,))
    assert origins[8].weights == pytest.approx((1 / 3, 2 / 3))


def test_shifts_of_a_tilted_stack(tmp_path: Path) -> None:
    # 0.3 mm of columns per mm along the normal, steps of 2 mm: 0.6 / 1.5 = 0.4 rows a slice.
    series, _ = built(tmp_path, shear=(0.0, 0.3))
    shifts = [origin.shift_px[0] for origin in provenance(series)]
    np.testing.assert_allclose(shifts, [(0.0, 0.4 * k) for k in range(8)], atol=1e-9)
    # All slices begin above the first pixel of the lowest plane.
    places = np.array([origin.position_mm for origin in provenance(series)])
    np.testing.assert_allclose(places[:, :2], [(3.0, -5.0)] * 8, atol=1e-9)


geometries = {
    "seed": st.integers(0, 10**6),
    "shear": st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)),
    "distances": st.sampled_from([EVEN, UNEVEN]),
}
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(**geometries)
def test_points_come_back_and_stay_where_they_were(
    tmp_path: Path, seed: int, shear: tuple[float, float], distances: tuple[float, ...]
) -> None:
    series, files = built(tmp_path / "s", distances, shear, build.oblique(seed))
    grid = series_grid(series)
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.0, np.array(grid.size) - 1.0, (50, 3))
    source = map_to_source(series, points)
    np.testing.assert_allclose(map_from_source(series, source), points, atol=1e-6)
    # The same patient mm by the output's affine and by the source's own elements.
    affine = grid.affine_lps()
    by_grid = points @ affine[:3, :3].T + affine[:3, 3]
    positions = np.array(files.positions_mm)
    number = np.arange(len(positions))
    first = np.stack([np.interp(source[:, 2], number, positions[:, k]) for k in range(3)], axis=1)
    row, column = np.array(files.orientation[:3]), np.array(files.orientation[3:])
    by_source = first + source[:, :1] * SPACING[1] * row + source[:, 1:2] * SPACING[0] * column
    # A lean of less than a quarter of a pixel in the whole stack is left alone (test_stack.py).
    assert series.geometry is not None
    left_alone = np.hypot(*shear) > 0 and not series.geometry.is_sheared
    atol_mm = 0.25 * min(SPACING) if left_alone else 0.01
    np.testing.assert_allclose(by_grid, by_source, atol=atol_mm)


@quick
@given(**geometries)
def test_masks_come_back_whole(
    tmp_path: Path, seed: int, shear: tuple[float, float], distances: tuple[float, ...]
) -> None:
    series, _ = built(tmp_path / "s", distances, shear, build.oblique(seed))
    masks = np.random.default_rng(seed).integers(0, 4, (8, ROWS, COLUMNS)).astype(np.uint8)
    on_grid = mask_from_source(series, masks)
    assert on_grid.shape == series_grid(series).size[::-1]
    back = mask_to_source(series, on_grid)
    # In both stacks each plane is the nearest one of the slice that is nearest to it.
    np.testing.assert_array_equal(back, masks)


def test_a_lesion_drawn_on_the_grid_is_at_its_place_on_the_planes(tmp_path: Path) -> None:
    series, files = built(tmp_path, shear=(0.25, 0.4))
    grid = series_grid(series)
    drawn = np.zeros(grid.size[::-1], dtype=np.uint8)
    drawn[4, 7:9, 5:7] = 3
    affine = grid.affine_lps()
    centre = affine[:3, :3] @ np.array([5.5, 7.5, 4.0]) + affine[:3, 3]
    on_planes = mask_to_source(series, drawn)
    z, y, x = (float(np.mean(v)) for v in np.nonzero(on_planes))
    assert set(np.unique(on_planes)) == {0, 3}
    # Whole pixels: at most half of one off, in each direction.
    off = np.abs(files.point(z, y, x) - centre)
    assert off[0] <= SPACING[1] / 2 + 1e-6
    assert off[1] <= SPACING[0] / 2 + 1e-6
    assert off[2] < 1e-6


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    series, _ = built(tmp_path)
    with pytest.raises(ValueError, match="wanted \\(8, 12, 9\\)"):
        mask_to_source(series, np.zeros((8, 12, 10)))
    with pytest.raises(ValueError, match="wanted \\(N, 3\\)"):
        map_to_source(series, [[1.0, 2.0]])
    two, _ = built(tmp_path / "two", (0.0, 2.0))
    with pytest.raises(CaseRefused) as caught:
        provenance(two)
    assert caught.value.code == "invalid-geometry"


def test_blends_of_positions() -> None:
    found = blends((0.0, 1.0, 3.0), (0.0, 0.5, 1.0, 2.5, 3.0))
    assert [b.planes for b in found] == [(0,), (0, 1), (1,), (1, 2), (2,)]
    assert [b.weights for b in found] == [
        (1.0,),
        pytest.approx((0.5, 0.5)),
        (1.0,),
        pytest.approx((0.25, 0.75)),
        (1.0,),
    ]
    assert [b.nearest for b in found] == [0, 0, 1, 2, 2]
    assert blends((5.0,), (5.0,))[0].planes == (0,)


def test_shifts_are_split_into_whole_and_rest() -> None:
    assert split_shift(2.25) == (2, 0.25)
    assert split_shift(2.9995) == (3, 0.0)
    assert split_shift(3.0004) == (3, 0.0)
    assert split_shift(0.0) == (0, 0.0)


@pytest.mark.real_data
def test_the_tilted_head_names_its_slices(real_data: Path) -> None:
    folder = real_data / "head_ct" / "ge_tilt_uneven"
    origins = provenance(series_by_hand.series(sorted(folder.iterdir())))
    # Slices 0 to 13 are the files 01 to 14; the last one lies 0.019 mm below the file 28.
    assert [o.nearest.path.name for o in origins[:14]] == [f"{k:02d}.dcm" for k in range(1, 15)]
    assert origins[36].nearest.path.name == "28.dcm"
    assert all(sum(o.weights) == pytest.approx(1.0) for o in origins)
