"""Hazards of real folders: what is refused or skipped, multi-frame objects, broken files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_builder import (
    AXIAL,
    BuiltSeries,
    build_enhanced,
    build_series,
    ct_dataset,
    oblique,
    ramp,
    stack_positions,
    write_dataset,
)
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from medtool.core.errors import InputError
from medtool.dicom import duplicates, image, multiframe, scan
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


# --- 13, 14, 15, 18: what else lies in a folder ---


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SeriesDescription": "Topogram 0.6 T20s"}, "localizer"),
        ({"SeriesDescription": "SURVIEW"}, "localizer"),
        ({"SeriesDescription": "LOCALIZER", "ImageType": ["ORIGINAL", "PRIMARY"]}, "localizer"),
        (
            {"SeriesDescription": "Localiser", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
            "localizer",
        ),
        ({"SeriesDescription": "SCOUT LOCALIZER"}, "localizer"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary-capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "secondary-image"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen-save"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, "reformat"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MIP"]}, "reformat"),
        ({"ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]}, "not-hu"),
        ({"RescaleType": "Z_EFF"}, "not-hu"),
        ({"SeriesDescription": "Dose Report"}, "dose-report"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "OTHER", "DOSE_INFO"]}, "dose-report"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path: Path, tags: dict[str, Any], code: str) -> None:
    build(tmp_path, tags=tags)
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert code in codes(series)


def test_derived_axial_ct_is_kept_with_a_warning(tmp_path: Path) -> None:
    build(tmp_path, tags={"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]})
    series = only(scan([tmp_path]))
    assert series.verdict == "accepted"
    assert codes(series) == {"derived"}


def test_pet_is_kept_whatever_its_image_type(tmp_path: Path) -> None:
    build(
        tmp_path,
        tags={
            "Modality": "PT",
            "SOPClassUID": PositronEmissionTomographyImageStorage,
            "ImageType": ["DERIVED", "SECONDARY"],
        },
    )
    series = only(scan([tmp_path]))
    assert (series.verdict, series.modality) == ("accepted", "PT")


def test_scout_inside_the_series_does_not_spoil_it(tmp_path: Path) -> None:
    build(tmp_path, series_uid="1.2.3", study_uid="1.2")
    build_series(
        tmp_path,
        (1, 9, 9),
        orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        series_uid="1.2.3",
        study_uid="1.2",
        name="scout{}".format,
        tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    )
    by_verdict = {series.verdict: series for series in scan([tmp_path]).series}
    assert by_verdict["accepted"].files == 12
    assert {"localizer", "too-few-slices"} <= codes(by_verdict["refused"])


@pytest.mark.parametrize("word", ["SRS LOCALIZER 1MM", "Localiser 1.0"])
def test_a_ct_with_a_stereotactic_frame_is_no_projection(tmp_path: Path, word: str) -> None:
    """From a fault: radiosurgery is planned on an axial CT that is called a localizer."""
    build(tmp_path, tags={"SeriesDescription": word})
    assert only(scan([tmp_path])).verdict == "accepted"


@pytest.mark.parametrize(
    "other",
    [
        {"stored": (12, 8, 8)},
        {"spacing_mm": (0.5, 0.5)},
        {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
        {"tags": {"FrameOfReferenceUID": "1.9"}},
    ],
)
def test_other_size_spacing_orientation_or_frame_of_reference_is_another_stack(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    same: dict[str, Any] = {"series_uid": "1.2.3", "study_uid": "1.2"}
    build_series(tmp_path, (12, 6, 5), name="a{}".format, **same)
    build_series(tmp_path, **{"stored": (12, 6, 5), "name": "b{}".format, **same, **other})
    intake = scan([tmp_path])
    assert [(s.verdict, s.files) for s in intake.series] == [("accepted", 12)] * 2


def test_mixed_pile_of_patients_and_series(tmp_path: Path) -> None:
    for patient in ("007", "8"):
        for number in (1, 2):
            build(
                tmp_path,
                patient_id=patient,
                name=f"IM{patient}{number}{{}}".format,
                tags={"SeriesNumber": number},
            )
    intake = scan([tmp_path])
    assert [series.patient_id for series in intake.series] == ["007", "007", "8", "8"]
    assert all(codes(series) == {"several-patients"} for series in intake.series)
    assert all(series.verdict == "accepted" for series in intake.series)


def test_one_series_uid_under_two_patients_is_two_series(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        build(tmp_path / patient, patient_id=patient, series_uid="1.2.3", study_uid="1.2")
    assert sorted(s.patient_id for s in scan([tmp_path]).series) == ["a", "b"]


def test_empty_and_missing_uids(tmp_path: Path) -> None:
    empty = {"StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPInstanceUID": None}
    build(tmp_path / "a", tags=empty)
    build(tmp_path / "b", tags=empty)
    intake = scan([tmp_path])
    assert [(s.verdict, s.files) for s in intake.series] == [("accepted", 12)] * 2
    assert all(codes(series) == {"no-uid"} for series in intake.series)


# --- 17: multi-frame ---


@pytest.mark.parametrize("legacy_converted", [False, True])
@pytest.mark.parametrize("shared_geometry", [False, True])
def test_enhanced_frames_in_any_order(
    tmp_path: Path, legacy_converted: bool, shared_geometry: bool
) -> None:
    order = np.random.default_rng(5).permutation(12)
    places = stack_positions([2.0 * k for k in range(12)], oblique(4), (1.0, 2.0, 3.0))
    build_enhanced(
        tmp_path / "one",
        (12, 6, 5),
        orientation=oblique(4),
        positions_mm=[places[k] for k in order],
        rescale=lambda k: (1.0, -1000.0 - k),
        legacy_converted=legacy_converted,
        shared_geometry=shared_geometry,
    )
    series = only(scan([tmp_path]))
    assert (series.verdict, series.files) == ("accepted", 1)
    assert [plane.frame for plane in series.planes] == list(np.argsort(order))
    assert positions(series) == pytest.approx(np.asarray(places))
    assert [plane.intercept for plane in series.planes] == [-1000.0 - k for k in np.argsort(order)]
    assert series.geometry is not None
    assert series.geometry.slice_spacing_mm == pytest.approx(2.0)


def test_enhanced_stacks_and_phases_are_told_apart(tmp_path: Path) -> None:
    places = stack_positions([2.0 * k for k in range(6)])
    build_enhanced(
        tmp_path / "one",
        ramp((24, 6, 5)),
        positions_mm=places * 4,
        frame_content=lambda k: {
            "StackID": str(1 + k // 12),
            "TemporalPositionIndex": 1 + k // 6 % 2,
        },
    )
    intake = scan([tmp_path])
    assert [len(series.planes) for series in intake.series] == [6] * 4
    assert all(
        [p.frame for p in s.planes] == list(range(s.planes[0].frame, s.planes[0].frame + 6))
        for s in intake.series
    )


def test_enhanced_without_functional_groups_is_refused(tmp_path: Path) -> None:
    build_enhanced(
        tmp_path / "one",
        tags={"PerFrameFunctionalGroupsSequence": None, "SharedFunctionalGroupsSequence": None},
    )
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert "no-position" in codes(series)
    assert series.facts["sop_class"] == EnhancedCTImageStorage


@pytest.mark.parametrize("count", [100_000_000, 2**31 - 1, -5])
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_a_number_of_frames_that_cannot_be_is_refused_unmade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, enhanced: bool, syntax: str
) -> None:
    """From faults: each claimed frame had its record; of a negative number nothing was said."""
    made = []
    monkeypatch.setattr(image, "_image", lambda *a, whole=image._image: made.append(1) or whole(*a))
    monkeypatch.setattr(image, "range", lambda n: range(min(n, 99)), raising=False)
    monkeypatch.setattr(multiframe, "range", lambda n: range(min(n, 99)), raising=False)
    if enhanced:
        build_enhanced(tmp_path / "one", tags={"NumberOfFrames": count}, transfer_syntax=syntax)
    else:
        build_series(tmp_path, (1, 6, 5), tags={"NumberOfFrames": count}, transfer_syntax=syntax)
    intake = scan([tmp_path])
    series = only(intake)
    assert (series.verdict, len(made)) == ("refused", 1)
    wanted = "too-large" if count > 0 else "invalid-pixel-format"
    (said,) = (f.message for f in series.findings if f.code == wanted)
    assert f"says that it has {count} frames" in said
    assert series.files == 1


def test_pixels_of_a_place_are_read_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fault: each frame was compared with each before it, for a number that was too high
    for hours."""
    read = []
    monkeypatch.setattr(
        duplicates,
        "real_values",
        lambda i, whole=duplicates.real_values: read.append(i) or whole(i),
    )
    stored = np.arange(50, dtype=np.int16)[:, None, None] * np.ones((64, 64), np.int16)
    data = {"NumberOfFrames": 50}
    build_series(tmp_path / "one", stored[None, 0], tags=data, transfer_syntax=JPEG2000Lossless)
    build_series(
        tmp_path / "copies", np.concatenate([stored[:3]] * 2), positions_mm=[(0, 0, 0)] * 6
    )
    one = only(scan([tmp_path / "one"]))
    # They cannot be told apart in the file, and what cannot be read is no copy.
    assert (len(read), len(one.planes)) == (50, 50)
    assert "duplicate-dropped" not in codes(one)
    copies = scan([tmp_path / "copies"]).series
    assert len(read) == 50 + 6
    # Told apart by their numbers, each without its copy.
    assert [len(series.planes) for series in copies] == [1, 1, 1]


