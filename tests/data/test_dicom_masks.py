"""Masks in DICOM objects on the grid of their series: by hand, and against a real known mask."""

from __future__ import annotations

from pathlib import Path

import dicom_builder as build
import nibabel
import numpy as np
import pydicom
import pytest
import series_by_hand
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items

from medtool.core.errors import CaseRefused
from medtool.data.dicom_masks import (
    STRUCTURE_SET_STORAGE,
    find_masks,
    mask_objects,
    read_dicom_mask,
)
from medtool.dicom.intake import scan
from medtool.dicom.segmentation import Maker, Segment, write_segmentation
from medtool.dicom.series import Series
from medtool.dicom.volume import series_grid

STEP_MM = 2.0


def series_in(folder: Path, orientation: tuple[float, ...] = build.AXIAL) -> Series:
    files = build.build_series(
        folder,
        (6, 14, 12),
        orientation=orientation,
        positions_mm=build.stack_positions(
            [STEP_MM * k for k in range(6)], orientation, (3.0, -5.0, 7.0), (0.0, 0.0)
        ),
        spacing_mm=(1.5, 1.2),
    )
    return series_by_hand.series(files.files)


def write_structures(
    path: Path, series: Series, structures: dict[str, list[tuple[int, list[tuple[float, float]]]]]
) -> None:
    """An RTSTRUCT by pydicom alone: of each name (plane, outline as (column, row)) each contour."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = STRUCTURE_SET_STORAGE
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data.PatientID, data.Modality = "patient-1", "RTSTRUCT"
    frame, study, referenced = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series.uid
    study.RTReferencedSeriesSequence = Items([referenced])
    frame.RTReferencedStudySequence = Items([study])
    data.ReferencedFrameOfReferenceSequence = Items([frame])
    rois, drawn = [], []
    geometry = series.geometry
    assert geometry is not None
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, contour_set, items = Dataset(), Dataset(), []
        roi.ROINumber, roi.ROIName = number, name
        for plane, outline in contours:
            start = np.asarray(series.planes[0].position_mm) + np.multiply(
                geometry.normal, plane * STEP_MM
            )
            points = [
                start
                + np.multiply(geometry.row_direction, column * geometry.column_spacing_mm)
                + np.multiply(geometry.column_direction, row * geometry.row_spacing_mm)
                for column, row in outline
            ]
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{value:.4f}" for value in np.ravel(points)]
            items.append(contour)
        contour_set.ReferencedROINumber = number
        contour_set.ContourSequence = Items(items)
        rois.append(roi)
        drawn.append(contour_set)
    data.StructureSetROISequence, data.ROIContourSequence = Items(rois), Items(drawn)
    data.save_as(path, enforce_file_format=True)


def box(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]


@pytest.mark.parametrize("orientation", [build.AXIAL, build.oblique(3)])
def test_contours_are_filled_on_their_planes_with_holes(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    series = series_in(tmp_path / "ct", orientation)
    path = tmp_path / "structures.dcm"
    write_structures(
        path,
        series,
        {
            "organ": [(2, box(1.5, 9.5)), (2, box(3.5, 6.5)), (3, box(1.5, 4.5))],
            "lesion": [(3, box(2.5, 3.5))],
            "couch": [(0, box(0.5, 3.5))],
        },
    )
    (found,) = mask_objects([path, series.planes[0].path])
    assert (found.kind, found.names) == ("RTSTRUCT", ("organ", "lesion", "couch"))
    assert found.series_uids == {series.uid}
    mask, findings = read_dicom_mask(path, series, {"organ": 4, "lesion": 7, "vessel": 9})
    wanted = np.zeros((6, 14, 12), np.int16)
    wanted[2, 2:10, 2:10] = 4
    wanted[2, 4:7, 4:7] = 0
    wanted[3, 2:5, 2:5] = 4
    wanted[3, 3, 3] = 7
    assert (mask == wanted).all()
    assert mask.shape == series_grid(series).size[::-1]
    assert {f.code: f.severity for f in findings} == {
        "structures-left-out": "note",
        "structures-missing": "warning",
        "structures-overlap": "warning",
    }


def test_contours_between_the_slices_are_said_or_refused(tmp_path: Path) -> None:
    series = series_in(tmp_path / "ct")
    some, none = tmp_path / "some.dcm", tmp_path / "none.dcm"
    write_structures(some, series, {"organ": [(1, box(1.5, 4.5)), (9, box(1.5, 4.5))]})
    mask, findings = read_dicom_mask(some, series, {"organ": 1})
    assert np.count_nonzero(mask) == 9
    assert [f.code for f in findings] == ["frames-without-slice"]
    assert "1 of 2 contours" in findings[0].message
    write_structures(none, series, {"organ": [(9, box(1.5, 4.5))]})
    with pytest.raises(CaseRefused) as error:
        read_dicom_mask(none, series, {"organ": 1})
    assert error.value.code == "segmentation-elsewhere"


def test_segments_get_the_ids_of_their_names(tmp_path: Path) -> None:
    series = series_in(tmp_path / "ct")
    stored = np.zeros((6, 14, 12), np.uint8)
    stored[1:3, 2:6, 3:9], stored[4, 7, 7] = 1, 2
    path = tmp_path / "seg.dcm"
    segments = [Segment("lesion", (1,)), Segment("organ", (2,))]
    write_segmentation(stored, series, segments, path, maker=Maker("made", "1", "abc"))
    mask, findings = read_dicom_mask(path, series, {"organ": 5, "lesion": 3})
    assert not findings
    assert (mask == np.select([stored == 1, stored == 2], [3, 5])).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_of_segments_that_overlap_the_label_named_later_stands(
    tmp_path: Path, *, reverse: bool
) -> None:
    """From a fault: the segment with the higher number erased the tumour inside it, unsaid."""
    series = series_in(tmp_path / "ct")
    stored = np.zeros((6, 14, 12), np.uint8)
    stored[1:4, 2:8, 3:9], stored[2, 4:6, 5:8] = 1, 2
    segments = [Segment("tumour", (2,)), Segment("liver", (1, 2))]
    path = tmp_path / "seg.dcm"
    write_segmentation(stored, series, segments, path, maker=Maker("made", "1", "abc"))
    ids = {"liver": 4, "tumour": 7}
    if reverse:
        ids = dict(reversed(ids.items()))
    mask, (finding,) = read_dicom_mask(path, series, ids)
    inside = 4 if reverse else 7
    assert (mask == np.select([stored == 1, stored == 2], [4, inside])).all()
    assert (finding.code, finding.severity) == ("structures-overlap", "warning")
    over, under = ("liver", "tumour") if reverse else ("tumour", "liver")
    assert f"{over} stands over {under} in 6 pixels" in finding.message
    # Structures of one label have nothing to hide.
    assert not read_dicom_mask(path, series, {"liver": 1, "tumour": 1})[1]


@pytest.mark.parametrize("lacking", ["SegmentLabel", "SeriesInstanceUID", "ROIName"])
def test_masks_that_lack_what_they_need_are_listed(tmp_path: Path, lacking: str) -> None:
    """From a fault: one such object ended the search of all studies."""
    series, path = series_in(tmp_path / "ct"), tmp_path / "mask.dcm"
    if lacking == "ROIName":
        write_structures(path, series, {"organ": [(1, box(1.5, 4.5))]})
    else:
        stored = np.ones((6, 14, 12), np.uint8)
        write_segmentation(
            stored, series, [Segment("organ", (1,))], path, maker=Maker("made", "1", "abc")
        )
    data = pydicom.dcmread(path)
    for name in ("SegmentSequence", "ReferencedSeriesSequence", "StructureSetROISequence"):
        for item in data.get(name, ()):
            item.pop(pydicom.datadict.tag_for_keyword(lacking), None)
    data.save_as(path)
    objects, (broken,) = find_masks([series.planes[0].path, path])
    assert not objects
    assert (broken.file, broken.code) == (path, "broken-header")
    assert lacking in broken.why


def test_an_image_is_no_mask(tmp_path: Path) -> None:
    series = series_in(tmp_path / "ct")
    with pytest.raises(CaseRefused, match="holds no masks"):
        read_dicom_mask(series.planes[0].path, series, {"organ": 1})


@pytest.mark.real_data
def test_a_real_structure_set_is_the_mask_that_others_made_of_it(real_data: Path) -> None:
    folder = real_data / "petct" / "ge_sts001"
    series = max(scan([folder]).series, key=lambda found: len(found.planes))
    (found,) = mask_objects([folder / "tumour_rtstruct.dcm"])
    assert found.series_uids == {series.uid}
    (name,) = found.names
    mask, findings = read_dicom_mask(found.path, series, {name: 1})
    assert not findings
    truth = np.asarray(nibabel.load(folder / "tumour_mask.nii.gz").dataobj).astype(bool)
    # A crop of 41 x 43 x 59 voxels at (59, 45, 0) (README of the folder).
    x, y, z = truth.shape
    ours = mask.transpose(2, 1, 0)[59 : 59 + x, 45 : 45 + y, :z].astype(bool)
    assert ours.sum() == mask.sum()
    both = 2 * np.count_nonzero(ours & truth) / (ours.sum() + truth.sum())
    assert both > 0.95
