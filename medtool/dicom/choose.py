"""Of several usable stacks of one study the one to read, by a score that is said.

Points, at most 100: how the image was made (30 original, 15 derived), kernel (30 soft, 15 not
known, 0 sharp), thickness (20 for 1-5 mm, 10 for 0.4-1 and 5-8 mm), slices (20 n / (n + 40), so
that more always count more); less 5 for a repaired tilt and 10 for uneven spacing. Where a task
looks at one part of the body: less 50 for a stack whose description names other parts only, less 25
where only BodyPartExamined does, or where images are too wide or too narrow for it. Ties go to
more slices, then to the lower series number, then to the key, which is said where it decides
between stacks of one series.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from medtool.core.records import Finding
from medtool.dicom.body_part import BodyPart, field_of_view_mm, parts_in
from medtool.dicom.series import Series
from medtool.dicom.stack import along

Softness = Literal["soft", "sharp", "unknown"]

ORIGINAL_POINTS, DERIVED_POINTS = 30.0, 15.0
SOFT_POINTS, UNKNOWN_KERNEL_POINTS = 30.0, 15.0
GOOD_THICKNESS_POINTS, FAIR_THICKNESS_POINTS = 20.0, 10.0
GOOD_THICKNESS_MM, FAIR_THICKNESS_MM = (1.0, 5.0), (0.4, 8.0)
SLICE_POINTS, HALF_SLICES = 20.0, 40.0
TILT_COST, UNEVEN_COST = 5.0, 10.0
# More than kernel and slices together: a chest in thin, soft slices is no head.
OTHER_PART_COST, PERHAPS_OTHER_COST = 50.0, 25.0
# Recalculated with other slices a stretch begins and ends some millimetres elsewhere.
LEAST_REST_MM = 15.0
LEAST_COSINE = 0.8

# Kernels by vendor: the number of Siemens' letters-and-number names is the sharpness.
_SIEMENS = re.compile(r"^(?:B|H|J|I|T|U|BR|BV|BF|HR|HF|HC|HV|QR|SA|UB|UR|C)\s?(\d{2})[A-Z]*\d?$")
SIEMENS_SOFTEST, SIEMENS_SHARPEST_SOFT = 10, 45
_CANON = re.compile(r"^FC\s?(\d{2})")
CANON_SHARPEST_SOFT = 26
_SOFT_NAMES = frozenset(
    ["STANDARD", "STND", "SOFT", "SMOOTH", "BRAIN", "A", "B", "C", "UA", "UB", "UC", "EB"]
)
_SHARP_NAMES = frozenset(
    ["BONE", "BONEPLUS", "LUNG", "EDGE", "SHARP", "ULTRA", "D", "E", "L", "Y", "YA", "YB", "YC"]
    + ["YD", "CHST", "HD BONE", "F"]
)


def kernel_softness(kernel: str) -> Softness:
    """Whether a ConvolutionKernel is one for soft tissue, by the naming of the vendors."""
    name = kernel.split("\\")[0].strip().upper()
    if name in _SOFT_NAMES:
        return "soft"
    if name in _SHARP_NAMES:
        return "sharp"
    siemens = _SIEMENS.match(name)
    if siemens:
        number = int(siemens.group(1))
        return "soft" if SIEMENS_SOFTEST <= number <= SIEMENS_SHARPEST_SOFT else "sharp"
    canon = _CANON.match(name)
    if canon:
        return "soft" if int(canon.group(1)) <= CANON_SHARPEST_SOFT else "sharp"
    return "unknown"


def score(
    facts: Mapping[str, Any],
    verdict: str,
    findings: Sequence[Finding],
    preferred_kernels: Sequence[str] = (),
    thickness_mm: tuple[float, float] = GOOD_THICKNESS_MM,
) -> tuple[float, tuple[str, ...]]:
    """Points of one stack and the sentences that add up to them; 0 for a refused one.

    ``preferred_kernels`` are names (upper or lower case) that count as soft before all others;
    ``thickness_mm`` is the range that earns all points.
    """
    if verdict == "refused":
        return 0.0, ("refused: 0",)
    codes = {finding.code for finding in findings}
    original = ORIGINAL_POINTS if "derived" not in codes else DERIVED_POINTS
    parts = [("original" if "derived" not in codes else "derived", original)]
    kernel = str(facts.get("kernel") or "")
    wanted = {name.upper() for name in preferred_kernels}
    softness = kernel_softness(kernel)
    if kernel.split("\\")[0].strip().upper() in wanted or (softness == "soft" and not wanted):
        parts.append((f"soft kernel {kernel}", SOFT_POINTS))
    elif softness == "sharp":
        parts.append((f"sharp kernel {kernel}", 0.0))
    else:
        parts.append((f"kernel {kernel or 'not named'}", UNKNOWN_KERNEL_POINTS))
    parts.append(_thickness(facts.get("thickness_mm"), thickness_mm))
    count = int(facts.get("slices") or 0)
    parts.append((f"{count} slices", SLICE_POINTS * count / (count + HALF_SLICES)))
    if "gantry-tilt" in codes:
        parts.append(("tilt repaired", -TILT_COST))
    if "uneven-spacing" in codes:
        parts.append(("uneven spacing", -UNEVEN_COST))
    total = sum(points for _, points in parts)
    return round(total, 1), tuple(f"{name}: {points:.1f}" for name, points in parts)


def _thickness(value: Any, good_mm: tuple[float, float]) -> tuple[str, float]:
    if not isinstance(value, float):
        return "thickness not given", 0.0
    if good_mm[0] <= value <= good_mm[1]:
        return f"{value:g} mm thick", GOOD_THICKNESS_POINTS
    if FAIR_THICKNESS_MM[0] <= value <= FAIR_THICKNESS_MM[1]:
        return f"{value:g} mm thick", FAIR_THICKNESS_POINTS
    return f"{value:g} mm thick", 0.0


def choose(
    candidates: Sequence[Series],
    *,
    preferred_kernels: Sequence[str] = (),
    thickness_mm: tuple[float, float] = GOOD_THICKNESS_MM,
    body_part: BodyPart | None = None,
) -> tuple[Series | None, list[Series]]:
    """The best usable stack, and the usable runners-up, best first, all with their scores.

    Scores are worked out again where the caller has preferences; ``body_part`` is where it looks.
    Refused stacks never win. Where other stacks of the same series are as good, or go on where the
    best one ends, the best one carries a warning.
    """
    scored = []
    for series in candidates:
        if series.verdict == "refused":
            continue
        points, reasons = score(
            series.facts, series.verdict, series.findings, preferred_kernels, thickness_mm
        )
        cost, why = (0.0, ()) if body_part is None else _of_another_part(series, body_part)
        points = round(points - cost, 1)
        scored.append(replace(series, score=points, score_reasons=(*reasons, *why)))
    scored.sort(key=_order)
    if not scored:
        return None, []
    best, *others = scored
    said = (*_said_of_ties(best, others), *_said_of_the_rest(best, others))
    return replace(best, findings=(*best.findings, *said)), others


def _said_of_ties(best: Series, others: Sequence[Series]) -> tuple[Finding, ...]:
    """What is said where nothing but their keys puts one stack of a series before the others."""
    tied = [one for one in others if _series_of(one) == _series_of(best)]
    tied = [one for one in tied if _order(one)[:-1] == _order(best)[:-1]]
    if not tied:
        return ()
    text = f"{len(tied) + 1} stacks of this series are equally good (phases, acquisitions), and "
    text += f"{best.key} was taken for its place in the list alone; the table of series can name "
    text += "another"
    return (Finding("phase-by-order", text, "warning"),)


def _of_another_part(series: Series, wanted: BodyPart) -> tuple[float, tuple[str, ...]]:
    """What it costs a stack that it may show another part of the body, and why."""
    described = parts_in(series.description)
    # That of the protocol, in many archives one for the whole session.
    examined = parts_in(str(series.facts.get("body_part") or ""))
    parts = described or examined
    if parts and wanted.name not in parts:
        cost = OTHER_PART_COST if described else PERHAPS_OTHER_COST
        return cost, (f"of the {' and '.join(sorted(parts))}: -{cost:.1f}",)
    # Also of one that names the head: a whole body may begin there.
    width_mm, (low_mm, high_mm) = field_of_view_mm(series), wanted.field_mm
    if width_mm is None or low_mm <= width_mm <= high_mm:
        return 0.0, ()
    return PERHAPS_OTHER_COST, (
        f"images {width_mm:.0f} mm wide, of a {wanted.name} {low_mm:.0f} to {high_mm:.0f}: "
        f"-{PERHAPS_OTHER_COST:.1f}",
    )


def _said_of_the_rest(best: Series, others: Sequence[Series]) -> tuple[Finding, ...]:
    """What is said where the series itself goes on in a stack that is not read."""
    if best.geometry is None:
        return ()
    normal = best.geometry.normal
    low_mm, high_mm = best.geometry.positions_mm[0], best.geometry.positions_mm[-1]
    beyond_mm = 0.0
    for other in others:
        if _series_of(other) != _series_of(best) or not other.planes:
            continue
        if other.facts.get("frame_of_reference") != best.facts.get("frame_of_reference"):
            continue
        # A reformat in another plane shows the same stretch; a tilted gantry is no other plane.
        if other.geometry is None or abs(along(other.geometry.normal, normal)) < LEAST_COSINE:
            continue
        ends = [along(plane.position_mm, normal) for plane in other.planes]
        beyond_mm = max(beyond_mm, low_mm - min(ends), max(ends) - high_mm)
    if not beyond_mm > LEAST_REST_MM:
        return ()
    text = (
        f"another stack of this series reaches {beyond_mm:.0f} mm further than the one that is "
        f"read ({high_mm - low_mm:.0f} mm long): what lies there is not looked at"
    )
    return (Finding("series-goes-on", text, "warning"),)


def _series_of(one: Series) -> str:
    return one.uid or str(one.folder)


def _order(series: Series) -> tuple[float, int, int, str]:
    number = series.facts.get("number")
    return (
        -series.score,
        -len(series.planes),
        number if isinstance(number, int) else 1 << 31,
        series.key,
    )
