"""Hazards of real folders: order, steps, tilt, rescale, padding, duplicates and phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_builder import (
    BuiltSeries,
    all_orientations,
    build_series,
    oblique,
    ramp,
    stack_positions,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    ImplicitVRLittleEndian,
)

from medtool.dicom import scan
from medtool.dicom.series import Intake, Series


def only(intake: Intake) -> Series:
    assert len(intake.series) == 1, [series.findings for series in intake.series]
    return intake.series[0]


def codes(series: Series) -> set[str]:
    """All codes but the remark that a small test stack is small."""
    return {finding.code for finding in series.findings} - {"few-slices"}


def positions(series: Series) -> np.ndarray[Any, Any]:
    return np.asarray([plane.position_mm for plane in series.planes])


def build(folder: Path, **changes: Any) -> BuiltSeries:
    return build_series(folder, (12, 6, 5), **changes)


# --- 1, 16: order and orientation ---


@pytest.mark.parametrize("orientation", [*all_orientations(), oblique(1), oblique(2)])
def test_order_is_by_position_never_by_name_or_number(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    built = build(tmp_path, orientation=orientation, shuffle=3, spacing_mm=(0.5, 0.75))
    series = only(scan([tmp_path]))
    assert series.verdict == "accepted"
    assert [plane.path for plane in series.planes] == list(built.files)
    assert positions(series) == pytest.approx(np.asarray(built.positions_mm))
    geometry = series.geometry
    assert geometry is not None
    # A landmark in the middle of the volume: from the file's own words, and from the geometry.
    landmark = built.point(5, 3.0, 4.0)
    own = (
        np.asarray(series.planes[0].position_mm)
        + 5 * geometry.slice_spacing_mm * np.asarray(geometry.normal)
        + 3.0 * geometry.row_spacing_mm * np.asarray(geometry.column_direction)
        + 4.0 * geometry.column_spacing_mm * np.asarray(geometry.row_direction)
    )
    assert own == pytest.approx(landmark, abs=0.01)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=st.integers(0, 1000), second=st.integers(0, 1000))
def test_shuffled_names_give_the_same_stack(
    first: int, second: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    results = []
    for seed in (first, second):
        folder = tmp_path_factory.mktemp("shuffled")
        build(folder, shuffle=seed, series_uid="1.2.3", study_uid="1.2", tilt_degrees=15)
        results.append(only(scan([folder])))
    assert results[0].geometry == results[1].geometry
    assert results[0].verdict == results[1].verdict == "repaired"
    assert results[0].key == results[1].key == "1.2.3"


def test_feet_first_needs_no_special_code(tmp_path: Path) -> None:
    build(tmp_path, tags={"PatientPosition": "FFS"})
    series = only(scan([tmp_path]))
    assert series.verdict == "accepted"
    assert series.facts["patient_position"] == "FFS"


# --- 2, 3: steps and tilt ---


def test_a_lost_file_refuses(tmp_path: Path) -> None:
    build(tmp_path).files[5].unlink()
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert codes(series) == {"missing-slices"}


def test_tilt_comes_from_positions_not_from_its_element(tmp_path: Path) -> None:
    build(tmp_path / "straight", tags={"GantryDetectorTilt": "18.5"})
    build(tmp_path / "leaning", tilt_degrees=-12.0, tags={"GantryDetectorTilt": "0"})
    build(
        tmp_path / "resampled",
        tags={"GantryDetectorTilt": "-20", "DerivationDescription": "MEDCOM_RESAMPLED"},
    )
    by_name = {series.folder.name: series for series in scan([tmp_path]).series}
    assert by_name["straight"].verdict == by_name["resampled"].verdict == "accepted"
    assert by_name["leaning"].verdict == "repaired"
    geometry = by_name["leaning"].geometry
    assert geometry is not None
    assert geometry.tilt_degrees == pytest.approx(12.0, abs=1e-4)
    assert geometry.slice_spacing_mm == pytest.approx(2.0)


def test_slice_thickness_and_spacing_elements_are_not_geometry(tmp_path: Path) -> None:
    build(
        tmp_path,
        step_mm=2.0,
        tags={"SliceThickness": "5", "SpacingBetweenSlices": "-7", "SliceLocation": "3"},
    )
    geometry = only(scan([tmp_path])).geometry
    assert geometry is not None
    assert geometry.slice_spacing_mm == pytest.approx(2.0)


# --- 5, 6: padding and rescale ---


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [True, False])
def test_padding_follows_pixel_representation_whatever_its_vr(
    tmp_path: Path, syntax: str, signed: bool
) -> None:
    """-2000 written as US (63536) is -2000 in signed pixels; unsigned pixels keep 63536."""

    def unsigned_padding(_: int) -> dict[str, Any]:
        from pydicom.dataelem import DataElement

        return {"PixelPaddingValue": DataElement(0x00280120, "US", 63536)}

    stored = ramp((4, 6, 5)).astype(np.int16 if signed else np.uint16)
    build_series(tmp_path, stored, transfer_syntax=syntax, slice_tags=unsigned_padding)
    plane = only(scan([tmp_path])).planes[0]
    expected = -2000 if signed else 63536
    assert (plane.padding_low, plane.padding_high) == (expected, expected)


def test_padding_range_in_either_order(tmp_path: Path) -> None:
    build(tmp_path, tags={"PixelPaddingValue": -1000, "PixelPaddingRangeLimit": -2000})
    plane = only(scan([tmp_path])).planes[0]
    assert (plane.padding_low, plane.padding_high) == (-2000, -1000)


def test_rescale_is_kept_for_every_slice(tmp_path: Path) -> None:
    build(tmp_path, slice_tags=lambda k: {"RescaleIntercept": str(-1024 if k % 2 else 0)})
    series = only(scan([tmp_path]))
    assert [plane.intercept for plane in series.planes] == [0.0, -1024.0] * 6


@pytest.mark.parametrize("slope", ["NaN", "0", "inf"])
def test_rescale_that_gives_no_numbers_refuses(tmp_path: Path, slope: str) -> None:
    files = build(tmp_path, tags={"RescaleSlope": "9.75310"}).files
    width = len(b"9.75310 ")
    raw = files[3].read_bytes().replace(b"9.75310 ", slope.ljust(width).encode())
    files[3].write_bytes(raw)
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert codes(series) == {"invalid-rescale"}
    assert "1 of 12" in series.findings[0].message


def test_ct_without_rescale_is_refused(tmp_path: Path) -> None:
    build(tmp_path, tags={"RescaleSlope": None, "RescaleIntercept": None})
    assert codes(only(scan([tmp_path]))) == {"no-rescale"}


# --- 10, 11: duplicates and phases ---


def test_identical_copies_are_dropped_and_said(tmp_path: Path) -> None:
    built = build(tmp_path / "a")
    for path in built.files[:3]:
        (tmp_path / "a" / f"copy of {path.name}").write_bytes(path.read_bytes())
    series = only(scan([tmp_path]))
    assert series.verdict == "repaired"
    assert codes(series) == {"duplicate-dropped"}
    assert len(series.planes) == 12
    assert series.files == 15


def test_copies_of_a_whole_folder_are_dropped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path / name, series_uid="1.2.3", study_uid="1.2")
    series = only(scan([tmp_path]))
    assert codes(series) == {"duplicate-dropped"}
    assert len(series.planes) == 12


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("TriggerTime", ("0", "40")),
        ("EchoTime", ("2.0", "4.0")),
        ("ConvolutionKernel", ("STANDARD", "BONE")),
        ("ContrastBolusAgent", ("", "iodine")),
    ],
)
def test_phases_at_the_same_positions_are_split(
    tmp_path: Path, keyword: str, values: tuple[Any, Any]
) -> None:
    for k, value in enumerate(values):
        build_series(
            tmp_path,
            ramp((12, 6, 5)) + k,
            series_uid="1.2.3",
            study_uid="1.2",
            name=f"{k}_{{}}".format,
            tags={keyword: value},
        )
    intake = scan([tmp_path])
    assert [series.verdict for series in intake.series] == ["accepted", "accepted"]
    assert {series.key for series in intake.series} == {"1.2.3#1", "1.2.3#2"}
    for series in intake.series:
        assert len(series.planes) == 12
        assert len({plane.path.name[0] for plane in series.planes}) == 1


def test_different_images_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    for k in range(2):
        build_series(
            tmp_path,
            ramp((12, 6, 5)) + k,
            series_uid="1.2.3",
            study_uid="1.2",
            name=f"{k}_{{}}".format,
        )
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert codes(series) == {"duplicate-positions"}


def test_blocks_of_instance_numbers_are_the_last_resort(tmp_path: Path) -> None:
    for k in range(2):
        build_series(
            tmp_path,
            ramp((12, 6, 5)) + k,
            series_uid="1.2.3",
            study_uid="1.2",
            name=f"{k}_{{}}".format,
            slice_tags=lambda z, k=k: {"InstanceNumber": 12 * k + z + 1},
        )
    intake = scan([tmp_path])
    assert [codes(series) for series in intake.series] == [{"split-by-phase"}] * 2
    assert all(len({p.path.name[0] for p in s.planes}) == 1 for s in intake.series)


def test_one_slice_twice_with_other_pixels_is_refused(tmp_path: Path) -> None:
    build_series(tmp_path, (12, 6, 5), series_uid="1.2.3", study_uid="1.2")
    build_series(
        tmp_path,
        ramp((1, 6, 5)) + 7,
        origin_mm=(-10.0, -20.0, 40.0),
        series_uid="1.2.3",
        study_uid="1.2",
        name="other{}".format,
    )
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert codes(series) == {"duplicate-positions"}


def test_acquisition_of_each_slice_and_exposure_do_not_split(tmp_path: Path) -> None:
    """12: exposure is no reason to split; sequential scanners number every slice."""
    build(
        tmp_path,
        slice_tags=lambda k: {"AcquisitionNumber": k + 1, "Exposure": str(100 + k)},
    )
    assert only(scan([tmp_path])).verdict == "accepted"


def test_a_head_in_two_thicknesses_is_one_stack(tmp_path: Path) -> None:
    heights = [2.5 * k for k in range(8)] + [17.5 + 5.0 * k for k in range(1, 9)]
    build_series(
        tmp_path,
        (16, 6, 5),
        positions_mm=stack_positions(heights),
        slice_tags=lambda k: {
            "SliceThickness": "2.5" if k < 8 else "5",
            "AcquisitionNumber": 1 if k < 8 else 2,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"] + (["ADD"] if k < 8 else []),
        },
    )
    series = only(scan([tmp_path]))
    assert series.verdict == "repaired"
    assert codes(series) == {"uneven-spacing"}
    assert series.geometry is not None
    assert series.geometry.slice_spacing_mm == pytest.approx(2.5)


def test_two_thicknesses_over_the_same_stretch_are_two_stacks(tmp_path: Path) -> None:
    for name, step_mm in (("thin", 1.0), ("thick", 5.0)):
        build_series(
            tmp_path,
            (round(50 / step_mm), 6, 5),
            step_mm=step_mm,
            origin_mm=(0.0, 0.0, 0.5),
            series_uid="1.2.3",
            study_uid="1.2",
            name=(name + "{}").format,
        )
    intake = scan([tmp_path])
    assert sorted(len(series.planes) for series in intake.series) == [10, 50]
    assert all(series.verdict == "accepted" for series in intake.series)


# --- 8, 22: lookup tables, anonymisers ---


def test_modality_lut_is_seen_and_replaces_rescale(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.ModalityLUTType = "HU"
    build(
        tmp_path,
        tags={
            "ModalityLUTSequence": Sequence([table]),
            "RescaleSlope": None,
            "RescaleIntercept": None,
        },
    )
    series = only(scan([tmp_path]))
    assert series.verdict == "accepted"
    assert all(plane.has_modality_lut for plane in series.planes)


def test_elements_rewritten_as_unknown_by_anonymisers(tmp_path: Path) -> None:
    """Values are read whatever value representation an anonymiser left behind (UN)."""
    built = build(tmp_path)
    expected = only(scan([tmp_path]))
    for path in built.files:
        raw = path.read_bytes()
        for tag, representation in ((b"\x20\x00\x32\x00", b"DS"), (b"\x28\x00\x52\x10", b"DS")):
            start = raw.index(tag + representation)
            length = raw[start + 6 : start + 8]
            raw = raw[:start] + tag + b"UN\0\0" + length + b"\0\0" + raw[start + 8 :]
        path.write_bytes(raw)
    series = only(scan([tmp_path]))
    assert series.geometry == expected.geometry
    assert [plane.intercept for plane in series.planes] == [-1024.0] * 12


def test_position_counts_whatever_slice_location_says(tmp_path: Path) -> None:
    build(tmp_path, shuffle=2, slice_tags=lambda k: {"SliceLocation": str(1000 - 7 * (k % 5))})
    expected = [(-10.0, -20.0, 30.0 + 2.0 * k) for k in range(12)]
    assert positions(only(scan([tmp_path]))) == pytest.approx(np.asarray(expected))