@pytest.mark.parametrize("claimed", ["0", "1", ""])
def test_no_number_of_frames_is_one_frame(tmp_path: Path, claimed: str) -> None:
    build(tmp_path, tags={"NumberOfFrames": claimed})
    assert only(scan([tmp_path])).verdict == "accepted"


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless])
def test_frames_that_compress_to_almost_nothing_are_believed(tmp_path: Path, syntax: str) -> None:
    blank = np.zeros((200, 64, 64), np.int16)
    build_enhanced(tmp_path / "one", blank, transfer_syntax=syntax)
    series = only(scan([tmp_path]))
    assert (series.verdict, len(series.planes)) == ("accepted", 200)


def test_a_multi_frame_file_that_was_cut_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "one"
    build_enhanced(path, (60, 32, 32))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 45 * 32 * 32 * 2])
    assert codes(only(scan([tmp_path]))) == {"truncated-pixels"}


# --- 19, 21: broken files ---


@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_missing_geometry_is_refused_and_counted(tmp_path: Path, keyword: str) -> None:
    build(tmp_path, slice_tags=lambda k: {keyword: None} if k == 11 else {})
    by_verdict = {series.verdict: series for series in scan([tmp_path]).series}
    assert "no-position" in codes(by_verdict["refused"])
    assert keyword in by_verdict["refused"].findings[0].message
    assert "unplaced-images" in codes(by_verdict["accepted"])


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_geometry_that_is_no_number_is_refused(tmp_path: Path, keyword: str) -> None:
    files = build(tmp_path, tags={keyword: ["9.25"] * (3 if "Position" in keyword else 6)}).files
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"9.25\\", b" NaN\\"))
    intake = scan([tmp_path])
    assert {series.verdict for series in intake.series} == {"refused"}
    assert "invalid-geometry" in codes(intake.series[0])


