"""Which moment a PET's values are decay-corrected to, and how long after the injection that is.

Headers of different makers mean different things by the same elements. The order is that of the
QIBA pseudo-code (SeriesTime where it is not after the first acquisition), then that of mirp and
z-rad (arXiv 2410.13348): the offset of a frame leads back to the zero of the decay correction.
Whatever could not be taken at its word is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median_low
from typing import NoReturn

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom.suv_header import INJECTION, PetFrame, PetHeader, seconds_between

# Moments between which SUV changes by less than this share are one: 19 s for F-18.
SAME_MOMENT = 2e-3
# A scan begins within so many half-lives of the injection: 3.7 h for F-18. Nuclides that live
# longer are imaged after days (Zr-89 after a week, which is 2.1).
LATEST_HALF_LIVES = 2.0
LATEST_HALF_LIVES_LONG_LIVED = 3.0
# From here on (11.5 h) a day more or less gives another plausible SUV: only true dates count.
LONG_LIVED_S = 41_400.0
# A wrong day is put right only where the time of day then leads to a usual uptake time.
LATEST_REPAIRED_S = 6 * 3600.0
# No scan lasts longer, from the start of the first bed to that of the last.
LONGEST_SCAN_S = 12 * 3600.0
# Dynamic scans begin before the injection.
EARLIEST_DYNAMIC_S = -3600.0
# FrameReferenceTime is rounded, and mean-activity times are computed in several ways.
MEAN_TIME_TOLERANCE_S = 0.5


@dataclass(frozen=True)
class Uptake:
    """Seconds from injection to decay reference, one for each plane, and what is to be said."""

    seconds: tuple[float, ...]
    findings: tuple[Finding, ...] = ()


def mean_activity_time_s(duration_s: float, half_life_s: float) -> float:
    """Seconds from a frame's start to when its activity equals the mean over the frame.

    ln(x / (1 - exp(-x))) / decay constant, with x = decay constant times duration.
    """
    rate = math.log(2.0) / half_life_s
    exponent = rate * duration_s
    if exponent <= 0:
        return 0.0
    return math.log(exponent / -math.expm1(-exponent)) / rate


def uptake(header: PetHeader, half_life_s: float, where: str) -> Uptake:
    """From injection to decay reference, by DecayCorrection START or NONE.

    START has one reference for all planes; NONE means values as measured, each at the time of
    mean activity of its own frame. Raises CaseRefused ``suv-times``.
    """
    if header.decay_correction == "NONE":
        references = [_own_reference(frame, half_life_s, where) for frame in header.frames]
        said: tuple[Finding, ...] = ()
    else:
        start, said = start_reference(header, half_life_s, where)
        references = [start] * len(header.frames)
    injected, injection_said = _injection(header, min(references), half_life_s, where)
    if header.undated:
        names = " and ".join(sorted(header.undated))
        said += (Finding("suv-assumed", f"{names} missing: another date stands for it", "warning"),)
    said += _about_offsets(header)
    seconds = tuple(seconds_between(injected, reference) for reference in references)
    return Uptake(seconds, (*said, *injection_said))


def start_reference(
    header: PetHeader, half_life_s: float, where: str
) -> tuple[datetime, tuple[Finding, ...]]:
    """The moment that all frames are corrected to under DecayCorrection START.

    In this order: the vendor's own element, if it fits the scan; SeriesTime, unless it is after
    the first acquisition (a series that was made afterwards); the zero that the frames' own offsets
    lead back to; the first acquisition. Raises CaseRefused ``suv-times`` where there is no time at
    all.
    """
    acquired = [frame.acquired for frame in header.frames if frame.acquired is not None]
    first = min(acquired, default=None)
    vendor = header.vendor_reference
    if vendor is None:
        return _standard_reference(header, first, half_life_s, where)
    if first is None or _is_at_start(vendor, first, half_life_s):
        return vendor, _about_vendor(header, half_life_s)
    reference, said = _standard_reference(header, first, half_life_s, where)
    text = (
        f"{header.vendor_element} lies outside the scan, perhaps moved by an anonymiser: not used"
    )
    return reference, (_warned(text), *said)


def _is_at_start(vendor: datetime, first: datetime, half_life_s: float) -> bool:
    """Whether a vendor's moment can be the start of a scan whose first acquisition is known."""
    is_before = _share(first, vendor, half_life_s) <= SAME_MOMENT
    return is_before and seconds_between(vendor, first) <= LONGEST_SCAN_S


