"""A folder of DICOM slices as one image of a data set."""

from __future__ import annotations

from pathlib import Path

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom import scan
from medtool.dicom.choose import choose
from medtool.dicom.series import Series


def series_in(folder: Path) -> tuple[Series, tuple[Finding, ...]]:
    """The one series below ``folder`` that is read, and what is to be said of it.

    Of several that can be read the intake's score chooses one, which is said. Raises CaseRefused
    with the codes of the largest series where none can be read, else ``no-usable-series``.
    """
    found = scan([folder]).series
    chosen, others = choose(found)
    if chosen is None:
        raise _refusal(found, folder)
    findings = list(chosen.findings)
    if others:
        text = f"of {len(others) + 1} series in {folder.name}, '{chosen.description}' was chosen"
        findings.append(Finding("series-chosen", text, "warning"))
    return chosen, tuple(findings)


def _refusal(found: tuple[Series, ...], folder: Path) -> CaseRefused:
    largest = max(found, key=lambda series: len(series.planes), default=None)
    refusals = [f for f in largest.findings if f.severity == "refusal"] if largest else []
    code = refusals[0].code if refusals else "no-usable-series"
    met = "; ".join(finding.message for finding in refusals) or f"{len(found)} series"
    return CaseRefused(
        code, "The folder holds no DICOM series that can be read.", where=str(folder), met=met
    )