@pytest.mark.parametrize("lost", [1, 20, 59])
def test_truncated_native_pixels(tmp_path: Path, lost: int) -> None:
    path = build(tmp_path).files[4]
    path.write_bytes(path.read_bytes()[:-lost])
    series = only(scan([tmp_path]))
    assert series.verdict == "refused"
    assert codes(series) == {"truncated-pixels"}
    assert path.name in series.findings[0].message


def test_truncated_behind_a_long_private_header(tmp_path: Path) -> None:
    data = ct_dataset(ramp((6, 5)), "p", "1.2", "1.3")
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], list(AXIAL)
    data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [1, 1], 1, 0
    block = data.private_block(0x0043, "TEST", create=True)
    block.add_new(1, "OB", b"\0" * 20_000)
    write_dataset(tmp_path / "one", data)
    raw = (tmp_path / "one").read_bytes()
    assert "truncated-pixels" not in codes(only(scan([tmp_path])))
    (tmp_path / "one").write_bytes(raw[:-1])
    assert "truncated-pixels" in codes(only(scan([tmp_path])))


def test_truncated_compressed_pixels(tmp_path: Path) -> None:
    path = build(tmp_path, transfer_syntax=JPEG2000Lossless).files[4]
    path.write_bytes(path.read_bytes()[:-40])
    assert codes(only(scan([tmp_path]))) == {"truncated-pixels"}


