"""DICOM SEG objects: read back by pydicom from the file's own geometry, and by our reader."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import dicom_builder as build
import highdicom
import numpy as np
import pydicom
import pytest
import series_by_hand
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.dicom.intake import scan
from medtool.dicom.segmentation import Code, Maker, Segment, write_segmentation
from medtool.dicom.segmentation_reader import read_segmentation
from medtool.dicom.series import Series
from medtool.dicom.volume import series_grid

SPACING = (1.5, 1.2)
STEP_MM = 2.0
MAKER = Maker("pancreas default", "0.1.0", "a1b2c3")
SEGMENTS = (
    Segment("organ", (1,), kind=Code("15776009", "SCT", "Pancreas")),
    Segment("lesion", (2,), Code("49755003", "SCT", "Morphologically Altered Structure")),
)
SIGNS = [(one, two) for one in (1.0, -1.0) for two in (1.0, -1.0)]
# The ways in which an axial, coronal or sagittal stack may be flipped.
FLIPPED = [
    *((x, 0.0, 0.0, 0.0, y, 0.0) for x, y in SIGNS),
    *((x, 0.0, 0.0, 0.0, 0.0, z) for x, z in SIGNS),
    *((0.0, y, 0.0, 0.0, 0.0, z) for y, z in SIGNS),
]


def built(
    folder: Path,
    orientation: Sequence[float] = build.AXIAL,
    distances: Sequence[float] = tuple(STEP_MM * k for k in range(10)),
    shear: tuple[float, float] = (0.0, 0.0),
) -> Series:
    files = build.build_series(
        folder,
        (len(distances), 16, 14),
        orientation=orientation,
        positions_mm=build.stack_positions(distances, orientation, (3.0, -5.0, 7.0), shear),
        spacing_mm=SPACING,
        shuffle=1,
    )
    return series_by_hand.series(files.files)


def blob(series: Series) -> NDArray[np.uint8]:
    """A lopsided structure, and a lesion in it, that no flip maps onto itself."""
    columns, rows, slices = series_grid(series).size
    mask = np.zeros((slices, rows, columns), np.uint8)
    mask[1:6, 3:9, 2:6] = 1
    mask[1:3, 9:12, 4:8] = 1
    mask[4, 5, 3] = 2
    return mask


def centroid_of_mask(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    z, y, x = (axis.mean() for axis in np.nonzero(mask))
    return (grid.affine_lps() @ [x, y, z, 1])[:3]


def centroid_in_file(path: Path, segment: int) -> NDArray[np.float64]:
    """From the file alone (PS3.3 C.7.6.2.1.1): mean place of all pixels of the segment."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(
        np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), (2, 3)
    )
    down, across = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    points = []
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    for group, pixels in zip(data.PerFrameFunctionalGroupsSequence, frames, strict=True):
        # What all frames share, as the only segment, may stand in the shared groups.
        of = group if "SegmentIdentificationSequence" in group else shared
        if of.SegmentIdentificationSequence[0].ReferencedSegmentNumber != segment:
            continue
        start = np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for y, x in np.argwhere(pixels):
            points.append(start + row * x * across + column * y * down)
    return np.mean(points, axis=0)


def written(
    mask: NDArray[np.uint8], series: Series, path: Path, segments: Sequence[Segment] = SEGMENTS
) -> Dataset:
    write_segmentation(mask, series, segments, path, maker=MAKER)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("orientation", [*FLIPPED, *(build.oblique(seed) for seed in range(4))])
