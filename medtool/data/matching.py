"""Labels to cases: by the one key that fits most rows, which is said; never by a mix of keys."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name
from medtool.core.records import Case, Finding
from medtool.data.labels import LabelRow, LabelTable

# Ids shown before the rest is counted.
IDS_SHOWN = 8
# The fact of a case that names its class, where classes have names.
CLASS_FACT = "class"

# The keys in order of preference, which settles a tie.
KEYS: Mapping[str, Callable[[Case], str]] = {
    "case": lambda case: case.case_id,
    "PatientID": lambda case: case.patient_id,
    "accession": lambda case: case.accession,
    "StudyInstanceUID": lambda case: case.study_uid,
    "folder": lambda case: case.folder,
}


class IdentifiedRow(Protocol):
    """A row of a table that says something of a case."""

    @property
    def line(self) -> int:
        """Its line in the file."""

    @property
    def identifier(self) -> str:
        """The id of the case, or of another of ``KEYS``."""


Row = TypeVar("Row", bound=IdentifiedRow)


@dataclass(frozen=True)
class Labelled:
    """Cases with the labels, or outcomes, that were found for them.

    ``cases`` are all of them, in the order given; those without a label keep None there.
    ``key`` says what the ids of the table are; ``unmatched_rows`` belong to no case.
    """

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]
    key: str
    unmatched_rows: tuple[IdentifiedRow, ...]

    @property
    def with_label(self) -> tuple[Case, ...]:
        """The cases whose label, or outcome, is known."""
        return tuple(case for case in self.cases if _is_known(case))

    @property
    def without_label(self) -> tuple[Case, ...]:
        """The cases of which neither is known."""
        return tuple(case for case in self.cases if not _is_known(case))


def _is_known(case: Case) -> bool:
    return case.label is not None or case.outcome is not None


@dataclass(frozen=True)
class Fit(Generic[Row]):
    """The key under which most rows of a table fit: line -> (value of the key, row).

    ``forgiven`` are ids that fit only without what spreadsheets do to them.
    """

    key: str
    matched: Mapping[int, tuple[str, Row]]
    forgiven: tuple[str, ...]

    def rows_of(self, cases: Sequence[Case]) -> list[Row | None]:
        """The row of each case, None where it has none."""
        row_of = dict(self.matched.values())
        get = KEYS[self.key]
        return [row_of.get(get(case)) for case in cases]

    def unmatched(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Rows that belong to no case."""
        return tuple(row for row in rows if row.line not in self.matched)


def best_fit(cases: Sequence[Case], rows: Sequence[Row], where: str) -> Fit[Row]:
    """The one key that fits most rows of the table ``where``.

    An id is taken as it stands; where that finds nothing, without what spreadsheets do to ids
    (``relaxed``), as long as no two cases or rows become alike by it. Raises LabelsError when no
    key fits a single row.
    """
    fits = {key: _fit(cases, rows, get) for key, get in KEYS.items()}
    # Most rows; of equal keys the one that labels more cases; then the order of KEYS.
    key = max(fits, key=lambda name: (len(fits[name][0]), _reach(cases, KEYS[name], fits[name][0])))
    matched, forgiven = fits[key]
    if not matched:
        raise _no_match(cases, rows, where)
    return Fit(key, matched, tuple(forgiven))


def relaxed(identifier: str) -> str:
    """An id without what spreadsheets do to it: ``007``, ``7`` and ``7.0`` are one; case is too.

    Nor with the ending of a file that is named in place of its case (``a.nii.gz``).
    """
    text = re.sub(r"\.nii(\.gz)?$", "", identifier.strip().casefold())
    if re.fullmatch(r"\d+[.,]0+", text):
        text = re.split(r"[.,]", text)[0]
    if re.fullmatch(r"\d+", text):
        text = text.lstrip("0") or "0"
    return text


def attach_labels(cases: Sequence[Case], table: LabelTable) -> Labelled:
    """Cases with labels, under the key that fits most rows of the table (``best_fit``).

    Raises LabelsError.
    """
    fit = best_fit(cases, table.rows, f"{table.path}, column '{table.id_column}'")
    labelled = tuple(
        _with(case, row, table.classes) for case, row in zip(cases, fit.rows_of(cases), strict=True)
    )
    _refuse_contradictions(cases, labelled, table)
    unmatched = fit.unmatched(table.rows)
    findings = [
        Finding(
            "label-key",
            f"{table.path.name}: column '{table.id_column}' matches the {fit.key} of studies in "
            f"{len(fit.matched)} of {len(table.rows)} rows, column '{table.label_column}' is the "
            f"label ({table.how_read})",
        ),
        *table.findings,
        *said_of_ids(table.path.name, fit),
        *said_of_missing(labelled, unmatched, fit.key),
    ]
    return Labelled(labelled, tuple(findings), fit.key, unmatched)


