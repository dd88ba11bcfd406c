"""series.csv: what the rules said of every series, and a column ``use`` for what a person says.

``check --csv`` writes it, ``--series`` of check, preprocess, train and infer reads it back. A row
overrules the rules where ``use`` differs from ``chosen``, or where a person overruled before (then
``by`` says so). Who did it may be written into ``who``; the record of a run keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name
from medtool.core.records import Cohort, Finding, Source
from medtool.data.foreign_table import ForeignTable, read_foreign_table
from medtool.data.predictions import table_text

SERIES_COLUMNS = (
    "key",
    "uid",
    "case",
    "patient",
    "modality",
    "description",
    "files",
    "verdict",
    "codes",
    "reasons",
    "score",
    "chosen",
    "by",
    "use",
    "who",
)
# Excel writes truth values in the language of its menus.
YES = ("yes", "y", "1", "1.0", "1,0", "true", "x", "ja", "oui", "wahr", "vrai", "vero", "verdadero")
NO = ("no", "n", "0", "0.0", "0,0", "false", "nein", "non", "falsch", "faux", "falso")
PERSON, RULES = "person", "rules"


@dataclass(frozen=True)
class Overruling:
    """A series that a person says to use, or not to use, against the rules."""

    key: str
    use: bool
    who: str
    line: int
    case: str = ""


def series_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a series of the document of ``check --json``."""
    overruled = {entry["key"] for entry in document.get("overruled", ())}
    rows = []
    for series in document["series"]:
        key = series_key(series)
        by_person = bool({key, series["uid"]} & overruled)
        findings = [finding["code"] for finding in series["findings"]]
        messages = [finding["message"] for finding in series["findings"]]
        rows.append(
            {
                "key": key,
                "uid": series["uid"],
                "case": series["case"],
                "patient": series["patient"],
                "modality": series.get("modality", ""),
                "description": series["description"],
                "files": series["files"],
                "verdict": series["verdict"],
                "codes": " ".join(dict.fromkeys([*series["codes"], *findings])),
                "reasons": "; ".join(
                    [*series["reasons"], *series["repairs"], *series["warnings"], *messages]
                ),
                "score": series["score"],
                "chosen": _word(series["chosen"]),
                "by": PERSON if by_person else RULES,
                "use": _word(series["chosen"]),
                "who": "",
            }
        )
    return rows


def series_table_text(document: Mapping[str, Any]) -> str:
    """The table as CSV text."""
    return table_text(series_rows(document), SERIES_COLUMNS)


def series_key(series: Mapping[str, Any]) -> str:
    """What tells the series apart, also where two stacks share a UID."""
    return str(series.get("key") or series["uid"])


def read_series_table(path: Path) -> dict[str, bool]:
    """Series key -> whether a person says to use it, for the series that a person overruled.

    Raises LabelsError.
    """
    return {overruling.key: overruling.use for overruling in read_overrulings(path)}


def source_of(
    paths: Sequence[Path], *, labels: Path | None = None, series: Path | None = None
) -> Source:
    """Where to look, with what a person said in the table ``series``. Raises LabelsError."""
    if series is None:
        return Source(paths=tuple(paths), labels=labels)
    return Source(
        paths=tuple(paths),
        labels=labels,
        series_overrides=read_series_table(series),
        overrides_from=str(series),
    )


def read_overrulings(path: Path) -> tuple[Overruling, ...]:
    """The rows in which a person overruled the rules. Raises LabelsError."""
    table = read_foreign_table(path, kind="table of series")
    missing = [name for name in ("key", "chosen", "use") if name not in table.columns]
    if missing:
        raise LabelsError(
            "The table of series lacks a column.",
            where=str(path),
            met="columns " + ", ".join(table.columns),
            wanted=", ".join(missing),
            nearest=nearest_name(missing[0], table.columns),
            how="'medtool check TASK DATA --csv series.csv' writes one; edit its column 'use'.",
        )
    strange = [
        f"line {row.line}: '{row.cells['use']}'"
        for row in table.rows
        if _meaning(row.cells["use"]) is None and row.cells["use"]
    ]
    if strange:
        raise LabelsError(
            "The column 'use' is neither yes nor no.",
            where=str(path),
            met="; ".join(strange[:8]),
            wanted="yes or no; empty leaves it to the rules",
        )
    return _overrulings(table)


def _overrulings(table: ForeignTable) -> tuple[Overruling, ...]:
    found = []
    for row in table.rows:
        use, chosen = _meaning(row.cells["use"]), _meaning(row.cells["chosen"])
        if use is None or (use == chosen and row.cells.get("by") != PERSON):
            continue
        who, case = row.cells.get("who", ""), row.cells.get("case", "")
        found.append(Overruling(row.cells["key"], use, who, row.line, case))
    return tuple(found)


def recorded_overrulings(cohort: Cohort, source: Source) -> Cohort:
    """The cohort with ``intake["overruled"]``: who overruled which series, and in which file.

    A row whose series is not there is a warning among the findings.
    """
    if not source.overrides_from:
        return cohort
    overruled = read_overrulings(Path(source.overrides_from))
    known = {
        name for series in cohort.intake["series"] for name in (series_key(series), series["uid"])
    }
    entries = [
        {**asdict(one), "file": source.overrides_from, "met": one.key in known} for one in overruled
    ]
    lost = [one.key for one in overruled if one.key not in known]
    findings: Sequence[Finding] = cohort.findings
    if lost:
        message = (
            f"{source.overrides_from} overrules {len(lost)} series that are not here: "
            + ", ".join(lost[:5])
        )
        findings = (*findings, Finding("overruled-not-found", message, "warning"))
    return replace(cohort, intake={**cohort.intake, "overruled": entries}, findings=tuple(findings))


def _word(value: object) -> str:
    return "yes" if value else "no"


def _meaning(text: str) -> bool | None:
    plain = text.strip().lower()
    return True if plain in YES else False if plain in NO else None
