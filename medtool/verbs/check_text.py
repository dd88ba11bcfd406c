"""The document of ``check`` as a person reads it on a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# What stands in the first column: chosen series are the ones that are used.
MARKS = {True: "used", False: "-"}


def check_lines(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a series: used or not, verdict, case, description, files, size, codes."""
    rows: list[tuple[str, ...]] = [("", "verdict", "case", "series", "files", "size", "codes")]
    for series in document["series"]:
        size = "x".join(map(str, series["size"])) if series["size"] else ""
        codes = [*series["codes"], *(finding["code"] for finding in series["findings"])]
        rows.append(
            (
                MARKS[bool(series["chosen"])],
                series["verdict"],
                series["case"],
                series["description"] or series["uid"][-12:],
                str(series["files"]),
                size,
                " ".join(dict.fromkeys(codes)),
            )
        )
    return rows


def check_remarks(document: Mapping[str, Any]) -> list[str]:
    """What has to be said beside the table: reasons, skipped files, cases, labels, overrulings."""
    remarks = []
    for series in document["series"]:
        said = [*series["reasons"], *series["repairs"], *series["warnings"]]
        said += [finding["message"] for finding in series["findings"]]
        name = series["description"] or series["uid"]
        remarks += [f"{series['case'] or series['patient']}, {name}: {text}" for text in said]
    skipped = Counter(entry["code"] for entry in document["skipped"])
    for code, count in sorted(skipped.items()):
        why = next(entry["why"] for entry in document["skipped"] if entry["code"] == code)
        remarks.append(f"{count} files skipped, {code}: {why}")
    for entry in document.get("overruled", ()):
        who = entry["who"] or "a person"
        verb = "use" if entry["use"] else "leave out"
        remarks.append(f"{who} said to {verb} {entry['key']} ({entry['file']})")
    remarks += [finding["message"] for finding in document["findings"]]
    return remarks


def check_summary(document: Mapping[str, Any]) -> str:
    """The last line: how many studies can be used, of how many patients, with which labels."""
    cases: Sequence[Mapping[str, Any]] = document["cases"]
    usable = [case for case in cases if case["usable"]]
    patients = len({case["patient"] for case in usable})
    text = f"{len(usable)} of {len(cases)} studies can be used, of {patients} patients"
    labels = document["labels"]
    if labels is None:
        return f"{text}; no labels."
    counts = ", ".join(f"{count} labelled {label}" for label, count in labels["cases"].items())
    return f"{text}; {counts}."
