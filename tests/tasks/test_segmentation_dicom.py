"""Which DICOM object is the mask of a study, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import dicom_builder as build
import numpy as np
import pydicom

from medtool.core.records import Case
from medtool.dicom.intake import scan
from medtool.dicom.segmentation import Maker, Segment, write_segmentation
from medtool.dicom.series import Series
from medtool.tasks.segmentation_dicom import MaskedStudies, with_masks
from medtool.tasks.segmentation_labels import MASK

SHAPE = (4, 12, 10)


def write_mask(path: Path, series: Series) -> None:
    write_segmentation(
        np.ones(SHAPE, np.uint8),
        series,
        [Segment("organ", (1,))],
        path,
        maker=Maker("made", "1", "abc"),
    )


def masked(series: Series, *files: Path) -> MaskedStudies:
    case = Case("case", series.patient_id, series.study_uid, {"CT": series})
    skipped = [{"file": str(file), "code": "not-an-image"} for file in files]
    return with_masks([case], skipped, "CT", named=True)


def test_a_mask_of_another_series_of_the_study_is_said(tmp_path: Path) -> None:
    """From a fault: a study whose mask was drawn on another series lost it without a word."""
    for name in ("1", "2"):
        build.build_series(tmp_path / name, SHAPE, study_uid="1.2.3", series_uid=f"1.2.3.{name}")
    one, two = scan([tmp_path]).series
    path = tmp_path / "seg.dcm"
    write_mask(path, two)
    found = masked(one, path)
    assert MASK not in found.cases[0].references
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("mask-of-other-series", "warning")
    assert f"seg.dcm was drawn on series {two.uid}" in finding.message
    assert masked(two, path).cases[0].references == {MASK: str(path)}
    # Of another patient's study nothing is said.
    build.build_series(tmp_path / "3", SHAPE)
    (other,) = scan([tmp_path / "3"]).series
    assert not masked(other, path).findings


def test_a_mask_of_another_phase_of_the_series_is_left_out(tmp_path: Path) -> None:
    """From a fault: both phases have one UID, and the mask of one was put onto the other."""
    for number in (1, 2):
        build.build_series(
            tmp_path / str(number),
            SHAPE,
            study_uid="1.2.3",
            series_uid="1.2.3.1",
            tags={"AcquisitionNumber": number},
        )
    first, second = scan([tmp_path]).series
    assert first.uid == second.uid
    masks = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    for path, series in zip(masks, (second, first), strict=True):
        write_mask(path, series)
    found = masked(first, masks[0])
    assert MASK not in found.cases[0].references
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("mask-of-other-series", "warning")
    assert f"other images of series {first.uid}" in finding.message
    # Beside it, the one that was drawn on the chosen phase is taken.
    assert masked(first, *masks).cases[0].references == {MASK: str(masks[1])}


def test_a_mask_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    build.build_series(tmp_path / "ct", SHAPE)
    (series,) = scan([tmp_path]).series
    path = tmp_path / "seg.dcm"
    write_mask(path, series)
    data = pydicom.dcmread(path)
    del data.SegmentSequence[0].SegmentLabel
    data.save_as(path)
    found = masked(series, path)
    assert not found.cases[0].references
    assert [finding.code for finding in found.findings] == ["broken-header"]
