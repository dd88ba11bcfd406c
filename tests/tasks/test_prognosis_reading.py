"""SUV, HU and masks of a study as they are read: real series, real structures, other grids."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pet_ct_studies import (
    CT_GRID,
    HOT_SUV,
    PET_GRID,
    ct_values,
    hot_mask,
    suv_values,
    write_ct,
    write_pair,
    write_study,
    write_volume,
)

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, Outcome, Source, Truth
from medtool.data.dicom_masks import STRUCTURE_SET_STORAGE
from medtool.dicom import scan
from medtool.dicom.segmentation import Maker, Segment, write_segmentation
from medtool.dicom.series import Series
from medtool.dicom.volume import series_grid
from medtool.tasks.prognosis_codes import PET_CT_CODES
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_find import find_pet_ct
from medtool.tasks.prognosis_labels import settled_labels
from medtool.tasks.prognosis_reading import read_case, read_pet_ct_truth

OTHER_GRID = Grid((32, 32, 12), (3.0, 3.0, 3.5), (1.5, 1.5, 1.0))


def data_of(**values: Any) -> PrognosisDataSection:
    return settled_labels(PrognosisDataSection(**values), None, "tumour")


def case_in(folder: Path, **values: Any) -> Case:
    (case,) = find_pet_ct(Source((folder,)), PrognosisDataSection(**values)).cases
    return case


def truth_of(case: Case, **values: Any) -> Truth:
    return read_pet_ct_truth(case, data_of(**values))


def dice(first: NDArray[Any], second: NDArray[Any]) -> float:
    both = np.count_nonzero((first != 0) & (second != 0))
    return 2 * both / (np.count_nonzero(first) + np.count_nonzero(second))


def with_ct(real: Path, folder: Path) -> Series:
    """A real PET study in ``folder`` with a made-up CT of the same examination beside it."""
    shutil.copytree(real, folder)
    (pet,) = scan([folder]).series
    header = pydicom.dcmread(pet.planes[0].path, stop_before_pixels=True)
    grid = series_grid(pet)
    write_ct(
        folder / "ct",
        {
            "PatientID": header.PatientID,
            "FrameOfReferenceUID": header.FrameOfReferenceUID,
        },
        study_uid=header.StudyInstanceUID,
        origin_mm=grid.origin_mm,
        spacing_mm=(
            grid.spacing_mm[1] * grid.size[1] / CT_GRID.size[1],
            grid.spacing_mm[0] * grid.size[0] / CT_GRID.size[0],
        ),
        step_mm=grid.spacing_mm[2] * grid.size[2] / CT_GRID.size[2],
    )
    return pet


# --- images -------------------------------------------------------------------------------
def test_both_images_are_read_on_their_own_grids(tmp_path: Path) -> None:
    write_study(tmp_path)
    read = read_case(case_in(tmp_path), data_of())
    assert np.abs(read.pet.array - suv_values()).max() < 3e-4
    assert (read.ct.array == ct_values()).all()
    assert read.pet.grid == PET_GRID and read.ct.grid == CT_GRID and read.grid == PET_GRID
    assert read.mask is None
    assert "suv-factor" in {finding.code for finding in read.findings}
    assert read_case(case_in(tmp_path), data_of(preparation={"answer_grid": "ct"})).grid == CT_GRID


@pytest.mark.real_data
def test_a_real_pet_is_the_independent_suv_volume(real_data: Path, tmp_path: Path) -> None:
    """GE STS_001: made by others from the same files, a crop at (59, 45, 0)."""
    folder = real_data / "petct" / "ge_sts001"
    with_ct(folder, tmp_path / "study")
    read = read_case(case_in(tmp_path / "study"), data_of())
    truth = nibabel.load(folder / "suv_truth.nii.gz")
    wanted = np.asarray(truth.dataobj).transpose(2, 1, 0)
    z, y, x = wanted.shape
    own = read.pet.array[:z, 45 : 45 + y, 59 : 59 + x]
    assert np.abs(own - wanted).max() < 1e-3
    inside = own[np.asarray(nibabel.load(folder / "tumour_mask.nii.gz").dataobj).T != 0]
    # As the README has them.
    assert inside.max() == pytest.approx(7.911, abs=1e-3)
    assert inside.mean() == pytest.approx(2.555, abs=1e-3)


@pytest.mark.parametrize("factor", [9000.0, -1.0])
def test_a_file_that_holds_no_suv_is_refused(tmp_path: Path, factor: float) -> None:
    """Bq/mL by its values, and a PET that is below 0."""
    write_pair(tmp_path / "a_suv.nii.gz", tmp_path / "a_ct.nii.gz")
    write_volume(tmp_path / "a_suv.nii.gz", suv_values() * factor, PET_GRID)
    with pytest.raises(CaseRefused) as caught:
        read_case(case_in(tmp_path), data_of())
    assert caught.value.code == "suv-implausible" and caught.value.code in PET_CT_CODES


def test_a_case_without_its_images_is_refused() -> None:
    with pytest.raises(CaseRefused) as caught:
        read_case(Case("a", "a", "", {}), data_of())
    assert caught.value.code == "channels-differ"


# --- masks in DICOM objects ---------------------------------------------------------------
@pytest.mark.real_data
def test_real_contours_are_the_known_mask(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "petct" / "ge_sts001"
    with_ct(folder, tmp_path / "study")
    for chosen in ({}, {"structures": {"tumour": ["gtv_*"]}}):
        truth = truth_of(case_in(tmp_path / "study", **chosen), **chosen)
        known = np.asarray(nibabel.load(folder / "tumour_mask.nii.gz").dataobj).transpose(2, 1, 0)
        z, y, x = known.shape
        own = truth.arrays["mask"]
        assert np.count_nonzero(own) == 5095
        assert dice(own[:z, 45 : 45 + y, 59 : 59 + x], known) > 0.99


@pytest.mark.real_data
def test_a_segmentation_object_is_the_known_mask(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "petct" / "ge_sts001"
    pet = with_ct(folder, tmp_path / "study")
    (tmp_path / "study" / "tumour_rtstruct.dcm").unlink()
    known = np.asarray(nibabel.load(folder / "tumour_mask.nii.gz").dataobj).transpose(2, 1, 0)
    whole = np.zeros(series_grid(pet).size[::-1], np.uint8)
    z, y, x = known.shape
    whole[:z, 45 : 45 + y, 59 : 59 + x] = known
    segment = Segment("GTV", (1,))
    write_segmentation(
        whole, pet, [segment], tmp_path / "study" / "seg.dcm", maker=Maker("test", "1", "1")
    )
    truth = truth_of(case_in(tmp_path / "study"))
    assert (truth.arrays["mask"] == whole).all()


@pytest.mark.real_data
def test_contours_on_images_that_are_not_there_are_refused(real_data: Path, tmp_path: Path) -> None:
    with_ct(real_data / "petct" / "ge_sts003_gml", tmp_path / "study")
    case = case_in(tmp_path / "study")
    assert Path(case.references["mask"]).name == "tumour_rtstruct.dcm"
    with pytest.raises(CaseRefused) as caught:
        truth_of(case)
    assert caught.value.code == "mask-incomplete" and "20 contours" in caught.value.met


@pytest.mark.real_data
def test_segments_that_are_all_there_are_read_and_cut_ones_refused(
    real_data: Path, tmp_path: Path
) -> None:
    """Of 11 segments of one name number 5 is whole in the slices kept here, 4 is cut."""
    folder = real_data / "petct" / "siemens_qin0139"
    pet = with_ct(folder, tmp_path / "study")
    seg = pydicom.dcmread(folder / "tumour_seg.dcm")
    numbers = [
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for frame in seg.PerFrameFunctionalGroupsSequence
    ]
    voxels = int(
        sum(plane.sum() for n, plane in zip(numbers, seg.pixel_array, strict=True) if n == 5)
    )
    chosen = {"structures": {"tumour": ["#5"]}}
    truth = truth_of(case_in(tmp_path / "study", **chosen), **chosen)
    assert np.count_nonzero(truth.arrays["mask"]) == voxels > 0
    assert truth.grids["mask"] == series_grid(pet)
    both = {"structures": {"near": ["#5"], "far": ["#9", "#10"]}}
    truth = truth_of(case_in(tmp_path / "study", **both), **both)
    assert set(np.unique(truth.arrays["mask"])) == {0, 1, 2}
    for names in (["#4"], ["neoplasm, secondary"]):
        cut = {"structures": {"tumour": names}}
        with pytest.raises(CaseRefused) as caught:
            truth_of(case_in(tmp_path / "study", **cut), **cut)
        assert caught.value.code == "mask-incomplete"


@pytest.mark.real_data
def test_of_several_structures_none_is_guessed(real_data: Path, tmp_path: Path) -> None:
    with_ct(real_data / "petct" / "siemens_qin0139", tmp_path / "study")
    case = case_in(tmp_path / "study")
    assert "mask" not in case.references
    (said,) = [f.message for f in case.findings if f.code == "structures-unchosen"]
    assert "Neoplasm, Primary" in said and "data.structures" in said


def write_contour(path: Path, case: Case, kind: str, end_mm: float) -> None:
    """An RTSTRUCT with one contour on slice 5 of the PET, whose ends are ``end_mm`` apart."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence as Items

    pet = case.inputs["pet"]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = STRUCTURE_SET_STORAGE
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    data.PatientID, data.Modality = case.patient_id, "RTSTRUCT"
    frame, study, series, roi, drawn, contour, image = (Dataset() for _ in range(7))
    series.SeriesInstanceUID = pet.uid
    study.RTReferencedSeriesSequence = Items([series])
    frame.RTReferencedStudySequence = Items([study])
    data.ReferencedFrameOfReferenceSequence = Items([frame])
    roi.ROINumber, roi.ROIName = 1, "GTV"
    z_mm = pet.planes[5].position_mm[2]
    corners = [(30.0, 30.0), (60.0, 30.0), (60.0, 60.0), (30.0, 60.0), (30.0, 30.0 + end_mm)]
    contour.ContourGeometricType = kind
    contour.ContourData = [f"{v:.3f}" for x, y in corners for v in (x, y, z_mm)]
    image.ReferencedSOPInstanceUID = pet.planes[5].sop_instance_uid
    contour.ContourImageSequence = Items([image])
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, Items([contour])
    data.StructureSetROISequence, data.ROIContourSequence = Items([roi]), Items([drawn])
    data.save_as(path, enforce_file_format=True)


