"""The table of labels: which columns it is, what its values mean, what is wrong with it.

Matching to cases is in ``medtool.data.matching``; ``attach_labels`` is offered here as well.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from medtool.config.sections import DataSection
from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name
from medtool.core.records import Finding
from medtool.data.foreign_table import ForeignRow, ForeignTable, read_foreign_table

LABELS_PATTERN = "labels*.csv"
# Rows that a refusal shows before it counts the rest.
ROWS_SHOWN = 8
# Labels with more values than this are numbers, or words about a case, not classes.
MOST_CLASSES = 10

# Names of id columns, in lower case without anything but letters; the first that is there is taken.
ID_NAMES = (
    ("case", "caseid"),
    ("study", "studyid", "studyinstanceuid", "studyuid"),
    ("accession", "accessionnumber", "accessionno"),
    ("patient", "patientid", "patid", "pid", "subject", "subjectid", "mrn"),
    ("folder", "directory", "scan", "scanid"),
    ("id", "identifier", "name", "key"),
)
LABEL_NAMES = (
    ("label", "labels"),
    ("class", "subtype", "target", "y", "groundtruth", "gt", "truth"),
    ("outcome", "diagnosis", "result", "status", "positive", "finding"),
)


@dataclass(frozen=True)
class LabelRow:
    """One row: ``label`` is the number of its class, or None where the cell is empty."""

    line: int
    identifier: str
    label: float | None
    covariates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelTable:
    """A table whose columns and values are understood; ids are unique.

    ``classes`` are the names of the classes by number, where they have names of their own.
    """

    path: Path
    id_column: str
    label_column: str
    rows: tuple[LabelRow, ...]
    findings: tuple[Finding, ...]
    how_read: str
    classes: tuple[str, ...] = ()


def find_labels(folder: Path, patterns: Sequence[str] = (LABELS_PATTERN,)) -> Path | None:
    """The one table of such a name (in any letter case) beside the scans, or None.

    Raises LabelsError when there are several.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if any(fnmatch(path.name.lower(), one) for one in patterns) and path.is_file()
    )
    if len(found) > 1:
        raise LabelsError(
            "There are several tables of labels.",
            where=str(folder),
            met=", ".join(path.name for path in found),
            wanted="one " + " or ".join(patterns),
            how="name one with --labels, or in medtool.toml.",
        )
    return found[0] if found else None


