"""What check prints, for a small document written by hand."""

from __future__ import annotations

from typing import Any

from medtool.verbs.check_text import check_lines, check_remarks, check_summary


def _series(case: str, description: str, **changes: Any) -> dict[str, Any]:
    return {
        "uid": "1.2.840.113619.2.55",
        "case": case,
        "patient": f"patient of {case}",
        "description": description,
        "files": 20,
        "verdict": "accepted",
        "codes": [],
        "reasons": [],
        "repairs": [],
        "warnings": [],
        "chosen": True,
        "size": [512, 512, 20],
        "findings": [],
    } | changes


def _finding(code: str, message: str, severity: str = "note") -> dict[str, str]:
    return {"code": code, "message": message, "severity": severity}


DROPPED = _finding("slices-dropped", "2 slices are not used")
NO_BRAIN = _finding("no-brain", "no brain", "refusal")
DOCUMENT = {
    "series": [
        _series("A", "Head 5.0", codes=["gantry-tilt"], repairs=["sheared"], findings=[DROPPED]),
        _series("A", "Scout", chosen=False, verdict="refused", size=None, reasons=["a localizer"]),
        _series("B", "", findings=[NO_BRAIN]),
        _series("C", "Scout", chosen=False, verdict="refused", size=None, reasons=["a localizer"]),
    ],
    "skipped": [{"file": "x", "code": "not-dicom", "why": "not a DICOM file"}] * 3,
    "cases": [
        {
            "case": "A", "patient": "P", "label": 1.0, "usable": True,
            "findings": [
                _finding("gantry-tilt", "sheared"), DROPPED, _finding("not-chosen", "runner-up")
            ],
        },
        {"case": "B", "patient": "Q", "label": 0.0, "usable": False, "findings": [NO_BRAIN]},
    ],
    "labels": {"cases": {"0": 1, "1": 1}},
    "findings": [_finding("layout", "Scans are taken from CTs")],
    "overruled": [{"key": "1.2", "use": False, "who": "Dr. A", "file": "series.csv"}],
}  # fmt: skip


def test_one_line_a_series() -> None:
    assert check_lines(DOCUMENT)[1:] == [
        ("used", "accepted", "A", "Head 5.0", "20", "512x512x20", "gantry-tilt slices-dropped"),
        ("-", "refused", "A", "Scout", "20", "", ""),
        ("-", "accepted", "B", "...113619.2.55", "20", "512x512x20", "no-brain"),
        ("-", "refused", "C", "Scout", "20", "", ""),
    ]


def test_everything_is_said_once() -> None:
    assert check_remarks(DOCUMENT) == [
        "A, Head 5.0: sheared",
        "A, Scout (and 1 more): a localizer",
        "B, ...113619.2.55: no brain",
        "A: runner-up",
        "slices-dropped: A, Head 5.0: 2 slices are not used",
        "3 files skipped, not-dicom: not a DICOM file (x, x, x)",
        "Dr. A said to leave out 1.2",
        "Scans are taken from CTs",
    ]


def test_the_last_line_counts() -> None:
    assert check_summary(DOCUMENT) == (
        "1 of 2 studies can be used, of 1 patient; 1 labelled 0, 1 labelled 1."
    )
    assert check_summary(DOCUMENT | {"labels": None}).endswith("; no labels.")


def test_outcomes_and_masks_are_counted() -> None:
    cases = [
        {"case": name, "patient": name, "usable": True, "references": references}
        for name, references in (("A", ["mask"]), ("B", []), ("C", ["mask"]))
    ]
    document = {"cases": cases, "labels": {"cases": {"censored": 2, "event": 1}}}
    assert check_summary(document) == (
        "3 of 3 studies can be used, of 3 patients; 2 censored, 1 with an event; 2 with a mask."
    )
