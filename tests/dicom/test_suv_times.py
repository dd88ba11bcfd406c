"""Which moment decay is corrected to, when the injection was, and times as headers write them."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from pet_builder import FACTOR, HALF_LIFE_S, pet_dataset, refusal, said, scale

from medtool.dicom.suv_header import date_time, moment, time_of_day
from medtool.dicom.suv_times import mean_activity_time_s

GE = "GE MEDICAL SYSTEMS"


def test_time_of_mean_activity() -> None:
    assert mean_activity_time_s(120, HALF_LIFE_S) == pytest.approx(59.936855, abs=1e-6)
    assert mean_activity_time_s(600, HALF_LIFE_S) == pytest.approx(298.421417, abs=1e-6)
    assert mean_activity_time_s(0, HALF_LIFE_S) == 0


# --- which moment -------------------------------------------------------------------------------
def test_series_time_after_the_scan_is_not_believed() -> None:
    # Two beds of 10 min: FrameReferenceTime counts to the time of mean activity, 298.42 s.
    beds = [
        pet_dataset(
            {
                "SeriesTime": "113000",
                "AcquisitionTime": acquired,
                "FrameReferenceTime": str(offset_ms),
                "ActualFrameDuration": "600000",
            }
        )
        for acquired, offset_ms in (("100000", 298_421.4), ("101000", 898_421.4))
    ]
    found = scale(*beds)
    assert found.factors == pytest.approx([FACTOR] * 2, rel=1e-6)
    assert "90.0 min after the first acquisition" in said(found)["suv-reference-time"]
    # The same two, of which one does not say: the first acquisition is all there is.
    del beds[1].FrameReferenceTime
    found = scale(*beds)
    assert found.factors == pytest.approx([FACTOR] * 2, rel=1e-6)
    assert "the start of the first acquisition" in said(found)["suv-reference-time"]


def test_ge_counts_offsets_to_the_start_of_a_frame() -> None:
    beds = [
        pet_dataset(
            {
                "Manufacturer": GE,
                "SeriesTime": "113000",
                "AcquisitionTime": acquired,
                "FrameReferenceTime": offset_ms,
            }
        )
        for acquired, offset_ms in (("100000", "0"), ("100400", "240000"))
    ]
    assert scale(*beds).factors == pytest.approx([FACTOR] * 2, rel=1e-7)


def test_series_time_stands_where_the_frames_say_otherwise_which_is_said() -> None:
    found = scale(pet_dataset({"FrameReferenceTime": "659936.86"}))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "would change SUV by 6.5 %" in said(found)["suv-reference-time"]


@pytest.mark.parametrize(
    ("maker", "group", "creator"),
    [(GE, 0x0009, "GEMS_PETD_01"), ("SIEMENS", 0x0071, "SIEMENS MED PT")],
)
@pytest.mark.parametrize("block", [0x10, 0x11])
def test_the_vendors_own_moment(maker: str, group: int, creator: str, block: int) -> None:
    element = 0x0D if group == 0x0009 else 0x22
    private = [
        (group, block, "LO", creator),
        (group, block << 8 | element, "UN", b"20200102100000.00"),
    ]
    changes = {"Manufacturer": maker, "SeriesTime": "103000", "AcquisitionTime": "103000"}
    found = scale(pet_dataset(changes, private=private))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "SeriesTime is 30.0 min off" in said(found)["suv-reference-time"]
    # Another maker's block at the same place is none of theirs.
    private[0] = (group, block, "LO", "SOMEBODY ELSE")
    other = scale(pet_dataset(changes, private=private)).factors[0]
    assert other == pytest.approx(FACTOR * 2 ** (1800 / HALF_LIFE_S), rel=1e-7)


@pytest.mark.parametrize("stated", ["20210102100000", "20200102104000"])
def test_a_vendors_moment_that_is_none_of_this_scan(stated: str) -> None:
    """An anonymiser moved the dates that it knows, and left a private one."""
    private = [(0x0009, 0x0010, "LO", "GEMS_PETD_01"), (0x0009, 0x100D, "DT", stated)]
    found = scale(pet_dataset({"Manufacturer": GE, "FrameReferenceTime": "0"}, private=private))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "lies outside the scan" in said(found)["suv-reference-time"]


def test_without_series_time_the_frames_say_and_without_any_time_nothing_does() -> None:
    found = scale(pet_dataset({"SeriesTime": None}))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-6),)
    assert "SeriesTime is missing" in said(found)["suv-reference-time"]
    assert "no acquisition times" in str(said(scale(pet_dataset({"AcquisitionTime": None}))))
    error = refusal(pet_dataset({"SeriesTime": None, "AcquisitionTime": None}))
    assert error.code == "suv-times"


# --- injection ----------------------------------------------------------------------------------
def test_midnight_between_injection_and_scan() -> None:
    changes = {
        name: value
        for what in ("Series", "Acquisition")
        for name, value in ((f"{what}Date", "20200103"), (f"{what}Time", "003000"))
    }
    clock = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "233000"}
    found = scale(pet_dataset(changes, clock))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "the day before" in said(found)["suv-injection-day"]
    # With its date nothing has to be put right.
    dated = clock | {"RadiopharmaceuticalStartDateTime": "20200102233000"}
    assert said(scale(pet_dataset(changes, dated))) == {}


def test_a_date_that_was_shifted_alone_is_put_right() -> None:
    found = scale(pet_dataset(drug={"RadiopharmaceuticalStartDateTime": "19990101090000"}))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "does not fit the scan" in said(found)["suv-injection-day"]


def test_a_time_without_a_date_is_said() -> None:
    found = scale(pet_dataset(drug={"RadiopharmaceuticalStartDateTime": None}))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert said(found) == {"suv-assumed": "the injection has no date: the day of the scan is taken"}


def test_two_times_of_injection_that_differ() -> None:
    found = scale(pet_dataset(drug={"RadiopharmaceuticalStartTime": "083000"}))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "differs by 30.0 min" in said(found)["suv-assumed"]


@pytest.mark.parametrize(
    ("offset", "stated"),
    [("+0100", "20200102080000+0000"), ("-0500", "20200102150000+0100"), ("+0100", None)],
)
def test_an_injection_in_another_time_zone(offset: str, stated: str | None) -> None:
    """From a fault: the offset was left out, and an hour's uptake counted for two, unsaid."""
    drug = {"RadiopharmaceuticalStartDateTime": stated or "20200102090000+0100"}
    found = scale(pet_dataset({"TimezoneOffsetFromUTC": offset}, drug))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert said(found) == {}


