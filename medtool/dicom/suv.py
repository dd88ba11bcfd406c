"""PET to body-weight SUV: what each value is multiplied by and why, or why it cannot be.

SUVbw = C W / (D 2^(-t / T)), with the activity concentration C in Bq/mL, weight W in g, injected
dose D in Bq, half-life T and the time t from injection to the moment that decay is corrected to.
1 mL of tissue is taken for 1 g, so SUV has no unit. The tables of elements and their traps follow
QIBA's vendor-neutral pseudo-code and the SUV reference objects of Vacha et al.
(github.com/oncoray/suv_computation). Nothing has a default: what is missing refuses the series,
what was inferred from another element is among the findings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom.series import Series
from medtool.dicom.suv_body import body_weight_per, checked_weight_kg
from medtool.dicom.suv_header import PetHeader, read_pet_header
from medtool.dicom.suv_times import Uptake, shown, uptake
from medtool.dicom.volume import Volume, read_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A dose below this is in MBq; nobody is given so few, or so many, Bq.
MBQ_BELOW = 1e4
LEAST_DOSE_BQ, LARGEST_DOSE_BQ = 1e6, 1e11
# Half-lives of the nuclides of CID 4020 that patients are given most, by SNOMED CT and by the
# older SRT code. One that a header states may be this share off: Ga-68 alone has three values.
HALF_LIVES_S: Mapping[str, tuple[str, float]] = {
    "77004003": ("F-18", 6586.2),
    "C-111A1": ("F-18", 6586.2),
    "40565003": ("C-11", 1223.0),
    "C-105A1": ("C-11", 1223.0),
    "35337001": ("Ga-68", 4063.0),
    "C-131A3": ("Ga-68", 4063.0),
    "3932008": ("Cu-64", 45_721.0),
    "C-127A2": ("Cu-64", 45_721.0),
    "63360001": ("Zr-89", 282_240.0),
    "C-168A4": ("Zr-89", 282_240.0),
}
HALF_LIFE_TOLERANCE = 0.02
# Two ways to the same SUV that Philips offers agree within this, unless the weight was edited.
FACTORS_AGREE = 0.02
# The maximum of a PET of a patient lies between these: brain or bladder alone exceed the first.
LEAST_MAXIMUM_SUV, LARGEST_MAXIMUM_SUV = 0.5, 1000.0
MEND_THE_HEADER = "put the header right, or convert the PET to SUV where it was made."
# Units of values that are SUV already.
SUV_UNITS = ("GML", "CM2ML")
DECAY_CORRECTIONS = ("START", "ADMIN", "NONE")
NOT_USED: Mapping[str, Any] = dict.fromkeys(("weight_kg", "dose_mbq", "half_life_s", "uptake_min"))


@dataclass(frozen=True)
class SuvScale:
    """What makes SUV of a PET series.

    ``factors`` has one number a plane, in the order of ``series.planes``: rescaled value times
    factor is SUVbw. ``source`` says in words what it was made of, ``facts`` are plain values for
    tables: units, decay_correction, attenuation_corrected, weight_kg, dose_mbq, half_life_s and
    uptake_min, None where not used.
    """

    factors: tuple[float, ...]
    source: str
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]


def suv_scale(series: Series) -> SuvScale:
    """The factors of a PET series, from the headers of its files; no pixels are read.

    Raises CaseRefused with the codes of ``read_pet_header`` and of ``scale_of``.
    """
    return scale_of(read_pet_header(series), str(series.folder))


def read_suv(
    series: Series, scale: SuvScale | None = None, *, threads: int | None = None
) -> Volume:
    """A PET series as SUVbw: ``array`` (z, y, x) float32 on the grid of ``series_grid``.

    The factor of each plane is applied together with its own rescale, before uneven steps are
    resampled; padding and what lies outside the field of view are 0. The findings are those of
    the pixels, then those of the scale. ``scale`` saves reading the headers again.

    Raises CaseRefused with the codes of ``suv_scale`` and of ``read_volume``.
    """
    scale = scale or suv_scale(series)
    if any(plane.has_modality_lut for plane in series.planes):
        raise CaseRefused(
            "invalid-rescale",
            "A PET whose values go through a table does not become SUV.",
            where=str(series.folder),
            met="a Modality LUT Sequence",
            wanted="rescale slope and intercept",
        )
    planes = tuple(
        replace(plane, slope=plane.slope * factor, intercept=plane.intercept * factor)
        for plane, factor in zip(series.planes, scale.factors, strict=True)
    )
    volume = read_volume(replace(series, planes=planes), threads=threads)
    findings = (*volume.findings, *scale.findings, *_unusual(volume.array))
    return replace(volume, findings=findings)


def scale_of(header: PetHeader, where: str) -> SuvScale:
    """The factors that a header gives; ``where`` is named in refusals.

    Raises CaseRefused: ``suv-units`` (no unit that can become SUV), ``suv-uncorrected``
    (attenuation or decay), ``suv-weight``, ``suv-dose``, ``suv-half-life``, ``suv-times``,
    ``suv-normalisation`` (SUV by something else than weight that cannot be undone),
    ``no-rescale``.
    """
    if not header.has_rescale:
        _refuse("no-rescale", "The PET lacks rescale slope or intercept.", where, "none", "both")
    if header.units not in (*SUV_UNITS, "CNTS", "BQML"):
        _refuse(
            "suv-units",
            "The values of this PET cannot become SUV.",
            where,
            f"Units {header.units or 'not given'}",
            "BQML, GML, CM2ML, or CNTS with Philips' private factors",
        )
    said = _check_corrections(header, where)
    if header.units in SUV_UNITS:
        scale = _from_suv(header, where)
    elif header.units == "CNTS":
        scale = _from_counts(header, where)
    else:
        scale = _from_activity(header, 1.0, "Bq/mL", where)
    return replace(scale, findings=(*said, *scale.findings))


def _check_corrections(header: PetHeader, where: str) -> tuple[Finding, ...]:
    """Refuse what was not corrected for attenuation, or whose elements on decay disagree."""
    done = header.corrections
    is_suv = header.units in SUV_UNITS
    if not done and is_suv:
        text = "CorrectedImage is missing; that the values are SUV means that they were corrected"
        return (Finding("suv-assumed", text, "warning"),)
    wanted = "ATTN and DECY in CorrectedImage"
    met = f"CorrectedImage {', '.join(sorted(done)) or 'not given'}"
    if "ATTN" not in done:
        _refuse("suv-uncorrected", "The PET is not corrected for attenuation.", where, met, wanted)
    if is_suv:
        return ()
    if header.decay_correction not in DECAY_CORRECTIONS:
        _refuse(
            "suv-uncorrected",
            "The PET does not say how it was corrected for decay.",
            where,
            f"DecayCorrection {header.decay_correction or 'not given'}",
            ", ".join(DECAY_CORRECTIONS),
        )
    is_decayed = bool(done & {"DECY", "DECAY"})
    if is_decayed == (header.decay_correction == "NONE"):
        met = f"DecayCorrection {header.decay_correction}, {met}"
        _refuse(
            "suv-uncorrected", "Two elements disagree about decay correction.", where, met, wanted
        )
    return ()


def _from_suv(header: PetHeader, where: str) -> SuvScale:
    """Values that are SUV already; those by lean mass or surface become those by weight."""
    kind = header.suv_type or ("BW" if header.units == "GML" else "BSA")
    ratio, source = body_weight_per(kind, header, where)
    findings = [] if ratio == 1.0 else [Finding("suv-converted", f"{source} became SUV by weight")]
    if not header.suv_type:
        text = f"no SUVType is given: {kind} is taken, what the standard means by its absence"
        findings.append(Finding("suv-assumed", text))
    return _scale(header, (ratio,), source, findings)


def _from_counts(header: PetHeader, where: str) -> SuvScale:
    """Counts of a Philips scanner, by its factor to SUV, else by the one to Bq/mL."""
    direct, activity = header.philips_suv, header.philips_activity
    if not any(_is_positive(factor) for factor in (direct, activity)):
        _refuse(
            "suv-units",
            "Counts cannot become SUV.",
            where,
            "Units CNTS without a usable factor in (7053,xx00) or (7053,xx09)",
            "the private elements of the scanner, which anonymisers may have dropped",
        )
    if direct is None or not _is_positive(direct):
        return _from_activity(header, activity or 0.0, "counts by Philips' (7053,xx09)", where)
    findings = []
    if activity is not None and _is_positive(activity):
        findings += _compared(header, direct, activity, where)
    return _scale(header, (direct,), "counts by Philips' SUV factor (7053,xx00)", findings)


def _compared(header: PetHeader, direct: float, activity: float, where: str) -> list[Finding]:
    try:
        other = _from_activity(header, activity, "", where).factors[0]
    except CaseRefused:
        return []
    if abs(other / direct - 1.0) <= FACTORS_AGREE:
        return []
    percent = (other / direct - 1.0) * 100
    text = f"by Philips' other factor, weight and dose SUV would be {percent:+.1f} % higher"
    return [Finding("suv-factors-differ", text, "warning")]


def _from_activity(header: PetHeader, bq_per_ml: float, what: str, where: str) -> SuvScale:
    """Activity concentration, ``bq_per_ml`` times the value, by weight, dose and decay."""
    weight_kg = checked_weight_kg(header, where)
    dose_bq, said = _dose_bq(header, where)
    base = bq_per_ml * 1000.0 * weight_kg / dose_bq
    facts: dict[str, Any] = {"weight_kg": weight_kg, "dose_mbq": dose_bq / 1e6}
    if header.decay_correction == "ADMIN":
        source = f"{what}, corrected for decay to the injection"
        return _scale(header, (base,), source, said, facts)
    half_life_s, also_said = _half_life_s(header, where)
    taken = uptake(header, half_life_s, where)
    factors = tuple(base * 2.0 ** (seconds / half_life_s) for seconds in taken.seconds)
    facts |= {"half_life_s": half_life_s, "uptake_min": min(taken.seconds) / 60.0}
    source = f"{what}, {_decay_in_words(header.decay_correction, taken)}"
    return _scale(header, factors, source, [*said, *also_said, *taken.findings], facts)


def _decay_in_words(correction: str, taken: Uptake) -> str:
    if correction == "NONE":
        return "not corrected for decay: each frame at its own time"
    return f"corrected for decay to {shown(taken.seconds[0])} after the injection"


def _scale(
    header: PetHeader,
    factors: tuple[float, ...],
    source: str,
    findings: Sequence[Finding],
    facts: Mapping[str, Any] = NOT_USED,
) -> SuvScale:
    """``factors`` has one number a frame, or one for all."""
    known = {
        "units": header.units,
        "decay_correction": header.decay_correction,
        "attenuation_corrected": "ATTN" in header.corrections,
    }
    note = Finding("suv-factor", f"SUV by body weight, from {source}")
    every = factors if len(factors) > 1 else factors * len(header.frames)
    return SuvScale(every, source, (note, *findings), known | {**NOT_USED, **facts})


def _dose_bq(header: PetHeader, where: str) -> tuple[float, list[Finding]]:
    """The injected dose; a number that only MBq make sense of is taken so, and said."""
    dose = header.dose
    if header.injections > 1:
        _refuse(
            "suv-dose",
            "The PET names several injections, whose doses do not add up at one time.",
            where,
            f"{header.injections} items of RadiopharmaceuticalInformationSequence",
            "one",
        )
    if dose is not None and 1.0 <= dose < MBQ_BELOW:
        text = f"RadionuclideTotalDose {dose:g} is taken for MBq, though the standard says Bq"
        return dose * 1e6, [Finding("suv-dose-mbq", text)]
    if dose is None or not LEAST_DOSE_BQ <= dose <= LARGEST_DOSE_BQ:
        _refuse(
            "suv-dose",
            "The injected dose is missing, or is none.",
            where,
            "no RadionuclideTotalDose" if dose is None else f"RadionuclideTotalDose {dose:g}",
            f"{LEAST_DOSE_BQ:g} to {LARGEST_DOSE_BQ:g} Bq",
        )
    return dose, []


def _half_life_s(header: PetHeader, where: str) -> tuple[float, list[Finding]]:
    """The half-life that the header states, else that of the nuclide it names, said."""
    stated = header.half_life_s
    name, known_s = HALF_LIVES_S.get(header.nuclide, ("", 0.0))
    if stated is None and name:
        text = f"no half-life is given: that of {name} is taken, {known_s:g} s"
        return known_s, [Finding("suv-assumed", text, "warning")]
    if stated is None or not _is_positive(stated):
        met = "no RadionuclideHalfLife and no nuclide that is known"
        if stated is not None:
            met = f"RadionuclideHalfLife {stated:g}"
        _refuse("suv-half-life", "The half-life is missing, or is none.", where, met, "seconds")
    if name and abs(stated / known_s - 1.0) > HALF_LIFE_TOLERANCE:
        _refuse(
            "suv-half-life",
            "The half-life is not that of the nuclide.",
            where,
            f"RadionuclideHalfLife {stated:g} s for {name}",
            f"{known_s:g} s",
        )
    return stated, []


def _unusual(array: NDArray[Any]) -> tuple[Finding, ...]:
    """A warning where the maximum is none that a patient's PET has."""
    highest = float(array.max())
    if LEAST_MAXIMUM_SUV <= highest <= LARGEST_MAXIMUM_SUV:
        return ()
    text = f"the highest SUV is {highest:.4g}: weight, dose or times may be wrong"
    return (Finding("suv-unusual", text, "warning"),)


def _is_positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0.0


def _refuse(
    code: str, what: str, where: str, met: str, wanted: str, how: str = MEND_THE_HEADER
) -> NoReturn:
    raise CaseRefused(code, what, where=where, met=met, wanted=wanted, how=how)