def _standard_reference(
    header: PetHeader, first: datetime | None, half_life_s: float, where: str
) -> tuple[datetime, tuple[Finding, ...]]:
    """The moment by standard elements; ``first`` is the first acquisition's start."""
    series = header.series_start
    zero = _common_zero(header, half_life_s)
    if series is not None and first is None:
        return series, (_warned("there are no acquisition times to check SeriesTime against"),)
    if first is None:
        _refuse(
            "suv-times",
            "No time tells what the decay correction refers to.",
            where,
            "no usable times",
        )
    if series is not None and _share(first, series, half_life_s) <= SAME_MOMENT:
        return series, _about_series(series, zero, half_life_s)
    why = "SeriesTime is missing or no time"
    if series is not None:
        later_s = seconds_between(first, series)
        why = f"SeriesTime is {shown(later_s)} after the first acquisition: made afterwards"
    if zero is not None:
        text = f"{why}; the frames' own times lead back to {_clock(zero)}, which is taken"
        return zero, (_warned(text),)
    text = f"{why}; the start of the first acquisition, {_clock(first)}, is taken"
    return first, (_warned(text),)


def _own_reference(frame: PetFrame, half_life_s: float, where: str) -> datetime:
    if frame.acquired is None or frame.duration_s is None:
        _refuse(
            "suv-times",
            "Values without decay correction need the times of every frame.",
            where,
            "a frame without AcquisitionTime or ActualFrameDuration",
        )
    return frame.acquired + timedelta(seconds=mean_activity_time_s(frame.duration_s, half_life_s))


def _common_zero(header: PetHeader, half_life_s: float) -> datetime | None:
    """The zero that all frames' offsets agree on, None where they do not or do not say."""
    found = [_zero(frame, half_life_s, is_ge=header.is_ge) for frame in header.frames]
    zeros = [zero for zero in found if zero is not None]
    if len(zeros) != len(found) or not zeros:
        return None
    if _share(min(zeros), max(zeros), half_life_s) > SAME_MOMENT:
        return None
    return median_low(zeros)


def _zero(frame: PetFrame, half_life_s: float, *, is_ge: bool) -> datetime | None:
    """Start of the acquisition less FrameReferenceTime, which is counted in two ways.

    GE counts to the frame's start, others to its time of mean activity. An offset smaller than
    that time cannot be one of the latter kind: the zero would lie within the frame.
    """
    if frame.acquired is None or frame.reference_s is None:
        return None
    offset_s = frame.reference_s
    if not is_ge and offset_s > 0:
        if frame.duration_s is None:
            return None
        mean_s = mean_activity_time_s(frame.duration_s, half_life_s)
        if offset_s >= mean_s - MEAN_TIME_TOLERANCE_S:
            offset_s -= mean_s
    return frame.acquired - timedelta(seconds=offset_s)


def _about_vendor(header: PetHeader, half_life_s: float) -> tuple[Finding, ...]:
    reference, series = header.vendor_reference, header.series_start
    if reference is None or series is None:
        return ()
    if abs(_share(reference, series, half_life_s)) <= SAME_MOMENT:
        return ()
    apart = shown(abs(seconds_between(reference, series)))
    return (
        _warned(
            f"{header.vendor_element} is taken, {_clock(reference)}; SeriesTime is {apart} off"
        ),
    )


def _about_series(
    series: datetime, zero: datetime | None, half_life_s: float
) -> tuple[Finding, ...]:
    if zero is None or abs(_share(zero, series, half_life_s)) <= SAME_MOMENT:
        return ()
    percent = abs(math.expm1(math.log(2) * seconds_between(zero, series) / half_life_s)) * 100
    text = (
        f"SeriesTime is taken, {_clock(series)}; the frames' own times lead back to "
        f"{_clock(zero)}, which would change SUV by {percent:.1f} %"
    )
    return (_warned(text),)


