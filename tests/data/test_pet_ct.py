"""PET and CT on one grid: a lesion stays where it was in the patient, in SUV and in HU."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_builder import build_series
from numpy.typing import NDArray
from pet_builder import FACTOR, build_pet

from medtool.core.geometry import Grid
from medtool.data.dataset_record import ImageReference
from medtool.data.pet_ct import PetCt, Placed, on_grid
from medtool.data.regridding import common_grid
from medtool.data.volumes import Volume, read_mask, read_volume
from medtool.dicom import scan
from medtool.dicom.pet_ct import PetCtPair, pair_pet_ct
from medtool.dicom.suv import read_suv
from medtool.dicom.volume import read_volume as read_series
from medtool.score.uptake import case_uptake, lesion_uptakes

LESION_MM = (30.0, 40.0, 22.0)
CT_SHAPE = (30, 40, 40)


def centroid_mm(values: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """LPS mm of the mean place, weighted by what is over the least value."""
    z, y, x = np.indices(values.shape)
    places = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ grid.affine_lps().T[:, :3]
    weights = (values - values.min()).astype(np.float64)
    mean: NDArray[np.float64] = np.einsum("zyx,zyxc->c", weights / weights.sum(), places)
    return mean


def ball(
    shape: tuple[int, int, int], start_mm: float, step_mm: float, sigma_mm: float
) -> NDArray[np.float64]:
    """A Gaussian around the lesion on a cubic grid."""
    z, y, x = (start_mm + step_mm * np.arange(n) for n in shape)
    far = (
        (z[:, None, None] - LESION_MM[2]) ** 2
        + (y[None, :, None] - LESION_MM[1]) ** 2
        + (x[None, None, :] - LESION_MM[0]) ** 2
    )
    return np.exp(-far / (2 * sigma_mm**2))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A PET of 4 mm (with a slope of its own in each slice) and a CT of 2 mm, one hot lesion."""
    pet_slopes = 1.0 + 0.1 * np.arange(14)
    uptake = ball((14, 18, 18), 3.0, 4.0, 5.0) * 20_000 / pet_slopes[:, None, None]
    build_pet(
        tmp_path / "pet",
        uptake.astype(np.int16),
        {"FrameOfReferenceUID": "1.2.3.4"},
        origin_mm=(3.0, 3.0, 3.0),
        spacing_mm=(4.0, 4.0),
        step_mm=4.0,
        study_uid="1.2",
        slice_tags=lambda k: {"RescaleSlope": f"{pet_slopes[k]:.6f}"},
    )
    build_series(
        tmp_path / "ct",
        (ball(CT_SHAPE, 1.0, 2.0, 5.0) * 4000).astype(np.int16),
        tags={"FrameOfReferenceUID": "1.2.3.4"},
        origin_mm=(1.0, 1.0, 1.0),
        spacing_mm=(2.0, 2.0),
        step_mm=2.0,
        study_uid="1.2",
    )
    return tmp_path


def assert_lesion_stands(read: PetCt) -> None:
    assert read.suv.shape == read.ct_hu.shape == read.grid.size[::-1]
    assert read.suv.dtype == read.ct_hu.dtype == np.float32
    for values in (read.suv, read.ct_hu):
        assert centroid_mm(values, read.grid) == pytest.approx(LESION_MM, abs=0.2)
    # The top of the lesion lies between voxels, and linear values stay below it.
    assert 0.75 * 20_000 * FACTOR < read.suv.max() <= 20_000 * FACTOR
    assert read.suv.min() >= 0.0


def read_both(pair: PetCtPair) -> tuple[Placed, Placed]:
    return read_suv(pair.pet, pair.scale), read_series(pair.ct)


def test_on_the_grid_of_the_ct(study: Path) -> None:
    suv, ct = read_both(pair_pet_ct(scan([study]).series))
    assert_lesion_stands(on_grid(suv, ct, ct.grid))
    assert ct.grid.size == CT_SHAPE[::-1]