def test_open_contours_are_refused_unless_their_ends_meet(tmp_path: Path) -> None:
    write_study(tmp_path)
    bare = case_in(tmp_path)
    write_contour(tmp_path / "rt.dcm", bare, "OPEN_PLANAR", 20.0)
    with pytest.raises(CaseRefused) as caught:
        truth_of(case_in(tmp_path))
    assert caught.value.code == "contours-open" and "20.0 mm apart" in caught.value.met
    # 30 x 30 mm in voxels of 4 mm, whose centres lie at 2, 6, ... mm: 8 x 8 minus none.
    for kind, end_mm in (("OPEN_PLANAR", 1.0), ("CLOSED_PLANAR", 20.0)):
        write_contour(tmp_path / "rt.dcm", bare, kind, end_mm)
        mask = truth_of(case_in(tmp_path)).arrays["mask"]
        assert np.count_nonzero(mask) == np.count_nonzero(mask[5]) == 64


def test_a_mask_that_was_drawn_on_the_ct_comes_to_the_pet(tmp_path: Path) -> None:
    write_study(tmp_path)
    ct = case_in(tmp_path).inputs["ct"]
    maker = Maker("test", "1", "1")
    write_segmentation(
        block_on(CT_GRID), ct, [Segment("GTV", (1,))], tmp_path / "s.dcm", maker=maker
    )
    truth = truth_of(case_in(tmp_path))
    assert (truth.arrays["mask"] == hot_mask()).all() and truth.grids["mask"] == PET_GRID
    ct_data = {"preparation": {"answer_grid": "ct"}}
    truth = truth_of(case_in(tmp_path, **ct_data), **ct_data)
    assert (truth.arrays["mask"] == block_on(CT_GRID)).all()
    # Of two objects the one on the grid of the answer is the mask.
    pet = case_in(tmp_path).inputs["pet"]
    write_segmentation(hot_mask(), pet, [Segment("GTV", (1,))], tmp_path / "z.dcm", maker=maker)
    case = case_in(tmp_path)
    assert Path(case.references["mask"]).name == "z.dcm"
    assert "masks-several" in {finding.code for finding in case.findings}
    assert Path(case_in(tmp_path, **ct_data).references["mask"]).name == "s.dcm"