def _injection(
    header: PetHeader, reference: datetime, half_life_s: float, where: str
) -> tuple[datetime, tuple[Finding, ...]]:
    """The moment of injection; a day that is missing or wrong is put right where that is safe."""
    is_long_lived = half_life_s >= LONG_LIVED_S
    stated, clock = header.injected, header.injection_time
    said: list[Finding] = []
    if stated is None and clock is None:
        _refuse(
            "suv-times",
            "The time of injection is missing.",
            where,
            "no RadiopharmaceuticalStartDateTime and no RadiopharmaceuticalStartTime",
        )
    if stated is not None:
        said += _about_clocks(header)
        if _is_plausible(seconds_between(stated, reference), half_life_s, header):
            return stated, (*said, *_about_dynamic(stated, reference))
        clock = stated.time()
    if is_long_lived or clock is None:
        met = "the date of injection is missing"
        if stated is not None:
            met = _relation(stated, reference)
        _refuse("suv-times", "The time of injection does not fit the scan.", where, met)
    same_day = datetime.combine(reference.date(), clock)
    day_before = same_day - timedelta(days=1)
    for candidate in (same_day, day_before):
        apart_s = seconds_between(candidate, reference)
        is_safe = stated is None or 0 <= apart_s < LATEST_REPAIRED_S
        if is_safe and _is_plausible(apart_s, half_life_s, header):
            said.append(_about_day(stated, overnight=candidate == day_before))
            return candidate, (*said, *_about_dynamic(candidate, reference))
    _refuse(
        "suv-times",
        "The time of injection does not fit the scan.",
        where,
        _relation(stated or same_day, reference),
    )


def _is_plausible(apart_s: float, half_life_s: float, header: PetHeader) -> bool:
    is_dynamic = header.series_type.startswith("DYNAMIC")
    long_lived = half_life_s >= LONG_LIVED_S
    latest = LATEST_HALF_LIVES_LONG_LIVED if long_lived else LATEST_HALF_LIVES
    return (EARLIEST_DYNAMIC_S if is_dynamic else 0.0) <= apart_s < latest * half_life_s


def _about_clocks(header: PetHeader) -> list[Finding]:
    stated, clock = header.injected, header.injection_time
    if stated is None or clock is None:
        return []
    apart_s = abs(seconds_between(datetime.combine(stated.date(), clock), stated))
    if apart_s < 1.0:
        return []
    text = f"RadiopharmaceuticalStartTime differs by {shown(apart_s)}: the one with a date is taken"
    return [Finding("suv-assumed", f"of two times of injection, {text}", "warning")]


def _about_offsets(header: PetHeader) -> tuple[Finding, ...]:
    """What is said of moments with an offset from UTC that the scanner's clock may not have.

    An injection whose time of day stands in the header a second time, where it has no offset, is
    by that clock.
    """
    unplaced = set(header.unplaced)
    if header.injected is not None and header.injected.time() == header.injection_time:
        unplaced.discard(INJECTION)
    if not unplaced:
        return ()
    text = f"{' and '.join(sorted(unplaced))} with an offset from UTC, and no "
    text += "TimezoneOffsetFromUTC to compare it with: taken for the time of the scanner's clock"
    return (Finding("suv-assumed", text, "warning"),)


def _about_dynamic(injected: datetime, reference: datetime) -> list[Finding]:
    early_s = seconds_between(reference, injected)
    if early_s <= 0:
        return []
    text = f"a dynamic series that begins {shown(early_s)} before the injection"
    return [Finding("suv-assumed", text, "warning")]


def _about_day(stated: datetime | None, *, overnight: bool) -> Finding:
    day = "the day before the scan" if overnight else "the day of the scan"
    if stated is None and not overnight:
        return Finding("suv-assumed", f"the injection has no date: {day} is taken")
    was = "has no date" if stated is None else "has a date that does not fit the scan"
    return Finding("suv-injection-day", f"the injection {was}: by its time of day {day} is taken")


def _relation(injected: datetime, reference: datetime) -> str:
    apart_s = seconds_between(injected, reference)
    side = "before" if apart_s >= 0 else "after"
    return f"injection {shown(abs(apart_s))} {side} the moment that decay is corrected to"


def _share(earlier: datetime, later: datetime, half_life_s: float) -> float:
    """By which share SUV changes between two moments; negative where ``later`` is earlier."""
    return math.log(2.0) * seconds_between(earlier, later) / half_life_s


def shown(seconds: float) -> str:
    """A duration in the unit that a person would choose."""
    for unit, length_s in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def _clock(moment: datetime) -> str:
    # The time of day alone: dates of patients stay out of texts.
    return f"{moment:%H:%M:%S}"


def _warned(text: str) -> Finding:
    return Finding("suv-reference-time", text, "warning")


def _refuse(code: str, what: str, where: str, met: str) -> NoReturn:
    raise CaseRefused(
        code,
        what,
        where=where,
        met=met,
        wanted=f"a scan within {LATEST_HALF_LIVES:g} half-lives after the injection",
        how="put the times of the header right, or convert the PET to SUV where it was made.",
    )