def test_pixel_data_shorter_than_rows_and_columns(tmp_path: Path) -> None:
    build(tmp_path, tags={"Rows": 60})
    assert codes(only(scan([tmp_path]))) == {"truncated-pixels"}


def test_a_size_that_no_file_can_hold_is_refused_before_anything_is_allocated(
    tmp_path: Path,
) -> None:
    build(tmp_path, tags={"Rows": 65535, "Columns": 65535})
    assert "invalid-pixel-format" in codes(only(scan([tmp_path])))


def test_header_without_pixels_is_skipped(tmp_path: Path) -> None:
    for path in build(tmp_path).files[:1]:
        path.write_bytes(path.read_bytes()[: -(2 * 30 + 12)])
    intake = scan([tmp_path])
    assert [(one.code, one.file.name) for one in intake.skipped] == [("no-pixel-data", "0000.dcm")]


def test_garbled_file_is_skipped_and_leaves_a_gap(tmp_path: Path) -> None:
    path = build(tmp_path).files[4]
    path.write_bytes(path.read_bytes()[:140] + b"\xee" * 900)
    intake = scan([tmp_path])
    assert [one.code for one in intake.skipped] == ["broken-header"]
    assert codes(only(intake)) == {"missing-slices"}


def test_colour_is_refused(tmp_path: Path) -> None:
    build(tmp_path, tags={"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"})
    assert "colour-image" in codes(only(scan([tmp_path])))


# JPIP referenced, JPEG 2000 part 2, a retired JPEG process: none has a decoder here.
@pytest.mark.parametrize("number", [94, 92, 52])
def test_syntaxes_that_cannot_be_read_are_refused_by_their_headers(
    tmp_path: Path, number: int
) -> None:
    syntax = f"1.2.840.10008.1.2.4.{number}".encode()
    for path in build(tmp_path).files:
        raw = path.read_bytes()
        # The syntax of the file meta, written over in its own length.
        start = raw.index(b"1.2.840.10008.1.2.1\0")
        path.write_bytes(
            raw[: start - 2] + len(syntax).to_bytes(2, "little") + syntax + raw[start + 20 :]
        )
    assert "unsupported-syntax" in codes(only(scan([tmp_path])))


# --- encodings, other files ---


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless])
def test_syntaxes_give_the_same_geometry(tmp_path: Path, syntax: str) -> None:
    build(tmp_path / "plain", series_uid="1.1")
    build(tmp_path / "other", series_uid="1.2", transfer_syntax=syntax)
    first, second = scan([tmp_path]).series
    assert first.geometry == second.geometry
    assert second.verdict == "accepted"


