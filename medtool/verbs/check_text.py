"""The document of ``check`` as a person reads it on a screen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from medtool.core.names import counted

# Of files that were skipped for one reason; --json lists every one.
FILES_SHOWN = 3
USED, NOT_USED = "used", "-"
# What stands for the labels of patients whose outcome is known.
OUTCOMES = {"event": "with an event", "censored": "censored"}


def check_lines(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a series: used or not, verdict, case, description, files, size, codes."""
    rows: list[tuple[str, ...]] = [("", "verdict", "case", "series", "files", "size", "codes")]
    for series in document["series"]:
        size = "x".join(map(str, series["size"])) if series["size"] else ""
        findings = series["findings"]
        usable = series["chosen"] and all(f["severity"] != "refusal" for f in findings)
        rows.append(
            (
                USED if usable else NOT_USED,
                series["verdict"],
                series["case"],
                _name(series),
                str(series["files"]),
                size,
                " ".join(dict.fromkeys([*series["codes"], *(f["code"] for f in findings)])),
            )
        )
    return rows


def check_remarks(document: Mapping[str, Any]) -> list[str]:
    """What has to be said beside the table: reasons, skipped files, cases, labels, overrulings.

    What several series share is said once, with their number; so are notes of one kind.
    """
    said: dict[str, list[str]] = defaultdict(list)
    notes: dict[str, list[str]] = defaultdict(list)
    codes_of: dict[str, set[str]] = defaultdict(set)
    for series in document["series"]:
        who = f"{series['case'] or series['patient']}, {_name(series)}"
        codes_of[series["case"]] |= {*series["codes"], *(f["code"] for f in series["findings"])}
        for text in (*series["reasons"], *series["repairs"], *series["warnings"]):
            said[text].append(who)
        for finding in series["findings"]:
            if finding["severity"] == "note":
                notes[finding["code"]].append(f"{who}: {finding['message']}")
            else:
                said[finding["message"]].append(who)
    # Of a case only what its series do not say already: the choice of series, its patient.
    for case in document["cases"]:
        for finding in case["findings"]:
            if finding["code"] not in codes_of[case["case"]]:
                said[finding["message"]].append(case["case"])
    remarks = [f"{names[0]}{_others(names)}: {text}" for text, names in said.items()]
    remarks += [f"{code}: {texts[0]}{_others(texts)}" for code, texts in notes.items()]
    skipped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in document["skipped"]:
        skipped[entry["code"], entry["why"]].append(str(entry["file"]))
    remarks += [
        f"{counted(len(files), 'file')} skipped, {code}: {why} ({_some(files)})"
        for (code, why), files in skipped.items()
    ]
    for entry in document.get("overruled", ()):
        verb = "use" if entry["use"] else "leave out"
        remarks.append(f"{entry['who'] or 'a person'} said to {verb} {entry['key']}")
    return remarks + [finding["message"] for finding in document["findings"]]


def _some(files: Sequence[str]) -> str:
    """The first files by name; all of them are in the document of --json."""
    more = ", ..." if len(files) > FILES_SHOWN else ""
    return ", ".join(files[:FILES_SHOWN]) + more


def _name(series: Mapping[str, Any]) -> str:
    # A description may hold line ends.
    text = " ".join(str(series["description"]).split())
    return text or "..." + str(series["uid"])[-12:].lstrip(".")


def _others(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def check_summary(document: Mapping[str, Any]) -> str:
    """The last line: how many studies can be used, of how many patients, with which labels."""
    cases: Sequence[Mapping[str, Any]] = document["cases"]
    usable = [case for case in cases if case["usable"]]
    patients = len({case["patient"] for case in usable})
    text = f"{len(usable)} of {len(cases)} studies can be used, of {counted(patients, 'patient')}"
    labels = document["labels"]
    if classes := document.get("classes"):
        of_class = Counter(case["label"] for case in usable)
        seen = [f"{of_class[number]} {name}" for number, name in enumerate(classes)]
        seen += [f"{of_class[None]} without a class"] if of_class[None] else []
        return f"{text}; {', '.join(seen)}."
    named = Counter(name for case in usable for name in case.get("references", ()))
    masks = ", ".join(f"{n} with a {name.replace('_', ' ')}" for name, n in sorted(named.items()))
    if labels is None:
        return f"{text}; {masks or 'no labels'}."
    counts = ", ".join(
        f"{count} {OUTCOMES.get(label, f'labelled {label}')}"
        for label, count in labels["cases"].items()
    )
    said = "; ".join(part for part in (counts, masks) if part)
    return f"{text}; {said or 'none of them with a label'}."
