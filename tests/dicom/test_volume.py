"""From a stack to a volume: a point in patient mm stays where it was, whatever was repaired.

The images are linear functions of patient position, so that linear interpolation must give them
back exactly: every voxel of the result then says itself where it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_builder as build
import numpy as np
import pytest
import series_by_hand
import SimpleITK
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEGLSLossless
from scipy import ndimage

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.dicom import read, read_array, scan
from medtool.dicom.plausible import hu_findings
from medtool.dicom.series import Series
from medtool.dicom.volume import read_volume, series_grid

# Stored values are this much finer than what the field varies by; intercept 0 keeps them exact.
SLOPE = 1.0 / 16.0
AIR = -1024.0


def voxel_centres(grid: Grid) -> np.ndarray:
    """LPS mm of all voxels, (z, y, x, 3), from the grid alone."""
    x, y, z = (np.arange(n, dtype=float) for n in grid.size)
    index = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)
    affine = grid.affine_lps()
    return index @ affine[:3, :3].T + affine[:3, 3]


def field(points_mm: np.ndarray) -> np.ndarray:
    """HU of a point: different along every axis, within -1000..1000 near the origin."""
    return points_mm @ np.array([21.0, -33.0, 15.0]) + 30.0


def stack_points(
    positions: Sequence[Sequence[float]],
    orientation: Sequence[float],
    spacing: tuple[float, float],
    rows: int,
    columns: int,
) -> np.ndarray:
    """LPS mm of all source pixels, (planes, rows, columns, 3), by PS3.3 C.7.6.2.1.1."""
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    i, j = np.mgrid[0:rows, 0:columns]
    in_plane = j[..., None] * row * spacing[1] + i[..., None] * column * spacing[0]
    return np.asarray(positions, float)[:, None, None, :] + in_plane


def written(
    folder: Path,
    *,
    orientation: Sequence[float] = build.AXIAL,
    distances: Sequence[float] = tuple(2.0 * k for k in range(8)),
    shear: tuple[float, float] = (0.0, 0.0),
    size: tuple[int, int] = (14, 11),
    spacing: tuple[float, float] = (1.5, 1.2),
    origin: Sequence[float] | None = None,
    image: Callable[[np.ndarray], np.ndarray] = field,
    **more: Any,
) -> Series:
    if origin is None:
        # The middle of the stack lies near the patient's origin.
        positions = build.stack_positions(distances, orientation, (0.0, 0.0, 0.0), shear)
        points = stack_points(positions, orientation, spacing, *size)
        origin = np.round((1.5, -2.0, 0.5) - points.mean(axis=(0, 1, 2)), 3).tolist()
    positions = build.stack_positions(distances, orientation, origin, shear)
    points = stack_points(positions, orientation, spacing, *size)
    stored = np.rint(image(points) / SLOPE).astype(np.int16)
    built = build.build_series(
        folder,
        stored,
        orientation=orientation,
        positions_mm=positions,
        spacing_mm=spacing,
        slope=SLOPE,
        intercept=0.0,
        **more,
    )
    return series_by_hand.series(built.files)


def assert_field(array: np.ndarray, grid: Grid, *, at_least: float = 0.5) -> None:
    """Every voxel that is no air holds the field of its own place.

    Where a sheared or resampled voxel borders on air it is that of its nearer neighbour, so that
    the outermost voxels of what was measured do not count.
    """
    measured = array != AIR
    inner = measured
    if not measured.all():
        inner = ndimage.binary_erosion(measured, np.ones((3, 3, 3)))
    assert inner.mean() >= at_least
    wrong = np.abs(array - field(voxel_centres(grid)))[inner]
    # Half a stored value from rounding, float32 and the decimals of positions on top.
    assert wrong.max() < SLOPE


@pytest.mark.parametrize("descending", [False, True])
def test_the_48_axis_orders_and_flips(tmp_path: Path, descending: bool) -> None:
    orientations = list(build.all_orientations())
    assert len(orientations) == 24
    for number, orientation in enumerate(orientations):
        distances = [2.0 * k * (-1 if descending else 1) for k in range(4)]
        series = written(
            tmp_path / str(number),
            orientation=orientation,
            distances=distances,
            size=(6, 5),
            shuffle=number,
        )
        array, grid = read_array(series, threads=1)
        assert array.shape == (4, 6, 5)
        assert_field(array, grid, at_least=1.0)
        assert np.linalg.det(np.reshape(grid.direction, (3, 3))) == pytest.approx(1.0)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    shear=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    uneven=st.booleans(),
)
def test_oblique_tilted_and_uneven_stacks(
    tmp_path: Path, seed: int, shear: tuple[float, float], uneven: bool
) -> None:
    # A lean of less than a quarter of a pixel in the whole stack is left alone (test_stack.py).
    assume(math.hypot(*shear) == 0.0 or math.hypot(*shear) > 0.05)
    distances = (
        [0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 17.0] if uneven else [2.0 * k for k in range(8)]
    )
    series = written(
        tmp_path / "s",
        orientation=build.oblique(seed),
        distances=distances,
        shear=shear,
        shuffle=seed,
    )
    array, grid = read_array(series, threads=2)
    assert series.geometry is not None
    assert series.geometry.is_resampled == uneven
    assert_field(array, grid, at_least=0.1)


def test_a_tilted_stack_is_kept_whole(tmp_path: Path) -> None:
    # 20 degrees over 7 steps of 4 mm along the normal: 28 x 0.36397 = 10.19 mm, 6.79 pixels of
    # 1.5 mm, so that 7 rows are added; the lowest plane keeps its place.
    tan = float(np.tan(np.radians(20.0)))
    low = (-6.0, -8.0, -14.0)
    distances = [4.0 * k for k in range(8)]
    series = written(tmp_path, distances=distances, shear=(0.0, tan), origin=low)
    grid = series_grid(series)
    assert grid.size == (11, 14 + 7, 8)
    np.testing.assert_allclose(grid.origin_mm, low, atol=1e-9)
    np.testing.assert_allclose(grid.spacing_mm, (1.2, 1.5, 4.0), atol=1e-9)
    array, _ = read_array(series)
    assert (array[0, :14] != AIR).all()
    assert (array[0, 14:] == AIR).all()
    # The other way the grid begins 7 rows before the lowest plane.
    other = series_grid(written(tmp_path / "o", distances=distances, shear=(0.0, -tan), origin=low))
    assert other.size == grid.size
    np.testing.assert_allclose(other.origin_mm, (-6.0, -8.0 - 7 * 1.5, -14.0), atol=1e-9)


def test_table_steps_of_5_mm_at_20_degrees(tmp_path: Path) -> None:
    """methods.md G.2: planes 5 mm apart along the table are 4.698463 mm apart along the normal."""
    angle = np.radians(20.0)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    positions = [(0.0, 0.0, 5.0 * k) for k in range(12)]
    built = build.build_series(
        tmp_path, build.ramp((12, 8, 8)), orientation=orientation, positions_mm=positions
    )
    series = series_by_hand.series(built.files)
    assert series.geometry is not None
    assert series_grid(series).spacing_mm[2] == pytest.approx(4.698463, abs=1e-6)
    assert series.geometry.tilt_degrees == pytest.approx(20.0, abs=1e-6)
    # 1.710101 mm in the plane for 4.698463 mm along the normal.
    lean = float(np.hypot(*series.geometry.shear_mm))
    assert lean == pytest.approx(1.710101 / 4.698463, abs=1e-6)


def two_values(points: np.ndarray) -> np.ndarray:
    """Tissue of 40 HU in a disc, padding around it."""
    inside = np.hypot(points[..., 0], points[..., 1]) < 6.0
    return np.where(inside, 40.0, -1500.0)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.0, 0.33), (0.21, -0.13)])
def test_padding_is_never_mixed_into_tissue(
    tmp_path: Path, uneven: bool, shear: tuple[float, float]
) -> None:
    distances = (
        [0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 17.0] if uneven else [2.0 * k for k in range(8)]
    )
    series = written(
        tmp_path,
        distances=distances,
        shear=shear,
        image=two_values,
        tags={"PixelPaddingValue": int(-1500 / SLOPE)},
    )
    array, _ = read_array(series)
    assert set(np.unique(array).tolist()) == {AIR, 40.0}


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    intercepts = [0.0, -1024.0, -500.0, -1024.0]
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 6, 5))
    stored = np.stack([hu[k] - int(intercepts[k]) for k in range(4)]).astype(np.int16)
    built = build.build_series(
        tmp_path, stored, slice_tags=lambda k: {"RescaleIntercept": intercepts[k]}
    )
    array, _ = read_array(series_by_hand.series(built.files))
    np.testing.assert_array_equal(array, hu)


def test_frames_of_one_file_are_read_by_position(tmp_path: Path) -> None:
    """Multi-frame: planes point at frames in any order, each with its own rescale."""
    from medtool.dicom.stack import stack_geometry

    hu = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7))
    order = [3, 0, 4, 1, 2]
    stored = np.stack([hu[k] + 1000 + 10 * k for k in order]).astype(np.int16)
    path = tmp_path / "a.dcm"
    build.build_enhanced(path, stored, transfer_syntax=JPEGLSLossless)
    planes = [
        series_by_hand.plane(
            path, frame, position_mm=(0.0, 0.0, 3.0 * k), slope=1.0, intercept=-1000.0 - 10 * k
        )
        for frame, k in enumerate(order)
    ]
    stack = stack_geometry(planes, build.AXIAL, (1.0, 1.0))
    built = build.build_series(tmp_path / "plain")
    series = replace(
        series_by_hand.series(built.files), planes=stack.planes, geometry=stack.geometry
    )
    for threads in (1, 3):
        np.testing.assert_array_equal(read_array(series, threads=threads)[0], hu)


def test_read_gives_an_image_in_true_geometry(tmp_path: Path) -> None:
    series = written(tmp_path, orientation=build.oblique(3))
    array, grid = read_array(series)
    image = read(series)
    assert image.GetPixelID() == SimpleITK.sitkFloat32
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), array)
    affine = grid.affine_lps()
    for index in ((0, 0, 0), (10, 13, 7), (3, 1, 5)):
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint(index),
            affine[:3, :3] @ np.array(index) + affine[:3, 3],
            atol=1e-9,
        )


def test_what_planes_say_reaches_the_findings(tmp_path: Path) -> None:
    def image(points: np.ndarray) -> np.ndarray:
        values = field(points)
        values[:, 0, 0] = -2047.0
        return values

    volume = read_volume(written(tmp_path, image=image))
    assert [f.code for f in volume.findings] == ["undeclared-padding"]
    assert (volume.array[:, 0, 0] == AIR).all()


def test_a_series_without_geometry_is_refused_with_its_own_code(tmp_path: Path) -> None:
    series = written(tmp_path, distances=[0.0, 2.0])
    assert series.geometry is None
    with pytest.raises(CaseRefused) as caught:
        read(series)
    assert caught.value.code == "too-few-slices"


def test_a_truncated_plane_is_refused_by_name(tmp_path: Path) -> None:
    series = written(tmp_path)
    path = series.planes[5].path
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CaseRefused) as caught:
        read_array(series)
    assert caught.value.code in {"truncated-pixels", "no-pixel-data"}
    assert caught.value.where == str(path)


def test_a_plane_of_another_size_is_refused(tmp_path: Path) -> None:
    series = written(tmp_path)
    odd = replace(series.planes[2], pixels=replace(series.planes[2].pixels, rows=13))
    planes = (*series.planes[:2], odd, *series.planes[3:])
    with pytest.raises(CaseRefused) as caught:
        read_array(replace(series, planes=planes))
    assert caught.value.code == "mixed-sizes"


def test_a_slope_that_is_no_number_is_refused_before_pixels_are_read(tmp_path: Path) -> None:
    series = written(tmp_path)
    bad = replace(series.planes[2], slope=float("nan"))
    for plane in series.planes:
        plane.path.unlink()
    with pytest.raises(CaseRefused) as caught:
        read_array(replace(series, planes=(*series.planes[:2], bad, *series.planes[3:])))
    assert caught.value.code == "invalid-rescale"


def test_a_volume_beyond_every_scan_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = written(tmp_path)
    monkeypatch.setattr("medtool.dicom.volume.MAX_VOLUME_BYTES", 8 * 14 * 11 * 4 - 1)
    with pytest.raises(CaseRefused) as caught:
        read_array(series)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.linspace(0.0, 1.0, 1000), "not-hu"),  # normalised
        (np.linspace(-3.0, 3.0, 1000), "not-hu"),  # z-scores
        (np.linspace(0.0, 4095.0, 1000), "not-hu"),  # stored values without rescale
        (np.linspace(0.0, 255.0, 1000), "not-hu"),  # a screen copy
        (np.full(1000, -1024.0), "not-hu"),  # nothing was scanned
        (np.linspace(-1024.0, -800.0, 1000), "not-hu"),  # air alone
        (np.linspace(-1000.0, 60_000.0, 1000), "not-hu"),
        (np.full(1000, np.nan), "not-hu"),
        (np.linspace(-150.0, 400.0, 1000), "no-air"),  # a crop inside the body
    ],
)
def test_values_that_cannot_be_hu(values: np.ndarray, code: str) -> None:
    found = hu_findings(values.astype(np.float32).reshape(10, 10, 10))
    assert [f.code for f in found] == [code]
    assert found[0].severity == ("warning" if code == "no-air" else "refusal")


def test_a_head_has_plausible_hu() -> None:
    head = np.concatenate([np.full(500, -1000.0), np.full(400, 35.0), np.full(100, 1200.0)])
    assert hu_findings(head.astype(np.float32).reshape(10, 10, 10)) == ()


def test_a_ct_without_rescale_is_refused_but_other_images_are_not(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4000, (4, 10, 10)).astype(np.int16)
    built = build.build_series(tmp_path, stored, intercept=0.0)
    series = series_by_hand.series(built.files)
    with pytest.raises(CaseRefused) as caught:
        read(series)
    assert caught.value.code == "not-hu"
    np.testing.assert_array_equal(read_array(replace(series, modality="PT"))[0], stored)


def test_reading_an_array_needs_neither_simpleitk_nor_torch(
    tmp_path: Path, fresh_python: Any
) -> None:
    series = written(tmp_path)
    files = [str(plane.path) for plane in series.planes]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(series_by_hand.__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "import series_by_hand\n"
        "from medtool.dicom import read_array\n"
        f"array, grid = read_array(series_by_hand.series([Path(f) for f in {files!r}]))\n"
        "assert array.shape == (8, 14, 11)\n"
        "assert not {'SimpleITK', 'torch', 'scipy', 'pandas'} & set(sys.modules)\n"
    )
    outcome = fresh_python("-c", code)
    assert outcome.status == 0, outcome.err


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ge_crlm1004", "siemens_j2k_no_uid"])
def test_regular_stacks_agree_with_simpleitk(real_data: Path, name: str) -> None:
    known = known_geometry(real_data / "torso_ct", name)["sitk"]
    series = series_by_hand.series(image_files(real_data / "torso_ct" / name))
    image = read(series)
    assert list(image.GetSize()) == known["size"]
    np.testing.assert_allclose(image.GetSpacing(), known["spacing"], atol=1e-5)
    far = [n - 1 for n in known["size"]]
    reference = SimpleITK.Image(known["size"], SimpleITK.sitkUInt8)
    reference.SetSpacing(known["spacing"])
    reference.SetOrigin(known["origin"])
    reference.SetDirection(known["direction"])
    for corner in ([0, 0, 0], far):
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint(corner),
            reference.TransformIndexToPhysicalPoint(corner),
            atol=0.01,
        )


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    [
        "torso_ct/ge_crlm1004",
        "torso_ct/siemens_j2k_no_uid",
        "petct/ge_sts001/pet_dicom",
        "petct/siemens_qin0139/pet_dicom",
    ],
)
def test_values_of_regular_stacks_are_those_of_simpleitk(real_data: Path, name: str) -> None:
    """From the folder: scan, read; every voxel but padding, slices by their own rescale."""
    folder = real_data / name
    (series,) = scan([folder]).series
    image = read(series)
    files = [str(plane.path) for plane in series.planes]
    theirs = np.stack([SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file))[0] for file in files])
    ours = SimpleITK.GetArrayFromImage(image)
    measured = theirs >= AIR if series.modality == "CT" else np.ones(theirs.shape, bool)
    np.testing.assert_allclose(ours[measured], theirs[measured], rtol=1e-6, atol=1e-3)
    assert (ours[~measured] == AIR).all()
    first = SimpleITK.ReadImage(files[0])
    np.testing.assert_allclose(image.GetOrigin(), first.GetOrigin(), atol=0.01)


@pytest.mark.real_data
def test_a_tilted_uneven_head_by_hand(real_data: Path) -> None:
    """ge_tilt_uneven, where SimpleITK gives one wrong spacing and leaves the stack sheared."""
    folder = real_data / "head_ct"
    known = known_geometry(folder, "ge_tilt_uneven")["positions_along_normal"]
    series = series_by_hand.series(image_files(folder / "ge_tilt_uneven"))
    array, grid = read_array(series)
    # Along the normal: 13 steps of 4.002, one of 1.081, 13 of 6.999 mm. 4.002 is the smaller of
    # the two common ones; 110.4228 + 33.6655 = 144.0883 mm make 36 of them.
    assert grid.size[2] == 37
    assert grid.spacing_mm[2] == pytest.approx(4.002, abs=0.001)
    # Rows run down and forward: the column direction is (0, cos, -sin) of 18.5 degrees.
    tilt = np.radians(18.5)
    column = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    normal = np.array([0.0, np.sin(tilt), np.cos(tilt)])
    direction = np.reshape(grid.direction, (3, 3))
    np.testing.assert_allclose(direction[:, 1], column, atol=1e-4)
    np.testing.assert_allclose(direction[:, 2], normal, atol=1e-4)
    # The table moves along z alone, 151.94 mm: -0.317305 of it along the columns are -48.211 mm,
    # -98.74 pixels of 0.4882812 mm: the grid begins 99 rows before the lowest plane.
    assert grid.size[:2] == (512, 512 + 99)
    low = np.array(known[0]["ipp"])
    np.testing.assert_allclose(grid.origin_mm, low - 99 * 0.4882812 * column, atol=0.01)
    # Slice 13 lies 13 x 4.002 mm up, on plane 14, 54.86 mm of z above the lowest one.
    assert -33.6655 + 13 * grid.spacing_mm[2] == pytest.approx(known[13]["position"], abs=0.01)
    # That is -35.650 rows in the plane, 63.350 below the first row of the grid: a row of the
    # slice is 0.65 of one row of plane 14 and 0.35 of the row before.
    source = np.maximum(stored_hu(series, 13), -1024.0)
    moved = 0.65 * source[1:] + 0.35 * source[:-1]
    both = (source[1:] > -1024) & (source[:-1] > -1024)
    assert both.mean() > 0.5
    assert np.abs(array[13, 64 : 64 + 511] - moved)[both].max() < 2.0


def stored_hu(series: Series, index: int) -> np.ndarray:
    from medtool.dicom.pixels import stored_values

    plane = series.planes[index]
    return stored_values(plane).astype(float) * plane.slope + plane.intercept


@pytest.mark.real_data
def test_a_tilted_phantom_by_hand(real_data: Path) -> None:
    folder = real_data / "head_ct" / "philips_phantom_tilt" / "S2010"
    grid = series_grid(series_by_hand.series(image_files(folder)))
    # z step 2.5 mm at -18.5 degrees: 2.5 x cos(18.5 deg) = 2.370809 mm along the normal, while
    # SliceThickness and SpacingBetweenSlices say 2.5.
    assert grid.spacing_mm[2] == pytest.approx(2.370809, abs=1e-4)
    # 5 mm x sin(18.5 deg) = 1.58652 mm = 3.29 pixels of 0.482422 mm: 4 rows more.
    assert grid.size == (512, 516, 3)


def known_geometry(folder: Path, name: str) -> dict[str, Any]:
    document = json.loads((folder / "geometry.json").read_text())
    found: dict[str, Any] = next(s for s in document["series"] if s["folder"] == name)
    return found


def image_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name != "DIRFILE")