def test_names_without_extension_and_other_files(tmp_path: Path) -> None:
    build(tmp_path, name="I{}0".format)
    (tmp_path / "notes.txt").write_text("words\n" * 99)
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + b"\0" * 200)
    (tmp_path / "empty").touch()
    report = ct_dataset(ramp((4, 4)), "p", "1", "2")
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.67", "SR"
    del report.PixelData
    write_dataset(tmp_path / "dose", report)
    intake = scan([tmp_path])
    assert only(intake).files == 12
    assert {one.file.name: one.code for one in intake.skipped} == {
        "notes.txt": "not-dicom",
        ".DS_Store": "not-dicom",
        "empty": "empty-file",
        "dose": "not-an-image",
    }
    assert all(one.why for one in intake.skipped)


def test_encrypted_attributes(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.EncryptedContentTransferSyntaxUID = "1.2.840.10008.1.2.1"
    item.EncryptedContent = b"\1\2\3\4"
    build(tmp_path / "readable", tags={"EncryptedAttributesSequence": Sequence([item])})
    hidden = ct_dataset(ramp((4, 4)), "p", "1", "2")
    hidden.EncryptedAttributesSequence = Sequence([item])
    del hidden.PixelData
    write_dataset(tmp_path / "hidden.dcm", hidden)
    intake = scan([tmp_path])
    assert codes(only(intake)) == {"encrypted-attributes"}
    assert [one.code for one in intake.skipped] == ["encrypted"]


def test_own_runs_and_caches_are_no_data(tmp_path: Path) -> None:
    build(tmp_path / "CTs")
    build(tmp_path / ".medtool" / "cache")
    run = build(tmp_path / "runs" / "task" / "one").folder
    (run / "run.json").write_text('{"medtool": "0.1.0"}')
    build(tmp_path / ".trash")
    intake = scan([tmp_path])
    assert only(intake).folder.name == "CTs"
    assert sorted(one.code for one in intake.skipped) == ["hidden-folder", "own-output"]


def test_links_in_circles_end(tmp_path: Path) -> None:
    build(tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert only(scan([tmp_path])).files == 12


def test_files_given_one_by_one_and_twice(tmp_path: Path) -> None:
    built = build(tmp_path)
    series = only(scan([*built.files, *built.files[:3]]))
    assert (series.files, series.verdict) == (12, "accepted")


def test_empty_folder_gives_an_empty_intake(tmp_path: Path) -> None:
    assert scan([tmp_path]) == Intake((), ())


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        scan([tmp_path / "nothing"])


def test_worker_processes_give_the_same_intake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.dicom import intake

    build(tmp_path, shuffle=1)
    build_enhanced(tmp_path / "enhanced.dcm")
    (tmp_path / "notes.txt").write_text("words")
    alone = scan([tmp_path])
    monkeypatch.setattr(intake, "FEWEST_FILES_A_WORKER", 4)
    monkeypatch.setattr(intake, "CHUNK_FILES", 3)
    assert scan([tmp_path], workers=2) == alone


def test_facts_hold_no_name_and_no_birth_date(tmp_path: Path) -> None:
    build(tmp_path, tags={"PatientName": "Secret^Name", "PatientBirthDate": "19500607"})
    series = only(scan([tmp_path]))
    assert "Secret" not in repr(series)
    assert "19500607" not in repr(series)
    assert series.facts["kernel"] == "STANDARD"
    assert series.facts["manufacturer"] == "Test Works"
    assert series.facts["synthetic"] is False


def test_axial_constant_of_the_builder_is_the_standard_one() -> None:
    assert AXIAL == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def test_a_file_or_folder_named_like_our_record_hides_nothing(tmp_path):
    build_series(tmp_path / "P1")
    (tmp_path / "P1" / "run.json").write_text('{"scanner": "protocol of somebody else"}')
    (tmp_path / "P1" / "preset.toml").write_text("")
    build_series(tmp_path / "run.json")
    assert [series.verdict for series in scan([tmp_path]).series] == ["accepted"] * 2