def test_an_offset_that_nothing_can_be_compared_with_is_said() -> None:
    """From a fault: an hour more or less was taken in silence."""
    stated = {
        "RadiopharmaceuticalStartDateTime": "20200102090000+0000",
        "RadiopharmaceuticalStartTime": None,
    }
    found = scale(pet_dataset(drug=stated))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "no TimezoneOffsetFromUTC to compare" in said(found)["suv-assumed"]
    # The time without an offset is by the clock of the scanner.
    assert said(scale(pet_dataset(drug=stated | {"RadiopharmaceuticalStartTime": "090000"}))) == {}


def test_a_vendors_moment_in_another_time_zone() -> None:
    """From a fault: as of the injection, the offset was left out."""
    private = [(0x0009, 0x10, "LO", "GEMS_PETD_01"), (0x0009, 0x100D, "DT", "20200102080000-0100")]
    changes = {"Manufacturer": GE, "FrameReferenceTime": "0", "TimezoneOffsetFromUTC": "+0100"}
    found = scale(pet_dataset(changes, private=private))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert said(found) == {}


def test_ge_keeps_the_time_of_injection_in_an_element_of_its_own() -> None:
    nothing = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None}
    private = [
        (0x0009, 0x0010, "LO", "GEMS_PETD_01"),
        (0x0009, 0x103B, "DT", "20200102090000.00"),
    ]
    found = scale(pet_dataset({"Manufacturer": GE}, nothing, private))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert refusal(pet_dataset(drug=nothing, private=private)).code == "suv-times"


@pytest.mark.parametrize("missing", ["SeriesDate", "AcquisitionDate"])
def test_a_date_that_another_one_stands_for_is_said(missing: str) -> None:
    found = scale(pet_dataset({"StudyDate": "20200102", missing: None}))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert said(found) == {"suv-assumed": f"{missing} missing: another date stands for it"}


def test_a_dynamic_scan_begins_before_the_injection() -> None:
    late = {
        "RadiopharmaceuticalStartDateTime": "20200102100200",
        "RadiopharmaceuticalStartTime": None,
    }
    found = scale(pet_dataset({"SeriesType": ["DYNAMIC", "IMAGE"]}, late))
    assert found.factors[0] == pytest.approx(70e3 / 370e6 * 2 ** (-120 / HALF_LIFE_S), rel=1e-7)
    assert "2.0 min before the injection" in said(found)["suv-assumed"]
    assert refusal(pet_dataset(drug=late)).code == "suv-times"


def test_long_lived_nuclides_need_a_date_and_have_a_week() -> None:
    zirconium = {"RadionuclideHalfLife": "282240"}
    week = zirconium | {
        "RadiopharmaceuticalStartDateTime": "20191226100000",
        "RadiopharmaceuticalStartTime": None,
    }
    found = scale(pet_dataset(drug=week)).factors[0]
    assert found == pytest.approx(70e3 / 370e6 * 2 ** (7 * 86400 / 282240), rel=1e-9)
    undated = zirconium | {"RadiopharmaceuticalStartDateTime": None}
    assert "date of injection is missing" in refusal(pet_dataset(drug=undated)).met
    month = week | {"RadiopharmaceuticalStartDateTime": "20191126100000"}
    assert "37.0 days before" in refusal(pet_dataset(drug=month)).met


# --- times as they are written ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("101112.5", "10:11:12.500000"),
        ("1011", "10:11:00"),
        ("10", "10:00:00"),
        ("10:11:12", "10:11:12"),
        ("101160", "10:11:59"),
        ("", None),
        ("2511", None),
        ("noon", None),
    ],
)
def test_times_of_day(text: str, expected: str | None) -> None:
    found = time_of_day(text)
    assert (found.isoformat() if found else None) == expected


def test_moments() -> None:
    written = moment("20200102", "1011")
    assert written == moment("2020.01.02", "101100") == date_time("202001021011+0100")
    # Of the offset nothing can be made without the scanner's own, which is said (above).
    assert date_time("20200102101100-0130", timedelta(hours=1)) == moment("20200102", "124100")
    assert date_time("99991231235959-1200", timedelta(hours=1)) is None
    assert moment("20201302", "10") is None
    assert moment("", "10") is None
    assert date_time("20200102") is None


def test_offsets_without_end_are_none() -> None:
    found = scale(pet_dataset({"SeriesTime": None, "FrameReferenceTime": "1e17"}))
    assert math.isfinite(found.factors[0])
    assert "the start of the first acquisition" in said(found)["suv-reference-time"]
