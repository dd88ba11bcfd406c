"""What the header of a PET says that decides on its SUV, read with pydicom.

Intake keeps none of it: it is read again, from every file, when a PET is to become SUV. What all
files of a series must agree on is in ``PetHeader``, what may differ from file to file (a bed's own
times) in its ``frames``. Elements are those of PS3.3 C.8.9 and private ones of three vendors.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.errors import CaseRefused
from medtool.dicom import tags
from medtool.dicom.series import Series

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DATE = re.compile(r"^(\d{4})\.?(\d{2})\.?(\d{2})$")
_TIME = re.compile(r"^(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6}))?)?)?$")
_DATE_TIME = re.compile(r"^(\d{8})(\d{2,6}(?:\.\d{1,6})?)([+-]\d{4})?$")
_OFFSET = re.compile(r"^([+-])(\d{2})(\d{2})$")

# A week: no frame is longer, and none lies farther from the start of its scan.
LONGEST_MS = 7 * 86_400_000.0

INJECTION = "RadiopharmaceuticalStartDateTime"

# Private elements: group, creator of the block, element in it (PS3.5, 7.8).
_GE_SCAN_START = (0x0009, "GEMS_PETD_01", 0x0D)
_GE_ADMINISTERED = (0x0009, "GEMS_PETD_01", 0x3B)
_SIEMENS_REFERENCE = (0x0071, "SIEMENS MED PT", 0x22)
_PHILIPS_SUV = (0x7053, "Philips PET Private Group", 0x00)
_PHILIPS_ACTIVITY = (0x7053, "Philips PET Private Group", 0x09)


@dataclass(frozen=True, slots=True)
class PetFrame:
    """Times of one plane: start of its acquisition, FrameReferenceTime, duration."""

    acquired: datetime | None
    reference_s: float | None
    duration_s: float | None


@dataclass(frozen=True)
class PetHeader:
    """The elements of one PET series that decide on SUV; numbers as they are written.

    A number is None where the element is absent or empty, NaN where it holds none; a moment is
    None in both cases. ``injections`` counts the items of the sequence that dose and times are in;
    of several the first is read. ``dose`` is RadionuclideTotalDose in whatever unit the site wrote.
    ``nuclide`` is the code value of the radionuclide. ``undated`` names the dates that are missing
    and that another one stands for: the study's for the series, the series' for acquisitions.
    ``injected`` is RadiopharmaceuticalStartDateTime (or GE's own element), ``injection_time`` the
    time of day of RadiopharmaceuticalStartTime. Moments with an offset from UTC are by the clock
    of the scanner; ``unplaced`` names those where the header does not say which offset that has.
    ``vendor_reference`` is the moment that the vendor
    says decay was corrected to, ``vendor_element`` where that stands. The Philips factors are None
    where they are 0.
    """

    units: str
    suv_type: str
    manufacturer: str
    series_type: str
    sex: str
    weight_kg: float | None
    height_m: float | None
    decay_correction: str
    corrections: frozenset[str]
    injections: int
    dose: float | None
    half_life_s: float | None
    nuclide: str
    undated: frozenset[str]
    unplaced: frozenset[str]
    injected: datetime | None
    injection_time: time | None
    series_start: datetime | None
    vendor_reference: datetime | None
    vendor_element: str
    philips_suv: float | None
    philips_activity: float | None
    has_rescale: bool
    frames: tuple[PetFrame, ...] = ()

    @property
    def is_ge(self) -> bool:
        """Whether the scanner is one of GE's."""
        return self.manufacturer.upper().startswith("GE")


def read_pet_header(series: Series) -> PetHeader:
    """The header of all planes of a series, in their order.

    Raises CaseRefused: ``suv-not-pet`` (another modality), ``suv-multiframe`` (enhanced PET keeps
    these elements elsewhere), ``suv-headers-differ`` (files of one series contradict one another),
    ``unreadable``, ``broken-header``.
    """
    where = str(series.folder)
    if series.modality != "PT":
        raise CaseRefused(
            "suv-not-pet",
            "Only PET becomes SUV.",
            where=where,
            met=f"modality {series.modality or 'not given'}",
            wanted="PT",
        )
    if series.facts.get("sop_class") in tags.ENHANCED_CLASSES:
        raise CaseRefused(
            "suv-multiframe",
            "SUV of a multi-frame (enhanced) PET is not computed.",
            where=where,
            how="export the series as single-frame PET images.",
        )
    return merged_headers([pet_header(_dataset(p.path)) for p in series.planes], where)


def merged_headers(headers: Sequence[PetHeader], where: str) -> PetHeader:
    """One header with the frames of all; refuses (``suv-headers-differ``) what contradicts."""
    first = replace(headers[0], frames=())
    for header in headers:
        other = replace(header, frames=())
        if other != first:
            names = [f.name for f in fields(first) if _differ(first, other, f.name)]
            if names:
                raise CaseRefused(
                    "suv-headers-differ",
                    "The files of one PET series contradict one another.",
                    where=where,
                    met=f"different {', '.join(names)}",
                    wanted="one value in all files",
                )
    return replace(first, frames=tuple(frame for header in headers for frame in header.frames))


def _differ(first: PetHeader, other: PetHeader, name: str) -> bool:
    ours, theirs = getattr(first, name), getattr(other, name)
    both_nan = all(isinstance(v, float) and math.isnan(v) for v in (ours, theirs))
    return bool(ours != theirs) and not both_nan


def _dataset(path: Path) -> Dataset:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError as error:
        raise CaseRefused(
            "unreadable",
            "The file cannot be read.",
            where=str(path),
            met=error.strerror or type(error).__name__,
        ) from error
    # On damaged bytes a parser may raise anything; whatever it is, the header cannot be read.
    except Exception as error:
        raise CaseRefused(
            "broken-header",
            "The header of the file cannot be parsed.",
            where=str(path),
            met=type(error).__name__,
        ) from error


def pet_header(dataset: Dataset) -> PetHeader:
    """The elements of one file (one frame)."""
    with warnings.catch_warnings():
        # What pydicom says of odd values is judged here, by the values.
        warnings.simplefilter("ignore")
        return _header(dataset)


def _header(dataset: Dataset) -> PetHeader:
    drugs = _items(dataset, "RadiopharmaceuticalInformationSequence")
    drug = drugs[0] if drugs else None
    clock = _Clock(_text(dataset, "TimezoneOffsetFromUTC"))
    reference, element = _vendor_reference(dataset, clock)
    injected = clock.moment_at(_text(drug, INJECTION), INJECTION)
    if injected is None and _text(dataset, "Manufacturer").upper().startswith("GE"):
        injected = clock.moment_at(_private_text(dataset, *_GE_ADMINISTERED), "GE's (0009,xx3B)")
    series_start, acquired, undated = _moments(dataset, clock)
    return PetHeader(
        units=_text(dataset, "Units").upper(),
        suv_type=_text(dataset, "SUVType").upper(),
        manufacturer=_text(dataset, "Manufacturer"),
        series_type=_text(dataset, "SeriesType").upper(),
        sex=_text(dataset, "PatientSex").upper(),
        weight_kg=_number(_text(dataset, "PatientWeight")),
        height_m=_number(_text(dataset, "PatientSize")),
        decay_correction=_text(dataset, "DecayCorrection").upper(),
        corrections=frozenset(_text(dataset, "CorrectedImage").upper().split("\\")) - {""},
        injections=len(drugs),
        dose=_number(_text(drug, "RadionuclideTotalDose")),
        half_life_s=_number(_text(drug, "RadionuclideHalfLife")),
        nuclide=_text(_first_item(drug, "RadionuclideCodeSequence"), "CodeValue"),
        injected=injected,
        injection_time=time_of_day(_text(drug, "RadiopharmaceuticalStartTime")),
        series_start=series_start,
        undated=undated,
        unplaced=frozenset(clock.unplaced),
        vendor_reference=reference,
        vendor_element=element,
        philips_suv=_number(_private_text(dataset, *_PHILIPS_SUV)) or None,
        philips_activity=_number(_private_text(dataset, *_PHILIPS_ACTIVITY)) or None,
        has_rescale=bool(_text(dataset, "RescaleSlope") and _text(dataset, "RescaleIntercept")),
        frames=(
            PetFrame(
                acquired,
                _seconds(_number(_text(dataset, "FrameReferenceTime"))),
                _seconds(_number(_text(dataset, "ActualFrameDuration"))),
            ),
        ),
    )


class _Clock:
    """The clock of the scanner: moments with an offset from UTC are brought to it.

    ``unplaced`` names those of which that was not possible, since the header does not say its own.
    """

    def __init__(self, offset_text: str) -> None:
        self._offset = utc_offset(offset_text)
        self.unplaced: set[str] = set()

    def moment_at(self, text: str, name: str) -> datetime | None:
        """A date with a time (DT) by this clock; None where it is none."""
        found = date_time(text, self._offset)
        if found is not None and self._offset is None and utc_offset(text[-5:]) is not None:
            self.unplaced.add(name)
        return found


def _moments(
    dataset: Dataset, scanner: _Clock
) -> tuple[datetime | None, datetime | None, frozenset[str]]:
    """Start of the series and of the acquisition, and the dates that others stand for."""
    undated = set()
    series_date = _text(dataset, "SeriesDate")
    if not series_date:
        series_date = _text(dataset, "StudyDate")
        undated.add("SeriesDate")
    clock = _text(dataset, "AcquisitionTime")
    acquired = moment(_text(dataset, "AcquisitionDate"), clock)
    if acquired is None:
        name = "AcquisitionDateTime"
        acquired = scanner.moment_at(_text(dataset, name), name)
    if acquired is None:
        acquired = moment(series_date, clock)
        undated |= {"AcquisitionDate"} if acquired else set()
    return moment(series_date, _text(dataset, "SeriesTime")), acquired, frozenset(undated)


def _vendor_reference(dataset: Dataset, scanner: _Clock) -> tuple[datetime | None, str]:
    maker = _text(dataset, "Manufacturer").upper()
    for beginnings, element, name in (
        (("SIEMENS", "CPS"), _SIEMENS_REFERENCE, "Siemens' (0071,xx22)"),
        (("GE",), _GE_SCAN_START, "GE's (0009,xx0D)"),
    ):
        if maker.startswith(beginnings):
            found = scanner.moment_at(_private_text(dataset, *element), name)
            return found, name if found else ""
    return None, ""


def _items(dataset: Dataset | None, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent, or no sequence."""
    from pydicom.dataset import Dataset

    try:
        found = list(dataset.get(keyword) or ()) if dataset is not None else []
    except Exception:  # noqa: BLE001 - a broken sequence raises all kinds of errors
        return []
    return [item for item in found if isinstance(item, Dataset)]


def _first_item(dataset: Dataset | None, keyword: str) -> Dataset | None:
    return next(iter(_items(dataset, keyword)), None)


def _text(dataset: Dataset | None, keyword: str) -> str:
    """The value as text, several by backslashes; "" where absent, empty or not to be read."""
    if dataset is None or keyword not in dataset:
        return ""
    try:
        return _as_text(dataset[keyword].value)
    except Exception:  # noqa: BLE001 - a value that is none of its kind raises many kinds of errors
        # pydicom converts when asked, and keeps the bytes.
        raw = dataset.get_item(keyword)
        return _as_text(getattr(raw, "value", b""))


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip(" \0")
    if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue":
        return "\\".join(str(part).strip(" \0") for part in value)
    return str(value).strip(" \0")


def _private_text(dataset: Dataset, group: int, creator: str, element: int) -> str:
    """A private element's text, in the block of its creator.

    Where an anonymiser took the names of all creators away, the element is looked for in the
    first block, which is where scanners put it.
    """
    blocks = [tag.elem for tag in dataset.keys() if tag.group == group and tag.elem <= 0xFF]
    names = {block: _as_text(dataset[group, block].value) for block in blocks}
    owned = [block for block, name in names.items() if name.upper() == creator.upper()]
    if not blocks:
        owned = [0x10]
    for block in owned:
        if (group, block << 8 | element) in dataset:
            return _as_text(dataset[group, block << 8 | element].value)
    return ""


def _number(text: str) -> float | None:
    """The first number; NaN where there is text that is none; None where there is no text."""
    if not text:
        return None
    try:
        return float(text.split("\\")[0])
    except ValueError:
        return math.nan


def _seconds(milliseconds: float | None) -> float | None:
    if milliseconds is None or not abs(milliseconds) <= LONGEST_MS:
        return None
    return milliseconds / 1000.0


def time_of_day(text: str) -> time | None:
    """A time (TM): HH, HHMM, HHMMSS, with or without a fraction, or of old with colons."""
    found = _TIME.match(text)
    if not found:
        return None
    hour, minute, second, fraction = found.groups()
    seconds = min(int(second or 0), 59)  # 60 is a leap second.
    try:
        return time(int(hour), int(minute or 0), seconds, int((fraction or "0").ljust(6, "0")))
    except ValueError:
        return None


def moment(date_text: str, time_text: str) -> datetime | None:
    """A date (DA) and a time (TM) as one moment; None where either is missing or none."""
    found, clock = _DATE.match(date_text), time_of_day(time_text)
    if not found or clock is None:
        return None
    try:
        return datetime.combine(datetime(*map(int, found.groups())), clock)  # type: ignore[arg-type]
    except ValueError:
        return None


def date_time(text: str, offset: timedelta | None = None) -> datetime | None:
    """A date with a time (DT), by a clock that is ``offset`` ahead of UTC.

    By the clock that it was written with where it has no offset, or that of the other is not
    known. A date alone is no moment.
    """
    found = _DATE_TIME.match(text)
    written = moment(found.group(1), found.group(2)) if found else None
    own = utc_offset(found.group(3) or "") if found else None
    if written is None or own is None or offset is None:
        return written
    try:
        return written + (offset - own)
    except OverflowError:
        return None


def utc_offset(text: str) -> timedelta | None:
    """How far a clock is ahead of UTC (+HHMM, -HHMM); None where the text does not say."""
    found = _OFFSET.match(text)
    if not found:
        return None
    sign, hours, minutes = found.groups()
    ahead = timedelta(hours=int(hours), minutes=int(minutes))
    return -ahead if sign == "-" else ahead


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Seconds from ``earlier`` to ``later``; negative the other way round."""
    return (later - earlier) / timedelta(seconds=1)
