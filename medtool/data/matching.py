"""Labels to cases: by the one key that fits most rows, which is said; never by a mix of keys."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Labelled:
    """Cases with the labels that were found for them.

    ``cases`` are all of them, in the order given; those without a label keep None there.
    ``key`` says what the ids of the table are; ``unmatched_rows`` belong to no case.
    """

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]
    key: str
    unmatched_rows: tuple[LabelRow, ...]

    @property
    def with_label(self) -> tuple[Case, ...]:
        """The cases whose label is known."""
        return tuple(case for case in self.cases if case.label is not None)

    @property
    def without_label(self) -> tuple[Case, ...]:
        """The cases whose label is not known."""
        return tuple(case for case in self.cases if case.label is None)


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
    """Cases with labels, under the key that fits most rows of the table.

    An id is taken as it stands; where that finds nothing, without what spreadsheets do to ids
    (``relaxed``), as long as no two cases or rows become alike by it. Raises LabelsError when no
    key fits a single row.
    """
    fits = {key: _fit(cases, table, get) for key, get in KEYS.items()}
    # Most rows; of equal keys the one that labels more cases; then the order of KEYS.
    key = max(fits, key=lambda name: (len(fits[name][0]), _reach(cases, KEYS[name], fits[name][0])))
    matched, forgiven = fits[key]
    if not matched:
        raise _no_match(cases, table)
    row_of = dict(matched.values())
    get = KEYS[key]
    labelled = tuple(_with(case, row_of.get(get(case)), table.classes) for case in cases)
    _refuse_contradictions(cases, labelled, table)
    unmatched = tuple(row for row in table.rows if row.line not in matched)
    findings = [
        Finding(
            "label-key",
            f"{table.path.name}: column '{table.id_column}' matches the {key} of studies in "
            f"{len(matched)} of {len(table.rows)} rows, column '{table.label_column}' is the label "
            f"({table.how_read})",
        ),
        *table.findings,
        *_forgiven(table, forgiven),
        *_missing(labelled, unmatched, key),
    ]
    return Labelled(labelled, tuple(findings), key, unmatched)


def _fit(
    cases: Sequence[Case], table: LabelTable, get: Callable[[Case], str]
) -> tuple[dict[int, tuple[str, LabelRow]], list[str]]:
    """Line -> (value of the key, row) of the rows that fit, and ids that fit only relaxed."""
    values = {get(case) for case in cases} - {""}
    loose: dict[str, set[str]] = defaultdict(set)
    for value in values:
        loose[relaxed(value)].add(value)
    rows_alike: dict[str, int] = defaultdict(int)
    for row in table.rows:
        rows_alike[relaxed(row.identifier)] += 1
    matched: dict[int, tuple[str, LabelRow]] = {}
    forgiven = []
    for row in table.rows:
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
    matched: Mapping[int, tuple[str, LabelRow]],
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


def _forgiven(table: LabelTable, ids: Sequence[str]) -> list[Finding]:
    if not ids:
        return []
    return [
        Finding(
            "id-relaxed",
            f"{table.path.name}: {len(ids)} ids fit only when leading zeros, '.0' and letter case "
            f"are forgiven, as after Excel: {shown(ids)}",
            "warning",
        )
    ]


def _missing(cases: Sequence[Case], unmatched: Sequence[LabelRow], key: str) -> list[Finding]:
    findings = []
    bare = [case.case_id for case in cases if case.label is None]
    if bare:
        message = f"{len(bare)} of {len(cases)} cases have no label: {shown(bare)}"
        findings.append(Finding("case-without-label", message, "warning"))
    if unmatched:
        ids = [row.identifier for row in unmatched]
        message = f"{len(ids)} labels match the {key} of no study: {shown(ids)}"
        if any(re.fullmatch(r"\d[.,]\d+e\+\d+", i.lower()) for i in ids):
            message += " (some were turned into powers of ten by a spreadsheet: restore them)"
        findings.append(Finding("label-without-case", message, "warning"))
    return findings


def shown(ids: Sequence[str]) -> str:
    """The first ids, and that there are more."""
    return ", ".join(ids[:IDS_SHOWN]) + (", ..." if len(ids) > IDS_SHOWN else "")


def _no_match(cases: Sequence[Case], table: LabelTable) -> LabelsError:
    first = cases[0] if cases else None
    ids = [row.identifier for row in table.rows]
    known = {get(case) for case in cases for get in KEYS.values()} - {""}
    have = "" if first is None else "; ".join(f"{k} '{get(first)}'" for k, get in KEYS.items())
    return LabelsError(
        "No row of the table of labels fits any case.",
        where=f"{table.path}, column '{table.id_column}'",
        met=f"ids such as {shown(ids[:3])}",
        wanted=f"ids of the cases; the first case has {have}" if have else "cases",
        nearest=next((near for i in ids[:IDS_SHOWN] if (near := nearest_name(i, known))), ""),
        how="another column may hold them: --set data.id_column=NAME.",
    )