def normal_value(text: str) -> str:
    """A label as it is compared: lower case, and a whole number without its decimals.

    Excel writes 1 as ``1.0`` or, where the comma is decimal, as ``1,0``.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"[+-]?\d+[.,]0*", plain):
        plain = re.split(r"[.,]", plain)[0]
    if re.fullmatch(r"\+?\d+", plain):
        plain = str(int(plain))
    return plain


def read_labels(path: Path, data: DataSection) -> LabelTable:
    """The table at ``path`` under the columns and values of ``data``.

    Raises LabelsError: unreadable, a column missing or not recognised, values outside the two
    classes, one id with two labels, no label at all.
    """
    table = read_foreign_table(path, unwrap=True)
    label_column = _column(table, data.label_column, "label_column", "label")
    id_column = _column(table, data.id_column, "id_column", "id")
    if not label_column:
        label_column = _recognised_label(table, data, without=id_column)
    if not id_column:
        id_column = _recognised_id(table, without=label_column)
    if id_column == label_column:
        raise LabelsError(
            "Id and label are the same column.", where=str(path), met=id_column, wanted="two"
        )
    known, classes = _meanings(data), tuple(data.class_values())
    if not known:
        known, classes = _own_classes(table, id_column, label_column)
    rows, findings = _understood(table, data, known, id_column, label_column)
    rows, more = _unique(table, rows, id_column)
    if all(row.label is None for row in rows):
        raise LabelsError(
            "The table of labels has no label.",
            where=f"{path}, column '{label_column}'",
            met=f"{len(rows)} rows, all empty there",
        )
    return LabelTable(
        path=path,
        id_column=id_column,
        label_column=label_column,
        rows=tuple(rows),
        findings=(*table.findings, *findings, *more),
        how_read=table.how_read(),
        classes=classes if data.names_classes else (),
    )


def _form(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _column(table: ForeignTable, name: str | None, key: str, kind: str) -> str:
    """The column that the preset names (letter case is forgiven), or "" when it names none."""
    if name is None:
        return ""
    for column in table.columns:
        if column == name or column.casefold() == name.casefold():
            return column
    raise LabelsError(
        f"The table of labels has no column '{name}'.",
        where=str(table.path),
        met="columns " + ", ".join(table.columns),
        wanted=f"the {kind} column that data.{key} names",
        nearest=nearest_name(name, table.columns),
        how=f"--set data.{key}=NAME",
    )


def _by_name(table: ForeignTable, names: Sequence[Sequence[str]], without: str) -> str:
    """The column with the best of ``names``, or ""; two equally good ones are none."""
    for group in names:
        fitting = [c for c in table.columns if _form(c) in group and c != without]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            return ""
    return ""


def _recognised_label(table: ForeignTable, data: DataSection, *, without: str) -> str:
    named = _by_name(table, LABEL_NAMES, without)
    if named:
        return named
    known = _meanings(data)
    # By content: the one column that holds nothing but the two classes.
    fitting = [
        column
        for column in table.columns
        if column != without
        and (values := {normal_value(row.cells[column]) for row in table.rows} - {""})
        and values <= known.keys()
    ]
    if len(fitting) == 1:
        return fitting[0]
    raise LabelsError(
        "No column of the table of labels is recognised as the label.",
        where=str(table.path),
        met="columns " + ", ".join(table.columns),
        wanted="a column named label, class, target, outcome, ..., or one "
        + ("of the classes" if data.names_classes else "0/1 or yes/no column")
        + (f"; {', '.join(fitting)} all hold such values" if fitting else ""),
        how="--set data.label_column=NAME, or write it into the preset or medtool.toml.",
    )


def id_column_of(table: ForeignTable, data: DataSection, *, without: str = "") -> str:
    """The column of ids, that the preset names or its own name does. Raises LabelsError."""
    named = _column(table, data.id_column, "id_column", "id")
    return named or _recognised_id(table, without=without)


def _recognised_id(table: ForeignTable, *, without: str) -> str:
    named = _by_name(table, ID_NAMES, without)
    if named:
        return named
    others = [column for column in table.columns if column != without]
    if len(others) == 1:
        return others[0]
    raise LabelsError(
        "No column of the table of labels is recognised as the id.",
        where=str(table.path),
        met="columns " + ", ".join(table.columns),
        wanted="a column named case, study, accession, patient, folder or id",
        how="--set data.id_column=NAME, or write it into the preset or medtool.toml.",
    )


def _meanings(data: DataSection) -> dict[str, float]:
    """Value of a cell -> number of the class; empty where classes are not known yet."""
    meanings: dict[str, float] = {}
    for number, values in enumerate(data.class_values().values()):
        for value in map(normal_value, values):
            if meanings.setdefault(value, float(number)) != number:
                raise LabelsError(
                    "A value means two classes at once."
                    if data.names_classes
                    else "A value means positive and negative at once.",
                    where="data.classes"
                    if data.names_classes
                    else "data.positive_values and data.negative_values",
                    met=value,
                )
    return meanings


def _own_classes(
    table: ForeignTable, id_column: str, label_column: str
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Every value of the column is a class: numbers of the values, and their names, sorted.

    Raises LabelsError where they are too many to be classes.
    """
    texts = [row.cells[label_column] for row in table.rows if row.cells[id_column]]
    names = class_names(texts)
    if len(names) > MOST_CLASSES:
        raise LabelsError(
            "The column of classes holds more values than classes.",
            where=f"{table.path}, column '{label_column}'",
            met=f"{len(names)} values: {', '.join(names[:ROWS_SHOWN])}, ...",
            wanted=f"at most {MOST_CLASSES}",
            how="name the column of the classes: --set data.label_column=NAME.",
        )
    return {normal_value(name): float(n) for n, name in enumerate(names)}, names


def class_names(texts: Iterable[str]) -> tuple[str, ...]:
    """The different values among ``texts`` in order, each as it is first spelt; none is empty."""
    first: dict[str, str] = {}
    for text in texts:
        if value := normal_value(text):
            first.setdefault(value, text.strip())
    return tuple(first[value] for value in sorted(first, key=_class_order))


