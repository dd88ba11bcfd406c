"""Volumes are read truly: against SimpleITK and nibabel, and every broken file is refused."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_builder import build_series

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.data.dataset_record import ImageReference
from medtool.data.grids import GRID_TOLERANCE_VOX, grid_text, orientation, same_grid
from medtool.data.volumes import (
    read_mask,
    read_volume,
    read_volume_header,
    require_one_grid,
)
from medtool.dicom import read_array, scan

# (x, y, z) as nibabel has them; every axis of another length.
VALUES = np.arange(2 * 3 * 4).reshape(2, 3, 4)
INTEGERS = VALUES.astype("i2")
# An affine to RAS: spacing 2, 3, 4 mm, axes permuted and mirrored.
AFFINE = np.array([[0, 0, 4, 10], [-2, 0, 0, 20], [0, 3, 0, -30], [0, 0, 0, 1]], dtype=float)


def nifti(
    path: Path,
    values: np.ndarray = INTEGERS,
    affine: np.ndarray | None = AFFINE,
    codes: tuple[int, int] = (1, 1),
) -> ImageReference:
    """A file of (x, y, z) values with the codes of qform and sform."""
    image = nibabel.Nifti1Image(values, affine)
    if affine is not None:
        image.set_qform(affine, codes[0])
        image.set_sform(affine, codes[1])
    nibabel.save(image, path)
    return ImageReference(path)


def changed(reference: ImageReference, offset: int, kind: str, *values: float) -> ImageReference:
    """The uncompressed file with fields of its header overwritten."""
    data = bytearray(reference.path.read_bytes())
    struct.pack_into(f"<{kind}", data, offset, *values)
    reference.path.write_bytes(data)
    return reference


def code_of(reference: ImageReference) -> str:
    with pytest.raises(CaseRefused) as caught:
        read_volume(reference)
    assert reference.path.name in caught.value.where
    return caught.value.code


def sitk_grid(path: Path) -> Grid:
    image = sitk.ReadImage(str(path))
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


# --- what is read --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_values_and_grid_are_those_of_other_readers(tmp_path: Path, name: str, kind: str) -> None:
    reference = nifti(tmp_path / name, VALUES.astype(kind))
    volume = read_volume(reference)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, VALUES.transpose(2, 1, 0))
    assert same_grid(volume.grid, sitk_grid(reference.path)) is None
    # AFFINE's columns with the first two rows turned from RAS to LPS, by hand.
    assert volume.grid.spacing_mm == (2.0, 3.0, 4.0)
    assert volume.grid.origin_mm == (-10.0, -20.0, -30.0)
    assert volume.grid.direction == (0, 0, -1, 1, 0, 0, 0, 1, 0)
    assert not volume.findings and read_volume_header(reference).grid == volume.grid


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (2, 2)])
@pytest.mark.parametrize("mirrored", [1, -1])
def test_either_form_is_enough(tmp_path: Path, codes: tuple[int, int], mirrored: int) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn)) * mirrored
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 0.8, 2.5]
    affine[:3, 3] = 5, -6, 7
    reference = nifti(tmp_path / "a.nii", affine=affine, codes=codes)
    grid = read_volume(reference).grid
    expected = np.diag([-1, -1, 1, 1]) @ nibabel.load(reference.path).affine
    assert grid.affine_lps() == pytest.approx(expected, abs=1e-5)
    assert same_grid(grid, sitk_grid(reference.path)) is None


def test_slope_and_intercept(tmp_path: Path) -> None:
    reference = nifti(tmp_path / "a.nii")
    changed(reference, 112, "2f", 0.5, -3.0)
    assert np.array_equal(read_volume(reference).array, VALUES.transpose(2, 1, 0) * 0.5 - 3)
    changed(reference, 112, "2f", 0.0, 7.0)
    assert read_volume(reference).array.max() == 23, "a slope of 0 means that there is none"


def test_units_of_the_header(tmp_path: Path) -> None:
    reference = nifti(tmp_path / "a.nii")
    changed(reference, 123, "b", 3)
    changed(reference, 280, "12f", *(AFFINE[:3] * 1000).ravel())
    changed(reference, 80, "3f", 2000, 3000, 4000)
    changed(reference, 252, "h", 0)
    assert read_volume(reference).grid.spacing_mm == pytest.approx((2, 3, 4))
    assert same_grid(read_volume(reference).grid, sitk_grid(reference.path)) is None


def test_without_orientation(tmp_path: Path) -> None:
    reference = nifti(tmp_path / "a.nii", affine=None)
    volume = read_volume(reference)
    assert [f.code for f in volume.findings] == ["no-orientation"]
    assert same_grid(volume.grid, sitk_grid(reference.path)) is None


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_other_formats_and_4d_channels(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(VALUES.astype("f4"))
    image.SetSpacing((1.5, 2, 3))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path))
    volume = read_volume(ImageReference(path))
    assert np.array_equal(volume.array, VALUES)
    assert volume.grid.spacing_mm == (1.5, 2, 3)
    joined = sitk.JoinSeries([image, image + 100, image + 200])
    several = tmp_path / f"b{ending}"
    sitk.WriteImage(joined, str(several))
    assert read_volume_header(ImageReference(several, 2)).components == 3
    assert np.array_equal(read_volume(ImageReference(several, 2)).array, VALUES + 200)
    assert code_of(ImageReference(several)) == "not-a-volume"
    assert code_of(ImageReference(several, 3)) == "not-a-volume"


def test_vectors_are_channels_too(tmp_path: Path) -> None:
    values = np.stack([VALUES, VALUES + 50], axis=-1).astype("f4")
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(path))
    assert np.array_equal(read_volume(ImageReference(path, 1)).array, VALUES + 50)


def test_a_folder_of_dicom_slices(tmp_path: Path) -> None:
    built = build_series(tmp_path / "series")
    (expected,) = scan([tmp_path / "series"]).series
    array, grid = read_array(expected)
    reference = ImageReference(tmp_path / "series")
    volume = read_volume(reference)
    assert np.array_equal(volume.array, array) and volume.grid == grid, built
    assert read_volume_header(reference).grid == grid
    (tmp_path / "empty").mkdir()
    assert code_of(ImageReference(tmp_path / "empty")) == "no-usable-series"


# --- what is refused -----------------------------------------------------------------------------
def test_2d_and_one_volume_of_four_dimensions(tmp_path: Path) -> None:
    assert code_of(nifti(tmp_path / "a.nii", VALUES[..., 0].astype("i2"))) == "not-a-volume"
    trailing = nifti(tmp_path / "b.nii", VALUES[..., None].astype("i2"))
    assert read_volume(trailing).array.shape == (4, 3, 2)


@pytest.mark.parametrize("size", [0, 100, 347, 400, -8, -1])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_files_that_break_off(tmp_path: Path, name: str, size: int) -> None:
    reference = nifti(tmp_path / name, np.random.default_rng(0).normal(size=(9, 9, 9)))
    data = reference.path.read_bytes()
    reference.path.write_bytes(data[:size])
    assert code_of(reference) in ("truncated-file", "broken-header")
    if name.endswith(".gz") and size in (-8, -1):
        assert code_of(reference) == "truncated-file"


def test_damaged_compression(tmp_path: Path) -> None:
    reference = nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)))
    data = bytearray(reference.path.read_bytes())
    # The checksum stands in the last eight bytes.
    data[-6] ^= 0xFF
    reference.path.write_bytes(data)
    assert code_of(reference) == "damaged-file"


def test_a_header_that_announces_more_than_memory_holds(tmp_path: Path) -> None:
    reference = changed(nifti(tmp_path / "a.nii"), 42, "3h", 32767, 32767, 32767)
    assert code_of(reference) == "truncated-file"
    reference.path.write_bytes(gzip.compress(reference.path.read_bytes()))
    assert code_of(reference) == "truncated-file"


@pytest.mark.parametrize(
    ("offset", "kind", "values", "code"),
    [
        (0, "i", (347,), "broken-header"),
        (344, "4s", (b"words",), "broken-header"),
        (40, "h", (9,), "broken-header"),
        (42, "h", (0,), "broken-header"),
        (70, "h", (128,), "unsupported-type"),
        (108, "f", (float("nan"),), "broken-header"),
        (108, "f", (4.0,), "broken-header"),
        (108, "f", (1e6,), "truncated-file"),
        (76 + 4, "f", (0.0,), "invalid-spacing"),
        (76 + 8, "f", (999.0,), "invalid-spacing"),
        (76 + 12, "f", (float("nan"),), "invalid-spacing"),
        (268, "f", (float("inf"),), "invalid-origin"),
    ],
)
def test_headers_that_cannot_be(
    tmp_path: Path, offset: int, kind: str, values: Sequence[float], code: str
) -> None:
    reference = nifti(tmp_path / "a.nii", codes=(1, 0))
    assert code_of(changed(reference, offset, kind, *values)) == code


def test_axes_not_at_right_angles(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 0] = 0.4
    image = nibabel.Nifti1Image(VALUES.astype("i2"), None)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "a.nii")
    assert code_of(ImageReference(tmp_path / "a.nii")) == "skewed-axes"
    # Headers round: a shear of a millionth is none.
    affine[0, 0] = 2e-6
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_volume(ImageReference(tmp_path / "a.nii")).array.shape == (4, 3, 2)


def test_qform_and_sform_in_conflict(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 5
    image = nibabel.Nifti1Image(VALUES.astype("i2"), None)
    image.set_sform(AFFINE, 1)
    image.set_qform(moved, 1)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(CaseRefused) as caught:
        read_volume(ImageReference(tmp_path / "a.nii"))
    assert caught.value.code == "forms-conflict"
    assert "at (-10, -20, -30)" in caught.value.met and "at (-15, -20, -30)" in caught.value.met
    changed(ImageReference(tmp_path / "a.nii"), 252, "h", 0)
    assert read_volume(ImageReference(tmp_path / "a.nii")).grid.origin_mm == (-10, -20, -30)


@pytest.mark.parametrize("ending", [".nii", ".nrrd"])
def test_voxels_without_a_number(tmp_path: Path, ending: str) -> None:
    values = VALUES.astype("f4")
    values[1, 2, 3], values[0, 0, 0] = np.nan, np.inf
    path = tmp_path / f"a{ending}"
    if ending == ".nii":
        reference = nifti(path, values)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
        reference = ImageReference(path)
    assert code_of(reference) == "undefined-values"
    volume = read_volume(reference, undefined_as=-1024.0)
    assert np.count_nonzero(volume.array == -1024) == 2
    assert volume.findings[0].message == "2 voxels hold no number and were set to -1024"


def test_other_formats_that_are_broken(tmp_path: Path) -> None:
    for name in ("a.nrrd", "b.mha", "c.nii", "d.nii.gz"):
        (tmp_path / name).write_text("words " * 100)
        assert code_of(ImageReference(tmp_path / name)) == "broken-header"
        assert code_of(ImageReference(tmp_path / f"no-{name}")) in ("unreadable", "broken-header")
    path = tmp_path / "e.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 9, 9))), str(path))
    path.write_bytes(path.read_bytes()[:-800])
    assert code_of(ImageReference(path)) == "damaged-file"


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_any_header_is_read_or_refused(tmp_path: Path, kind: type) -> None:
    """Warnings are errors here, so that arithmetic on nonsense shows as well."""
    image = kind(np.random.default_rng(0).normal(size=(5, 6, 7)), np.diag([1, 2, 3, 1]))
    image.set_qform(np.diag([1, 2, 3, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    base, draw = (tmp_path / "a.nii").read_bytes(), np.random.default_rng(1)
    words = [bytes.fromhex(h) for h in ("ffffffff", "0000807f", "0000c07f", "ffffff7f", "00000080")]
    outcomes = set()
    for _ in range(500):
        data = bytearray(base)
        for at in draw.integers(0, image.header.sizeof_hdr // 4, size=draw.integers(1, 4)):
            data[4 * at : 4 * at + 4] = words[draw.integers(len(words))]
        (tmp_path / "b.nii").write_bytes(data)
        for reader in (read_volume, read_mask):
            try:
                reader(ImageReference(tmp_path / "b.nii"))
            except CaseRefused as refusal:
                outcomes.add(refusal.code)
    assert {"broken-header", "invalid-spacing", "not-labels"} <= outcomes


# --- masks ---------------------------------------------------------------------------------------
def test_masks(tmp_path: Path) -> None:
    mask = read_mask(nifti(tmp_path / "a.nii", VALUES.astype("u1")))
    assert mask.array.dtype == np.int16 and not mask.findings
    assert np.array_equal(mask.array, VALUES.transpose(2, 1, 0))
    off = VALUES.astype("f4")
    off[1, 0, 0] -= 0.0001
    mask = read_mask(nifti(tmp_path / "b.nii", off))
    assert np.array_equal(mask.array, VALUES.transpose(2, 1, 0))
    assert [f.code for f in mask.findings] == ["mask-rounded"]
    assert mask.findings[0].message.startswith("1 values")
    whole = read_mask(nifti(tmp_path / "c.nii", VALUES.astype("f8")))
    assert not whole.findings
    large = read_mask(nifti(tmp_path / "d.nii", VALUES.astype("i4") * 10_000))
    assert large.array.dtype == np.int32 and large.array.max() == 230_000


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), float("inf"), 1e12])
def test_what_is_no_label(tmp_path: Path, value: float) -> None:
    values = VALUES.astype("f8")
    values[0, 0, 1] = value
    with pytest.raises(CaseRefused) as caught:
        read_mask(nifti(tmp_path / "a.nii", values))
    assert caught.value.code == "not-labels"


# --- grids ---------------------------------------------------------------------------------------
BASE = Grid((10, 20, 30), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0))


def test_same_grid_by_hand() -> None:
    assert same_grid(BASE, BASE) is None
    # The smallest spacing is 1 mm: a shift counts from GRID_TOLERANCE_VOX mm on.
    for shift, same in ((0.9 * GRID_TOLERANCE_VOX, True), (1.1 * GRID_TOLERANCE_VOX, False)):
        moved = Grid(BASE.size, BASE.spacing_mm, (5.0 + shift, 6.0, 7.0))
        assert (same_grid(BASE, moved) is None) is same
    assert "sizes differ: 10 x 20 x 30 and 10 x 20 x 31" in str(
        same_grid(BASE, Grid((10, 20, 31), BASE.spacing_mm, BASE.origin_mm))
    )
    # 29 steps of 0.01 mm are 0.29 mm.
    stretched = Grid(BASE.size, (1.0, 2.0, 3.01), BASE.origin_mm)
    assert same_grid(BASE, stretched) == "the spacing differs: corners are up to 0.29 mm apart"
    mirrored = Grid(BASE.size, BASE.spacing_mm, BASE.origin_mm, (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    # The last column lies 9 mm right of the first one instead of left of it.
    assert same_grid(BASE, mirrored) == "the direction differs: corners are up to 18 mm apart"


def test_names_of_axes() -> None:
    assert orientation(BASE) == "LPS"
    ras = Grid(BASE.size, BASE.spacing_mm, BASE.origin_mm, (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert orientation(ras) == "RAS"
    # x of the grid runs to posterior (LPS y), y to inferior, z to left.
    turned = Grid(BASE.size, BASE.spacing_mm, BASE.origin_mm, (0, 0, 1, 1, 0, 0, 0, -1, 0))
    assert orientation(turned) == "PIL"
    assert grid_text(ras) == "10 x 20 x 30 voxels of 1 x 2 x 3 mm at (5, 6, 7), axes RAS"


def test_other_grids_are_refused_with_both(tmp_path: Path) -> None:
    image = nifti(tmp_path / "image.nii")
    moved = AFFINE.copy()
    moved[2, 3] += 1
    mask = nifti(tmp_path / "mask.nii", affine=moved)
    with pytest.raises(CaseRefused) as caught:
        require_one_grid([image, image, mask], ["CT", "PT", "mask"])
    assert caught.value.code == "grids-differ"
    assert "CT 2 x 3 x 4 voxels of 2 x 3 x 4 mm at (-10, -20, -30)" in caught.value.met
    assert "mask 2 x 3 x 4 voxels of 2 x 3 x 4 mm at (-10, -20, -29)" in caught.value.met
    assert same_grid(require_one_grid([image, image], ["CT", "PT"]), sitk_grid(image.path)) is None


# --- real ----------------------------------------------------------------------------------------
@pytest.mark.real_data
def test_real_volumes_are_those_of_simpleitk(real_data: Path) -> None:
    files = sorted(real_data.glob("hippocampus/*/*.nii.gz"))[::6]
    for folder in ("spine", "pancreas", "heart_mr/heart_ct"):
        files += sorted((real_data / folder).rglob("*.nii.gz"))
    assert len(files) > 35
    for file in files:
        volume = read_volume(ImageReference(file))
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype("f4")
        assert np.array_equal(volume.array, expected), file
        assert same_grid(volume.grid, sitk_grid(file)) is None, file
        assert not volume.findings


@pytest.mark.real_data
def test_real_masks(real_data: Path) -> None:
    # Float labels of whole numbers, as the folder's README says.
    mask = read_mask(ImageReference(real_data / "hippocampus/labelsTr/hippocampus_003.nii.gz"))
    assert set(np.unique(mask.array)) == {0, 1, 2} and not mask.findings
    spine = read_mask(ImageReference(real_data / "spine/ts_example/vertebrae.nii.gz"))
    assert np.count_nonzero(spine.array == 29) == 2335
    verse = ImageReference(real_data / "spine/verse004/sub-verse004_seg-vert_msk.nii.gz")
    assert orientation(read_volume_header(verse).grid) == "PIR"
    heart = real_data / "heart_mr/heart_ct"
    pair = [ImageReference(heart / n) for n in ("ct.nii.gz", "heart_on_uncropped_grid.nii.gz")]
    with pytest.raises(CaseRefused, match="sizes differ: 122 x 102 x 112 and 233 x 167 x 191"):
        require_one_grid(pair, ["CT", "mask"])
