"""Masks as NIfTI, read back by two other libraries, and their volumes by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from medtool.core.geometry import Grid
from medtool.data.masks import label_counts, label_volumes_ml, write_mask
from medtool.data.nifti_writer import write_nifti


def rotation(seed: int) -> NDArray[np.float64]:
    """Any orthonormal matrix: also those that turn a right hand into a left one."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(matrix)


def grids() -> list[Grid]:
    directions = [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.eye(3)[[2, 0, 1]], -np.eye(3)]
    directions += [rotation(seed) for seed in range(6)]
    # Half a turn about x: the quaternion's first part is 0.
    directions.append(np.diag([1.0, -1.0, -1.0]))
    return [
        Grid((5, 4, 3), (0.7, 0.8, 2.5), (-11.5, 20.25, 1000.125), tuple(d.ravel().tolist()))
        for d in directions
    ]


def some_mask() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 4, (3, 4, 5)).astype(np.uint8)


@pytest.mark.parametrize("grid", grids())
@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
def test_two_libraries_read_what_was_written(tmp_path: Path, grid: Grid, name: str) -> None:
    mask, path = some_mask(), tmp_path / "masks" / name
    write_mask(path, mask, grid)

    image = SimpleITK.ReadImage(str(path))
    assert (SimpleITK.GetArrayFromImage(image) == mask).all()
    assert image.GetSize() == grid.size
    assert image.GetSpacing() == pytest.approx(grid.spacing_mm, rel=1e-6)
    assert image.GetOrigin() == pytest.approx(grid.origin_mm, abs=1e-4)
    assert image.GetDirection() == pytest.approx(grid.direction, abs=1e-6)

    read = nibabel.load(path)
    assert (np.asarray(read.dataobj).T == mask).all()
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine_lps()
    for affine, code in (read.get_qform(coded=True), read.get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, ras, atol=1e-4)
    assert read.get_data_dtype() == np.uint8


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    grid, mask = grids()[5], some_mask()
    for name in ("one.nii.gz", "two.nii.gz"):
        write_mask(tmp_path / name, mask, grid)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_many_labels_take_two_bytes_and_few_take_one(tmp_path: Path) -> None:
    grid = grids()[0]
    mask = some_mask().astype(np.uint16)
    write_mask(tmp_path / "few.nii", mask, grid)
    mask[0, 0, 0] = 300
    write_mask(tmp_path / "many.nii", mask, grid)
    for name, dtype in (("few", np.uint8), ("many", np.uint16)):
        image = nibabel.load(tmp_path / f"{name}.nii")
        assert image.get_data_dtype() == dtype
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "many.nii"))).max() == 300


def test_a_turned_view_is_written_as_it_stands(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    write_nifti(tmp_path / "turned.nii.gz", values.T, grids()[0])
    read = np.asarray(nibabel.load(tmp_path / "turned.nii.gz").dataobj)
    assert (read == values).all()


def test_several_channels_make_a_fourth_dimension(tmp_path: Path) -> None:
    values = np.random.default_rng(2).random((2, 3, 4, 5)).astype(np.float32)
    path, grid = tmp_path / "chances.nii.gz", grids()[4]
    write_nifti(path, values, grid)
    image = nibabel.load(path)
    assert (np.asarray(image.dataobj) == values.transpose(3, 2, 1, 0)).all()
    write_nifti(tmp_path / "first.nii.gz", values[0], grid)
    np.testing.assert_allclose(image.affine, nibabel.load(tmp_path / "first.nii.gz").affine)
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    assert (read == values).all()


def test_nothing_half_is_left_where_writing_fails(tmp_path: Path) -> None:
    grid = Grid((5, 4, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.5, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(ValueError, match="right angles"):
        write_mask(tmp_path / "mask.nii.gz", some_mask(), grid)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.zeros((4, 3, 5), np.uint8), "shape"),
        (np.full((3, 4, 5), 70_000, np.uint32), "uint32"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, mask: NDArray[np.uint8], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write_mask(tmp_path / "mask.nii.gz", mask, grids()[0])


def test_the_file_is_small_and_plain_gzip(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    write_mask(path, np.zeros((3, 4, 5), np.uint8), grids()[0])
    assert len(gzip.decompress(path.read_bytes())) == 352 + 60


def test_volumes_count_each_label_once() -> None:
    # Voxels of 1 x 2 x 5 mm are 10 mm3; a hundred of them a millilitre.
    grid = Grid((10, 10, 4), (1.0, 2.0, 5.0), (0.0, 0.0, 0.0))
    mask = np.zeros((4, 10, 10), np.uint8)
    mask[0] = 1
    mask[1, :5] = 2
    labels = {"organ": (1,), "lesion": (2,), "whole": (1, 2, 2), "absent": (7,)}
    volumes = label_volumes_ml(mask, grid, labels)
    assert volumes == pytest.approx({"organ": 1.0, "lesion": 0.5, "whole": 1.5, "absent": 0.0})
    assert label_counts(mask).tolist() == [250, 100, 50]