# --- masks on other grids -----------------------------------------------------------------
def block_on(grid: Grid) -> NDArray[np.uint8]:
    """The hot block of the PET as voxels of another grid, by where their centres are."""
    low, high = (40.0, 32.0, 16.0), (72.0, 56.0, 28.0)
    z, y, x = np.indices(grid.size[::-1])
    inside = np.ones(z.shape, bool)
    for axis, index in enumerate((x, y, z)):
        centre = grid.origin_mm[axis] + index * grid.spacing_mm[axis]
        inside &= (centre > low[axis]) & (centre < high[axis])
    return inside.astype(np.uint8)


def test_a_mask_on_the_pet_is_itself(tmp_path: Path) -> None:
    write_pair(tmp_path / "a_suv.nii", tmp_path / "a_ct.nii", tmp_path / "a_mask.nii")
    read = read_case(case_in(tmp_path), data_of())
    assert "mask-regridded" not in {finding.code for finding in read.findings}
    truth = truth_of(case_in(tmp_path))
    assert (truth.arrays["mask"] == hot_mask()).all() and truth.grids["mask"] == PET_GRID
    assert read.pet.array[truth.arrays["mask"] == 1].min() == np.float32(HOT_SUV)


def test_a_mask_on_the_ct_comes_to_the_answers_grid_and_keeps_its_volume(tmp_path: Path) -> None:
    write_pair(tmp_path / "a_suv.nii", tmp_path / "a_ct.nii")
    write_volume(tmp_path / "a_mask.nii", block_on(CT_GRID), CT_GRID)
    case = case_in(tmp_path)
    # Edges of the block lie between voxels of the PET as well: nothing is lost.
    truth = truth_of(case)
    assert (truth.arrays["mask"] == hot_mask()).all()
    (said,) = [f.message for f in read_case(case, data_of()).findings if f.code == "mask-regridded"]
    # 8 x 6 x 3 voxels of 64 mm3.
    assert "9.216 mL became 9.216 mL" in said
    ct = {"preparation": {"answer_grid": "ct"}}
    assert (truth_of(case, **ct).arrays["mask"] == block_on(CT_GRID)).all()


