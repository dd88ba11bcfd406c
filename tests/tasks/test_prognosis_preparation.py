"""What the network sees: a hot block stays where it was in the patient, in SUV and in HU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pet_ct_studies import (
    CT_GRID,
    HOT_SUV,
    PET_GRID,
    ct_values,
    hot_mask,
    suv_values,
    write_pair,
    write_study,
    write_volume,
)

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, Prepared, Source
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_find import find_pet_ct
from medtool.tasks.prognosis_labels import settled_labels
from medtool.tasks.prognosis_preparation import check_pet_ct, prepare_pet_ct

# Where the middle of the hot block is in the patient (x, y, z), by the grid of the PET.
MIDDLE_MM = (56.0, 44.0, 22.0)


def data_of(**preparation: Any) -> PrognosisDataSection:
    return settled_labels(PrognosisDataSection(preparation=preparation), None, "tumour")


def case_in(folder: Path) -> Case:
    (case,) = find_pet_ct(Source((folder,)), PrognosisDataSection()).cases
    return case


def prepared(folder: Path, **preparation: Any) -> Prepared:
    return prepare_pet_ct(case_in(folder), data_of(**preparation))


def write_files(folder: Path) -> None:
    write_pair(folder / "a_suv.nii", folder / "a_ct.nii", folder / "a_mask.nii")


def centre_mm(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """LPS mm of the mean place of voxels (z, y, x)."""
    z, y, x = np.nonzero(inside)
    places = np.stack([x, y, z, np.ones_like(x)], axis=1) @ grid.affine_lps().T[:, :3]
    mean: NDArray[np.float64] = places.mean(axis=0)
    return mean


# --- places and values --------------------------------------------------------------------
def test_slices_are_those_of_the_pet_over_the_shared_field(tmp_path: Path) -> None:
    write_files(tmp_path)
    found = prepared(tmp_path, size_px=[48, 48])
    image, label, grid = found.arrays["image"], found.arrays["label"], found.grids["prepared"]
    assert image.shape == (2, 10, 48, 48) and image.dtype == np.float16
    assert label.shape == (10, 48, 48) and label.dtype == np.uint8
    # 96 mm over 48 pixels, from the outer edge of the first voxel on.
    assert grid == Grid((48, 48, 10), (2.0, 2.0, 4.0), (1.0, 1.0, 2.0))
    assert found.grids["image"] == PET_GRID
    assert np.allclose(centre_mm(label == 1, grid), MIDDLE_MM, atol=1e-6)
    assert found.facts["labelled_slices"] == [4, 5, 6]
    assert found.facts["slices"] == 10 and found.facts["prepared_size_vox"] == [10, 48, 48]
    # Between voxels of the PET its values lie between them; where the CT has voxels it is itself.
    inner = image[0][label == 1]
    assert float(inner.max()) == pytest.approx(HOT_SUV, abs=0.01)
    # Each slice of the PET lies in the middle between two of the CT.
    ct = ct_values().astype(np.float32) / 1024
    middle = (ct[0::2] + ct[1::2]) / 2
    assert np.abs(image[1].astype(np.float32) - np.clip(middle, -1, 1)).max() < 1e-3


def test_what_is_measured_is_the_pet_itself(tmp_path: Path) -> None:
    write_files(tmp_path)
    found = prepared(tmp_path, size_px=[32, 32], suv_maximum=4.0)
    assert found.arrays["suv"].dtype == np.float32
    assert (found.arrays["suv"] == suv_values()).all()
    assert float(found.arrays["image"][0].max()) == 4.0
    on_ct = prepared(tmp_path, size_px=[32, 32], answer_grid="ct")
    assert on_ct.grids["image"] == CT_GRID and on_ct.arrays["suv"].shape == (20, 48, 48)


def test_the_window_of_the_ct_ends_at_one(tmp_path: Path) -> None:
    write_files(tmp_path)
    found = prepared(tmp_path, size_px=[48, 48], ct_window_hu=[-160.0, 240.0])
    ct = found.arrays["image"][1].astype(np.float32)
    assert ct.min() == -1.0 and ct[5, :3].max() == -1.0
    # 40 HU is the middle of the window.
    assert abs(float(ct[:, 12:36, 12:36].mean())) < 0.02


def test_voxels_of_a_volume_are_cubes_in_the_shared_field(tmp_path: Path) -> None:
    write_files(tmp_path)
    found = prepared(tmp_path, size_px=[], spacing_mm=[3.0, 3.0, 3.0])
    grid = found.grids["prepared"]
    assert grid.size == (32, 32, 13) and grid.spacing_mm == (3.0, 3.0, 3.0)
    centre = centre_mm(found.arrays["label"] == 1, grid)
    # Half a voxel is the most that rounding to voxels moves it.
    assert np.abs(centre - MIDDLE_MM).max() <= 1.5


def test_slices_of_another_step_are_asked_for(tmp_path: Path) -> None:
    write_files(tmp_path)
    grid = prepared(tmp_path, size_px=[24, 24], slice_mm=8.0).grids["prepared"]
    assert grid == Grid((24, 24, 5), (4.0, 4.0, 8.0), (2.0, 2.0, 4.0))


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), (1, 0, 1)), ((2, 0, 1), (0, 1, 0)), ((1, 2, 0), (1, 1, 1))]
)
def test_the_network_sees_the_same_whatever_the_order_of_the_file(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    """The same PET with its axes turned and reversed in the file, as other programs write it."""
    write_files(tmp_path / "one")
    write_pair(tmp_path / "two" / "a_suv.nii", tmp_path / "two" / "a_ct.nii")
    for name, values in (("a_suv.nii", suv_values()), ("a_mask.nii", hot_mask())):
        plain = nibabel.load(tmp_path / "one" / name)
        codes = [(axis, -1 if flip else 1) for axis, flip in zip(order, flips, strict=True)]
        turned = plain.as_reoriented(np.array(codes))
        assert not np.array_equal(np.asarray(turned.dataobj), values)
        nibabel.save(turned, tmp_path / "two" / name)
    first = prepared(tmp_path / "one", size_px=[40, 40])
    second = prepared(tmp_path / "two", size_px=[40, 40])
    for name in ("image", "label"):
        assert np.array_equal(first.arrays[name], second.arrays[name])
    assert np.allclose(
        first.grids["prepared"].affine_lps(), second.grids["prepared"].affine_lps(), atol=1e-5
    )
    # The answer goes back to the file's own order.
    assert second.arrays["suv"].shape != first.arrays["suv"].shape or flips != (0, 0, 0)
    hot = centre_mm(second.arrays["suv"] == np.float32(HOT_SUV), second.grids["image"])
    assert np.allclose(hot, MIDDLE_MM, atol=1e-4)


def test_a_study_of_dicom_is_prepared_as_its_files_are(tmp_path: Path) -> None:
    write_files(tmp_path / "files")
    write_study(tmp_path / "dicom")
    first = prepared(tmp_path / "files", size_px=[48, 48]).arrays["image"].astype(np.float32)
    second = prepared(tmp_path / "dicom", size_px=[48, 48]).arrays["image"].astype(np.float32)
    assert np.abs(first - second).max() < 5e-3


def test_a_longer_pet_is_cut_where_the_ct_ends(tmp_path: Path) -> None:
    write_files(tmp_path)
    higher = Grid(CT_GRID.size, CT_GRID.spacing_mm, (1.0, 1.0, 13.0))
    write_volume(tmp_path / "a_ct.nii", ct_values(), higher)
    found = prepared(tmp_path, size_px=[48, 48])
    # The CT begins at 12 mm: the slices of the PET at 2, 6 and 10 mm have none.
    assert found.grids["prepared"].origin_mm[2] == 14.0 and found.arrays["image"].shape[1] == 7
    assert found.facts["covered"] == [1.0, 1.0, 0.7]
    assert found.facts["labelled_slices"] == [1, 2, 3]


def test_a_case_is_prepared_twice_alike(tmp_path: Path) -> None:
    write_files(tmp_path)
    first, second = prepared(tmp_path), prepared(tmp_path)
    assert first.arrays["image"].shape == (2, 10, 256, 256)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    assert first.facts == second.facts


# --- what check says ----------------------------------------------------------------------
def said(folder: Path) -> dict[str, str]:
    findings = check_pet_ct(case_in(folder), data_of())
    return {finding.code: finding.severity for finding in findings}


def test_a_sound_case_has_nothing_to_be_said(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert said(tmp_path) == {}


def test_values_that_are_none_are_said(tmp_path: Path) -> None:
    write_files(tmp_path)
    write_volume(tmp_path / "a_suv.nii", suv_values() / 100, PET_GRID)
    write_volume(tmp_path / "a_ct.nii", ct_values() * 0 + 7, CT_GRID)
    write_volume(tmp_path / "a_mask.nii", hot_mask() * 0, PET_GRID)
    assert said(tmp_path) == {
        "suv-unusual": "warning",
        "image-constant": "warning",
        "not-hu": "refusal",
        "mask-empty": "warning",
    }


def test_a_pet_in_bq_per_ml_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    write_volume(tmp_path / "a_suv.nii", suv_values() * 8000, PET_GRID)
    assert said(tmp_path) == {"suv-implausible": "refusal"}


def test_a_mask_on_another_grid_is_said(tmp_path: Path) -> None:
    write_files(tmp_path)
    mask = np.zeros(CT_GRID.size[::-1], np.uint8)
    mask[8:14, 16:28, 20:36] = 1
    write_volume(tmp_path / "a_mask.nii", mask, CT_GRID)
    assert said(tmp_path) == {"mask-regridded": "warning"}


@pytest.mark.real_data
def test_the_real_pair_is_sound(real_data: Path) -> None:
    (case,) = find_pet_ct(
        Source((real_data / "petct" / "ibsi_nifti",)), PrognosisDataSection()
    ).cases
    assert [f.code for f in check_pet_ct(case, data_of())] == []
    found = prepare_pet_ct(case, data_of())
    grid = found.grids["prepared"]
    whole = nibabel.load(case.references["mask"])
    volume_ml = np.count_nonzero(whole.dataobj) * np.prod(whole.header.get_zooms()) / 1000
    own_ml = np.count_nonzero(found.arrays["label"]) * np.prod(grid.spacing_mm) / 1000
    assert own_ml == pytest.approx(volume_ml, rel=0.03)


def test_nothing_to_prepare_is_refused() -> None:
    with pytest.raises(CaseRefused):
        prepare_pet_ct(Case("a", "a", "", {}), data_of())
