"""The document of ``check --json``: every series with verdict and reasons, every skipped file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medtool.core.records import Finding
from medtool.dicom.codes import is_repair
from medtool.dicom.series import Intake, Series
from medtool.dicom.volume import series_grid


def intake_document(
    intake: Intake,
    *,
    case_of: Mapping[str, str] | None = None,
    chosen: set[str] | frozenset[str] = frozenset(),
    findings: Mapping[str, Sequence[Finding]] | None = None,
) -> dict[str, Any]:
    """Plain dicts, lists, texts and numbers.

    ``case_of`` maps a series' key to its case id, ``chosen`` holds the keys that are used, and
    ``findings`` what the task says of a series. ``files`` is a number; sizes and spacings are in
    x, y, z order, mm in LPS: those of the image that ``read`` gives, null where it refuses.
    """
    case_of, findings = case_of or {}, findings or {}
    return {
        "series": [
            _series(
                one,
                case_of.get(one.key, ""),
                findings.get(one.key, ()),
                is_chosen=one.key in chosen,
            )
            for one in intake.series
        ],
        "skipped": [
            {"file": str(one.file), "code": one.code, "why": one.why} for one in intake.skipped
        ],
    }


def _series(
    series: Series, case_id: str, findings: Sequence[Finding], *, is_chosen: bool
) -> dict[str, Any]:
    own = series.findings
    return {
        "uid": series.uid,
        "key": series.key,
        "case": case_id,
        "patient": series.patient_id,
        "study": series.study_uid,
        "folder": str(series.folder),
        "modality": series.modality,
        "description": series.description,
        "files": series.files,
        "verdict": series.verdict,
        "codes": list(dict.fromkeys(f.code for f in own)),
        "reasons": [f.message for f in own if f.severity == "refusal"],
        "repairs": [f.message for f in own if is_repair(f.code)],
        "warnings": [f.message for f in own if f.severity == "warning"],
        "notes": [f.message for f in own if f.severity == "note" and not is_repair(f.code)],
        "score": series.score,
        "score_reasons": list(series.score_reasons),
        "chosen": is_chosen,
        **_grid(series),
        "findings": [
            {"code": f.code, "message": f.message, "severity": f.severity} for f in findings
        ],
    }


def _grid(series: Series) -> dict[str, Any]:
    """Size and geometry of the image that ``read`` gives; nulls where it gives none."""
    if series.geometry is None or series.verdict == "refused":
        return {"size": None, "spacing_mm": None, "origin_mm": None, "direction": None}
    return series_grid(series).as_dict()