def test_a_mask_on_a_third_grid_is_brought_there_and_one_elsewhere_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a_suv.nii", tmp_path / "a_ct.nii")
    write_volume(tmp_path / "a_mask.nii", block_on(OTHER_GRID), OTHER_GRID)
    mask = truth_of(case_in(tmp_path)).arrays["mask"]
    assert dice(mask, hot_mask()) > 0.85
    away = Grid(OTHER_GRID.size, OTHER_GRID.spacing_mm, (1.5, 1.5, 900.0))
    write_volume(tmp_path / "a_mask.nii", block_on(OTHER_GRID), away)
    with pytest.raises(CaseRefused) as caught:
        truth_of(case_in(tmp_path))
    assert caught.value.code == "mask-elsewhere"


def test_ids_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a_suv.nii", tmp_path / "a_ct.nii")
    write_volume(tmp_path / "a_mask.nii", hot_mask() * 3, PET_GRID)
    with pytest.raises(CaseRefused) as caught:
        truth_of(case_in(tmp_path))
    assert caught.value.code == "label-undeclared"


# --- truth --------------------------------------------------------------------------------
def test_a_truth_has_what_is_known(tmp_path: Path) -> None:
    write_pair(tmp_path / "a_suv.nii", tmp_path / "a_ct.nii")
    case = case_in(tmp_path)
    outcome = Outcome(100.0, True)
    known = Case("a", "p", "", case.inputs, outcome=outcome, references={"true_risk": "0.5"})
    truth = truth_of(known)
    assert truth.outcome == outcome and set(truth.arrays) == {"true_risk"}
    assert float(truth.arrays["true_risk"]) == 0.5
    assert truth_of(Case("b", "b", "", {})).outcome is None