def test_the_centroid_in_the_file_is_that_of_the_mask(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    series = built(tmp_path / "ct", orientation)
    mask, path = blob(series), tmp_path / "seg.dcm"
    written(mask, series, path)
    for number in (1, 2):
        apart = centroid_in_file(path, number) - centroid_of_mask(
            mask == number, series_grid(series)
        )
        assert np.linalg.norm(apart) < 0.1 * min(*SPACING, STEP_MM)
    assert (read_segmentation(path, series).mask == mask).all()


@pytest.mark.parametrize("orientation", [*FLIPPED, *(build.oblique(seed) for seed in range(4))])
def test_highdicom_reads_the_same_place(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    series = built(tmp_path / "ct", orientation)
    mask, path = blob(series), tmp_path / "seg.dcm"
    written(mask, series, path)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    for number in (1, 2):
        middle = np.mean(np.argwhere(volume.array == number), axis=0)
        apart = (volume.affine @ [*middle, 1])[:3] - centroid_of_mask(
            mask == number, series_grid(series)
        )
        assert np.linalg.norm(apart) < 0.1 * min(*SPACING, STEP_MM)


@pytest.mark.parametrize(
    ("distances", "shear"),
    [
        ([2.0 * k for k in range(10)], (0.0, 0.36)),
        ([0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 17.0], (0.0, 0.0)),
        ([0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 17.0], (0.1, 0.3)),
    ],
)
@pytest.mark.parametrize("orientation", [build.AXIAL, build.oblique(7)])
def test_leaning_and_uneven_stacks_are_within_half_a_slice(
    tmp_path: Path,
    distances: list[float],
    shear: tuple[float, float],
    orientation: tuple[float, ...],
) -> None:
    series = built(tmp_path / "ct", orientation, distances, shear)
    mask, path = blob(series), tmp_path / "seg.dcm"
    data = written(mask, series, path)
    sources = {plane.sop_instance_uid: plane.position_mm for plane in series.planes}
    for group in data.PerFrameFunctionalGroupsSequence:
        (derived,) = group.DerivationImageSequence
        uid = derived.SourceImageSequence[0].ReferencedSOPInstanceUID
        position = np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(position, sources[uid], atol=1e-3)
    assert series.geometry is not None
    half_mm = series.geometry.slice_spacing_mm / 2
    apart = centroid_in_file(path, 1) - centroid_of_mask(mask == 1, series_grid(series))
    assert np.linalg.norm(apart) < half_mm


def test_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    for name in ("one.dcm", "two.dcm"):
        written(blob(series), series, tmp_path / name)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_another_mask_model_or_series_is_another_object(tmp_path: Path) -> None:
    series, other = built(tmp_path / "ct"), built(tmp_path / "other")
    mask = blob(series)
    changed = mask.copy()
    changed[0, 0, 0] = 1
    made = [
        written(mask, series, tmp_path / "a.dcm"),
        written(changed, series, tmp_path / "b.dcm"),
        written(mask, other, tmp_path / "c.dcm"),
        written(mask, series, tmp_path / "d.dcm", SEGMENTS[::-1]),
    ]
    path = tmp_path / "e.dcm"
    write_segmentation(mask, series, SEGMENTS, path, maker=Maker("pancreas", "0.1.0", "other"))
    made.append(pydicom.dcmread(path))
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = [getattr(data, name) for data in made]
        assert len(set(uids)) == len(uids)
        assert all(uid.startswith("2.25.") and len(uid) <= 64 and uid.is_valid for uid in uids)


def test_the_object_says_what_it_is_of_whom_and_on_what(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    data = written(blob(series), series, tmp_path / "seg.dcm")
    source = pydicom.dcmread(series.planes[0].path)
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert data[name].value == source[name].value
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    assert data.ContentDescription == "research use only"
    organ, lesion = data.SegmentSequence
    assert (organ.SegmentLabel, lesion.SegmentLabel) == ("organ", "lesion")
    (kind,) = organ.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("15776009", "SCT")
    assert kind.CodeMeaning == "Pancreas"
    (category,) = lesion.SegmentedPropertyCategoryCodeSequence
    assert category.CodeValue == "49755003"
    assert organ.SegmentAlgorithmType == "AUTOMATIC"
    referenced = data.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} == {
        plane.sop_instance_uid for plane in series.planes
    }


def test_frames_are_written_where_a_segment_is_and_nowhere_else(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    data = written(blob(series), series, tmp_path / "seg.dcm")
    # The organ is on five slices, the lesion on one.
    assert data.NumberOfFrames == 6


def test_where_nothing_was_found_the_object_says_so(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    path = tmp_path / "seg.dcm"
    data = written(np.zeros_like(blob(series)), series, path)
    assert not data.pixel_array.any()
    assert not read_segmentation(path, series).mask.any()


def test_regions_may_overlap(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    mask, path = blob(series), tmp_path / "seg.dcm"
    data = written(mask, series, path, (Segment("whole", (1, 2)), Segment("lesion", (2,))))
    assert data.SegmentsOverlap == "YES"
    grid = series_grid(series)
    np.testing.assert_allclose(
        centroid_in_file(path, 1), centroid_of_mask(mask > 0, grid), atol=0.01
    )
    read = read_segmentation(path, series)
    assert read.names == {1: "whole", 2: "lesion"}
    assert (read.mask == mask).all()


def test_labels_that_no_segment_names_are_left_out(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    path = tmp_path / "seg.dcm"
    written(blob(series), series, path, (Segment("lesion", (2,)),))
    assert (read_segmentation(path, series).mask == (blob(series) == 2)).all()


def test_an_enhanced_image_is_referenced_as_well(tmp_path: Path) -> None:
    file = build.build_enhanced(tmp_path / "ct" / "enhanced.dcm", (6, 12, 10), step_mm=2.0)
    (series,) = scan([tmp_path / "ct"]).series
    mask, path = np.zeros((6, 12, 10), np.uint8), tmp_path / "seg.dcm"
    mask[2:4, 3:7, 1:4] = 1
    data = written(mask, series, path, SEGMENTS[:1])
    (referenced,) = data.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    source = pydicom.dcmread(file.files[0], stop_before_pixels=True)
    assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
    apart = centroid_in_file(path, 1) - centroid_of_mask(mask > 0, series_grid(series))
    assert np.linalg.norm(apart) < 0.01
    for group in data.PerFrameFunctionalGroupsSequence:
        (derived,) = group.DerivationImageSequence[0].SourceImageSequence
        frame = int(derived.ReferencedFrameNumber)
        assert frame in (3, 4)
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert position == pytest.approx(file.positions_mm[frame - 1])


def test_headers_that_lack_a_name_or_a_frame_of_reference_are_enough(tmp_path: Path) -> None:
    lacking = ("PatientName", "StudyDate", "StudyTime", "AccessionNumber", "FrameOfReferenceUID")
    files = build.build_series(tmp_path / "ct", (6, 12, 10), tags=dict.fromkeys(lacking))
    series = series_by_hand.series(files.files)
    mask = np.ones((6, 12, 10), np.uint8)
    uids = {
        written(mask, series, tmp_path / name, SEGMENTS[:1]).FrameOfReferenceUID
        for name in ("a.dcm", "b.dcm")
    }
    assert len(uids) == 1


# What anonymisers and careless scanners write where the standard has no such value.
STRANGE = {
    "StudyDate": "00000000",
    "StudyTime": "999999",
    "PatientBirthDate": "19990231",
    "PatientSex": "X",
}


@pytest.mark.parametrize("keyword", [*STRANGE, "all"])
def test_values_that_the_standard_has_not_are_left_empty(tmp_path: Path, keyword: str) -> None:
    """A study date of 00000000 once ended the run that was to write the object."""
    tags = STRANGE if keyword == "all" else {keyword: STRANGE[keyword]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = build.build_series(tmp_path / "ct", (6, 12, 10), tags=tags)
    series = series_by_hand.series(files.files)
    data = written(np.ones((6, 12, 10), np.uint8), series, tmp_path / "seg.dcm", SEGMENTS[:1])
    assert all(not data[name].value for name in tags)
    assert data.ContentDate == ("19000101" if "StudyDate" in tags else "20200102")
    assert data.PatientName == "Nobody^Known"


def test_a_mask_of_another_shape_and_no_segments_are_refused(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    with pytest.raises(ValueError, match="shape"):
        written(np.zeros((2, 2, 2), np.uint8), series, tmp_path / "seg.dcm")
    with pytest.raises(ValueError, match="segment"):
        written(blob(series), series, tmp_path / "seg.dcm", ())
    assert not (tmp_path / "seg.dcm").exists()


def test_a_segmentation_of_another_series_is_refused(tmp_path: Path) -> None:
    series = built(tmp_path / "ct")
    other = built(tmp_path / "other", distances=[50.0 + 2 * k for k in range(10)])
    moved = built(tmp_path / "moved", orientation=FLIPPED[3])
    path = tmp_path / "seg.dcm"
    written(blob(series), series, path)
    assert read_segmentation(path, other).mask.shape == blob(series).shape
    with pytest.raises(CaseRefused) as refused:
        read_segmentation(path, moved)
    assert refused.value.code == "segmentation-elsewhere"
    with pytest.raises(CaseRefused, match="no DICOM SEG"):
        read_segmentation(series.planes[0].path, series)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("where", "tilted"), [("head_ct/ge_tilt_uneven", True), ("torso_ct/ge_crlm1004", False)]
)
def test_real_series(tmp_path: Path, real_data: Path, where: str, tilted: bool) -> None:
    series = max(scan([real_data / where]).series, key=lambda found: len(found.planes))
    grid = series_grid(series)
    columns, rows, slices = grid.size
    mask = np.zeros((slices, rows, columns), np.uint8)
    low, high = slices // 4, max(slices // 2, slices // 4 + 2)
    mask[low:high, rows // 3 : rows // 2, columns // 4 : columns // 3] = 1
    path = tmp_path / "seg.dcm"
    written(mask, series, path, SEGMENTS[:1])
    apart = np.linalg.norm(centroid_in_file(path, 1) - centroid_of_mask(mask > 0, grid))
    assert apart < (0.5 * grid.spacing_mm[2] if tilted else 0.1 * min(grid.spacing_mm))
    back = read_segmentation(path, series).mask
    agree = 2 * np.count_nonzero(back & mask) / (np.count_nonzero(back) + mask.sum())
    assert agree > 0.95


@pytest.mark.real_data
def test_a_real_segmentation_is_read(real_data: Path) -> None:
    folder = real_data / "petct" / "siemens_qin0139"
    (path,) = folder.rglob("tumour_seg.dcm")
    series = max(scan([folder]).series, key=lambda found: len(found.planes))
    read = read_segmentation(path, series)
    assert len(read.names) == 11
    (finding,) = read.findings
    # 92 of the 171 frames lie on the slices that are kept here (README of the folder).
    assert finding.message.startswith("79 of 171 frames")
    data = pydicom.dcmread(path)
    numbers = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in data.PerFrameFunctionalGroupsSequence
    ]
    kept = {plane.sop_instance_uid for plane in series.planes}
    wanted: dict[str, NDArray[np.uint16]] = {}
    for group, number, pixels in zip(
        data.PerFrameFunctionalGroupsSequence, numbers, data.pixel_array, strict=True
    ):
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        if uid in kept:
            before = wanted.get(uid, np.zeros(pixels.shape, np.uint16))
            wanted[uid] = np.maximum(before, (pixels * number).astype(np.uint16))
    for plane, found in zip(series.planes, read.mask, strict=True):
        assert (found == wanted.get(plane.sop_instance_uid, 0)).all()