def _class_order(value: str) -> tuple[bool, int, str]:
    """Numbers come first, by their value; then words."""
    return (False, int(value), "") if value.isdigit() else (True, 0, value)


def _understood(
    table: ForeignTable,
    data: DataSection,
    known: Mapping[str, float],
    id_column: str,
    label_column: str,
) -> tuple[list[LabelRow], list[Finding]]:
    """Rows with their label; all values that mean no class are refused together."""
    rows, strange, unlabelled, nameless = [], [], [], []
    for row in table.rows:
        identifier, text = row.cells[id_column], row.cells[label_column]
        value = normal_value(text)
        if not identifier:
            nameless.append(row)
        elif value and value not in known:
            strange.append((row, text))
        else:
            others = {k: v for k, v in row.cells.items() if k not in (id_column, label_column)}
            rows.append(LabelRow(row.line, identifier, known.get(value), others))
            if not value:
                unlabelled.append(row)
    if strange:
        shown = "; ".join(f"line {row.line}: '{text}'" for row, text in strange[:ROWS_SHOWN])
        more = f"; and {len(strange) - ROWS_SHOWN} more" if len(strange) > ROWS_SHOWN else ""
        raise LabelsError(
            "Some labels are none of the classes."
            if data.names_classes
            else "Some labels are neither of the two classes.",
            where=f"{table.path}, column '{label_column}'",
            met=shown + more,
            wanted="one of: " + ", ".join(data.class_values())
            if data.names_classes
            else f"positive: {', '.join(data.positive_values)}; "
            f"negative: {', '.join(data.negative_values)}",
            nearest=nearest_name(strange[0][1], known),
            how="correct them, empty the cell, or name "
            + (
                "all classes in data.classes."
                if data.names_classes
                else "the values in data.positive_values and data.negative_values."
            ),
        )
    findings = []
    if unlabelled:
        findings.append(_about_rows("label-empty", "no label", unlabelled, table))
    if nameless:
        findings.append(_about_rows("id-empty", "no id: left out", nameless, table))
    return rows, findings


def _about_rows(code: str, what: str, rows: Sequence[ForeignRow], table: ForeignTable) -> Finding:
    lines = ", ".join(str(row.line) for row in rows[:ROWS_SHOWN])
    more = ", ..." if len(rows) > ROWS_SHOWN else ""
    return Finding(
        code, f"{table.path.name}: {len(rows)} rows with {what} (lines {lines}{more})", "warning"
    )


def _unique(
    table: ForeignTable, rows: Sequence[LabelRow], id_column: str
) -> tuple[list[LabelRow], list[Finding]]:
    """One row an id: the same label twice is said, two labels of one id are refused."""
    by_id: dict[str, list[LabelRow]] = defaultdict(list)
    for row in rows:
        by_id[row.identifier].append(row)
    torn = {i: same for i, same in by_id.items() if len({r.label for r in same} - {None}) > 1}
    if torn:
        shown = "; ".join(
            f"'{identifier}' in lines "
            + ", ".join(f"{r.line} ({'' if r.label is None else int(r.label)})" for r in same)
            for identifier, same in list(torn.items())[:ROWS_SHOWN]
        )
        raise LabelsError(
            "Some ids have two labels that contradict each other.",
            where=f"{table.path}, column '{id_column}'",
            met=f"{len(torn)} of {len(by_id)} ids: {shown}",
            wanted="one label an id",
            how="keep the right row of each; where studies of one patient differ, give the id of "
            "the study (case, accession or StudyInstanceUID).",
        )
    unique = [next((r for r in same if r.label is not None), same[0]) for same in by_id.values()]
    doubled = [identifier for identifier, same in by_id.items() if len(same) > 1]
    if not doubled:
        return unique, []
    names = ", ".join(doubled[:ROWS_SHOWN]) + (", ..." if len(doubled) > ROWS_SHOWN else "")
    message = f"{table.path.name}: {len(doubled)} ids stand there more than once, with one label"
    return unique, [Finding("label-duplicate", f"{message}: {names}", "warning")]