def test_on_a_common_spacing(study: Path) -> None:
    suv, ct = read_both(pair_pet_ct(scan([study]).series))
    grid = common_grid(ct.grid, suv.grid, (3.0, 3.0, 3.0))
    assert_lesion_stands(on_grid(suv, ct, grid))
    # PET from 1 to 73 (z: 57), CT from 0 to 80 (z: 60).
    assert grid.size == (24, 24, 18)


def test_where_the_pet_ends_there_is_no_uptake() -> None:
    ct = Volume(np.zeros((4, 4, 8), np.float32), Grid((8, 4, 4), (1.0,) * 3, (0.0,) * 3))
    pet = Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4), (1.0,) * 3, (0.0,) * 3))
    suv = on_grid(pet, ct, ct.grid).suv
    assert (suv[:, :, :4] == 1.0).all()
    assert (suv[:, :, 4:] == 0.0).all()


def test_where_the_ct_ends_there_is_air() -> None:
    pet = Volume(np.ones((4, 4, 8), np.float32), Grid((8, 4, 4), (1.0,) * 3, (0.0,) * 3))
    ct = Volume(np.zeros((4, 4, 4), np.float32), Grid((4, 4, 4), (1.0,) * 3, (0.0,) * 3))
    assert (on_grid(pet, ct, pet.grid).ct_hu[:, :, 4:] < -1000.0).all()


@pytest.mark.real_data
def test_a_real_pet_on_the_grid_of_a_ct_is_the_suv_of_others(
    real_data: Path, tmp_path: Path
) -> None:
    """Every other row and column of this CT, which is made for it, lies where the PET's do."""
    folder = real_data / "petct/ge_sts001"
    pet = scan([folder / "pet_dicom"]).series[0]
    first = np.asarray(pet.planes[0].position_mm)
    noise = np.random.default_rng(0).integers(0, 1500, (len(pet.planes), 255, 255))
    built = build_series(
        tmp_path,
        noise.astype(np.int16),
        positions_mm=[plane.position_mm for plane in pet.planes],
        spacing_mm=(4.6875 / 2, 4.6875 / 2),
        tags={"FrameOfReferenceUID": pet.facts["frame_of_reference"]},
    )
    pair = pair_pet_ct([pet, *scan([built.folder]).series])
    assert pair.covered == pytest.approx((1.0, 1.0, 1.0), abs=0.01)
    suv, ct = read_both(pair)
    read = on_grid(suv, ct, ct.grid)
    assert read.grid.origin_mm == pytest.approx(tuple(first))
    truth = np.asarray(nibabel.load(folder / "suv_truth.nii.gz").dataobj).transpose(2, 1, 0)
    there = read.suv[:, 90 : 90 + 2 * truth.shape[1] : 2, 118 : 118 + 2 * truth.shape[2] : 2]
    assert np.abs(there - truth).max() < 0.001


@pytest.mark.real_data
def test_a_real_pair_keeps_its_tumour(real_data: Path) -> None:
    """Masks drawn on PET and on CT are of one tumour: on one grid they still are."""
    folder = real_data / "petct/ibsi_nifti"
    pet, ct = (
        read_volume(ImageReference(folder / f"STS_003_{name}.nii.gz")) for name in ("pet", "ct")
    )
    drawn = read_mask(ImageReference(folder / "STS_003_ct_mask.nii.gz"))
    own = read_mask(ImageReference(folder / "STS_003_pet_mask.nii.gz"))
    read = on_grid(pet, ct, ct.grid)
    on_pet = case_uptake(lesion_uptakes(pet.array, own.array > 0, pet.grid.spacing_mm[::-1]))
    on_ct = case_uptake(lesion_uptakes(read.suv, drawn.array > 0, ct.grid.spacing_mm[::-1]))
    assert on_ct.mtv_ml == pytest.approx(on_pet.mtv_ml, rel=0.05)
    assert on_ct.suv_mean == pytest.approx(on_pet.suv_mean, rel=0.05)
    # A sphere of 1 mL is a handful of voxels of the PET, and hundreds of the CT.
    assert on_ct.suv_peak == pytest.approx(on_pet.suv_peak, rel=0.1)