def _fit(
    cases: Sequence[Case], rows: Sequence[Row], get: Callable[[Case], str]
) -> tuple[dict[int, tuple[str, Row]], list[str]]:
    """Line -> (value of the key, row) of the rows that fit, and ids that fit only relaxed."""
    values = {get(case) for case in cases} - {""}
    loose: dict[str, set[str]] = defaultdict(set)
    for value in values:
        loose[relaxed(value)].add(value)
    rows_alike: dict[str, int] = defaultdict(int)
    for row in rows:
        rows_alike[relaxed(row.identifier)] += 1
    matched: dict[int, tuple[str, Row]] = {}
    forgiven = []
    for row in rows:
        form = relaxed(row.identifier)
        if row.identifier in values:
            matched[row.line] = (row.identifier, row)
        elif len(loose.get(form, ())) == 1 and rows_alike[form] == 1:
            matched[row.line] = (next(iter(loose[form])), row)
            forgiven.append(row.identifier)
    return matched, forgiven


def _reach(
    cases: Sequence[Case],
    get: Callable[[Case], str],
    matched: Mapping[int, tuple[str, Row]],
) -> int:
    """How many cases the matched rows label."""
    values = {value for value, _ in matched.values()}
    return sum(get(case) in values for case in cases)


def _with(case: Case, row: LabelRow | None, classes: Sequence[str]) -> Case:
    if row is None:
        return case
    covariates = {**case.covariates, **row.covariates}
    if row.label is None:
        return replace(case, covariates=covariates)
    named = with_class(case, int(row.label), classes) if classes else case
    return replace(named, label=row.label, covariates=covariates)


def with_class(case: Case, number: int, classes: Sequence[str]) -> Case:
    """The case as one of a named class: its number as label, its name as a fact for tables."""
    return replace(case, label=float(number), facts={**case.facts, CLASS_FACT: classes[number]})


def _refuse_contradictions(
    cases: Sequence[Case], labelled: Sequence[Case], table: LabelTable
) -> None:
    """A label that came with the case (from a manifest) and the table's have to be one."""
    torn = [
        f"{before.case_id} ({before.label:g} there, {after.label:g} here)"
        for before, after in zip(cases, labelled, strict=True)
        if before.label is not None and after.label is not None and before.label != after.label
    ]
    if torn:
        raise LabelsError(
            "The table of labels contradicts the labels that came with the cases.",
            where=str(table.path),
            met=f"{len(torn)} cases: {shown(torn)}",
            wanted="one label a case",
            how="correct one of the two, or leave the label column of the manifest out.",
        )


def said_of_ids(name: str, fit: Fit[Row]) -> list[Finding]:
    """What is to be said of ids of the table ``name`` that fit only when they are forgiven."""
    if not fit.forgiven:
        return []
    return [
        Finding(
            "id-relaxed",
            f"{name}: {len(fit.forgiven)} ids fit only when leading zeros, '.0' and letter case "
            f"are forgiven, as after Excel: {shown(fit.forgiven)}",
            "warning",
        )
    ]


def said_of_missing(
    cases: Sequence[Case], unmatched: Sequence[IdentifiedRow], key: str, what: str = "label"
) -> list[Finding]:
    """Cases that the table does not name, and rows that name no case; ``what`` they are about."""
    findings = []
    bare = [case.case_id for case in cases if not _is_known(case)]
    if bare:
        message = f"{len(bare)} of {len(cases)} cases have no {what}: {shown(bare)}"
        findings.append(Finding("case-without-label", message, "warning"))
    if unmatched:
        ids = [row.identifier for row in unmatched]
        message = f"{len(ids)} {what}s match the {key} of no study: {shown(ids)}"
        if any(re.fullmatch(r"\d[.,]\d+e\+\d+", i.lower()) for i in ids):
            message += " (some were turned into powers of ten by a spreadsheet: restore them)"
        findings.append(Finding("label-without-case", message, "warning"))
    return findings


def shown(ids: Sequence[str]) -> str:
    """The first ids, and that there are more."""
    return ", ".join(ids[:IDS_SHOWN]) + (", ..." if len(ids) > IDS_SHOWN else "")


def _no_match(cases: Sequence[Case], rows: Sequence[IdentifiedRow], where: str) -> LabelsError:
    first = cases[0] if cases else None
    ids = [row.identifier for row in rows]
    known = {get(case) for case in cases for get in KEYS.values()} - {""}
    have = "" if first is None else "; ".join(f"{k} '{get(first)}'" for k, get in KEYS.items())
    return LabelsError(
        "No row of the table of labels fits any case.",
        where=where,
        met=f"ids such as {shown(ids[:3])}",
        wanted=f"ids of the cases; the first case has {have}" if have else "cases",
        nearest=next((near for i in ids[:IDS_SHOWN] if (near := nearest_name(i, known))), ""),
        how="another column may hold them: --set data.id_column=NAME.",
    )
