"""A person's word against a refusal: what it can change, and what it cannot.

What was refused for the kind of image that its header claims (a reformat, a map, a scout) may be
used all the same: a header can be wrong, and its voxels and their places are there. What lacks a
geometry or whole pixels cannot be read truly, whoever says so. Values that are no Hounsfield units
are still refused when they are read.
"""

from __future__ import annotations

from dataclasses import replace

from medtool.core.records import Finding
from medtool.dicom.codes import CODES, is_repair
from medtool.dicom.series import Series, Verdict


def reasons_to_stay_refused(series: Series) -> tuple[str, ...]:
    """What no person can overrule, in sentences; () where the series can be used."""
    refusals = [finding for finding in series.findings if finding.severity == "refusal"]
    final = [f.message for f in refusals if f.code not in CODES or not CODES[f.code].overrulable]
    if not final and refusals and series.geometry is None:
        final.append("its positions do not make one stack")
    return tuple(dict.fromkeys(final))


def overruled(series: Series, by: str) -> Series:
    """``series`` as accepted or repaired, its refusals as warnings that name ``by``.

    The series itself where it was not refused, or must stay so.
    """
    if series.verdict != "refused" or reasons_to_stay_refused(series):
        return series
    findings = tuple(
        Finding(f.code, f"{f.message}; used all the same, a person says so ({by})", "warning")
        if f.severity == "refusal"
        else f
        for f in series.findings
    )
    verdict: Verdict = "repaired" if any(is_repair(f.code) for f in findings) else "accepted"
    return replace(series, verdict=verdict, findings=findings)
