"""The manifest: a CSV with a row a case that names its images, mask, patient, class and part.

Columns: ``image``, or ``image_NAME`` for each channel; and where they are known ``case``,
``patient``, ``mask``, ``label``, ``part``. Further columns are covariates. Paths are relative to
the manifest. An image may be a volume, a picture, a DICOM file or a folder of DICOM slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name, safe_file_stem
from medtool.core.records import Finding, Part, RefusedStudy
from medtool.data.dataset_record import (
    BACKGROUND,
    ImageReference,
    LabelScheme,
    SegmentationCase,
    SegmentationDataset,
)
from medtool.data.foreign_table import ForeignTable, read_foreign_table
from medtool.data.layout_files import beside, image_stem, without_masks
from medtool.data.splits import part_named

IMAGE = "image"
CHANNEL_PREFIX = "image_"
TABLE_ENDINGS = (".csv", ".tsv")
KNOWN_COLUMNS = ("case", "patient", "mask", "label", "part")
# Faults of one manifest that are shown before the rest is counted.
FAULTS_SHOWN = 10
# What a manifest that says nothing of labels means by its masks.
ONE_LABEL = LabelScheme({BACKGROUND: (0,), "foreground": (1,)})


def is_segmentation_manifest(path: Path) -> bool:
    """Whether the table has the columns of a manifest with masks. Raises LabelsError."""
    columns = {column.casefold() for column in read_foreign_table(path, kind="manifest").columns}
    return "mask" in columns and any(_is_image(column) for column in columns)


def is_table(path: Path) -> bool:
    """Whether a file is named as a table."""
    return path.is_file() and path.suffix.lower() in TABLE_ENDINGS


def read_manifest(
    path: Path, labels: LabelScheme | None, *, lacking: Mapping[str, str] | None = None
) -> SegmentationDataset:
    """The data set that a manifest lists; ``labels`` are those that the preset declares.

    A row without an image in a column of ``lacking`` (in lower case) is refused with the code
    that stands there, else the manifest is. Raises LabelsError with every fault of the file.
    """
    table = read_foreign_table(path, kind="manifest", unwrap=True)
    columns = {column.casefold(): column for column in table.columns}
    images = [name for name in columns if _is_image(name)]
    if not images:
        raise LabelsError(
            "The manifest has no column of images.",
            where=str(path),
            met="columns " + ", ".join(table.columns),
            wanted="image, or image_NAME for each channel; mask, case, patient where known",
            nearest=nearest_name(IMAGE, columns),
        )
    whole, refused = _without_incomplete(table, lacking or {})
    cases, faults = _cases(whole, images)
    twice = [name for name, count in Counter(case.case_id for case in cases).items() if count > 1]
    faults += [f"case '{name}' is there twice" for name in twice]
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise LabelsError(
            "The manifest cannot be used.",
            where=str(path),
            met="; ".join(faults[:FAULTS_SHOWN]) + more,
        )
    return SegmentationDataset(
        layout="manifest",
        root=path.parent,
        name=path.stem,
        channels=tuple(_channel(columns[name]) for name in images),
        labels=labels or ONE_LABEL,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        findings=(
            *table.findings,
            _said(table, columns),
            *([] if labels else [_labels_assumed(path)]),
            *without_masks(cases, path.name),
        ),
        refused=refused,
    )


def _without_incomplete(
    table: ForeignTable, lacking: Mapping[str, str]
) -> tuple[ForeignTable, tuple[RefusedStudy, ...]]:
    """The table without rows that lack an image of ``lacking``, and these rows as refused."""
    kept, refused = [], []
    for row in table.rows:
        cells = {name.casefold(): cell.strip() for name, cell in row.cells.items()}
        codes = [code for column, code in lacking.items() if not cells.get(column)]
        if codes:
            name = cells.get("case") or f"line {row.line}"
            text = f"Line {row.line} of {table.path.name} names no such image."
            patient = cells.get("patient") or name
            refused.append(RefusedStudy(name, patient, "", codes[0], text))
        else:
            kept.append(row)
    return replace(table, rows=tuple(kept)), tuple(refused)


def _is_image(column: str) -> bool:
    return column == IMAGE or (column.startswith(CHANNEL_PREFIX) and column != CHANNEL_PREFIX)


def _channel(column: str) -> str:
    """The channel that a column of images is named after, as it is written."""
    return column if column.casefold() == IMAGE else column[len(CHANNEL_PREFIX) :]


def _said(table: ForeignTable, columns: Mapping[str, str]) -> Finding:
    further = [c for n, c in columns.items() if n not in KNOWN_COLUMNS and not _is_image(n)]
    text = f"{table.path.name} ({table.how_read()}) lists the cases"
    if "case" not in columns:
        text += "; it has no column case: the image's name stands for it"
    if further:
        text += f"; further columns: {', '.join(further)}"
    return Finding("manifest-columns", text)


def _labels_assumed(path: Path) -> Finding:
    text = f"{path.name} does not name labels: 0 is taken for the background, 1 for the foreground"
    return Finding("labels-assumed", text)


def _cases(table: ForeignTable, images: Sequence[str]) -> tuple[list[SegmentationCase], list[str]]:
    """The cases of all rows that can be used, and what is wrong with the others."""
    cases, faults = [], []
    named = any(column.casefold() == "case" for column in table.columns)
    for row in table.rows:
        cells = {name.casefold(): cell.strip() for name, cell in row.cells.items()}
        try:
            cases.append(_case(table.path, cells, images, named=named))
        except ValueError as error:
            faults.append(f"line {row.line}: {error}")
    return (cases if named else _told_apart(cases)), faults


def _case(
    path: Path, cells: Mapping[str, str], images: Sequence[str], *, named: bool
) -> SegmentationCase:
    """One row; raises ValueError saying what is wrong with it."""
    references = tuple(ImageReference(_existing(path, cells, column)) for column in images)
    case_id = cells.get("case", "")
    if named and not case_id:
        raise ValueError("the case has no id")
    case_id = case_id or safe_file_stem(image_stem(references[0].path))
    mask = ImageReference(_existing(path, cells, "mask")) if cells.get("mask") else None
    known = {*KNOWN_COLUMNS, *images}
    return SegmentationCase(
        case_id=case_id,
        patient_id=cells.get("patient") or case_id,
        images=references,
        mask=mask,
        label=cells.get("label", ""),
        part=_part(cells.get("part", "")),
        covariates={name: value for name, value in cells.items() if name not in known},
    )


def _existing(path: Path, cells: Mapping[str, str], column: str) -> Path:
    text = cells.get(column, "")
    if not text:
        raise ValueError(f"{column} is empty")
    file = beside(path, text)
    if not file.exists():
        raise ValueError(f"there is no '{text}' ({column})")
    return file


def _part(text: str) -> Part | None:
    return part_named(text) if text else None


def _told_apart(cases: Sequence[SegmentationCase]) -> list[SegmentationCase]:
    """Cases without ids of their own: the patient comes before names that several share."""
    several = {n for n, count in Counter(case.case_id for case in cases).items() if count > 1}
    return [
        replace(case, case_id=safe_file_stem(f"{case.patient_id}_{case.case_id}"))
        if case.case_id in several
        else case
        for case in cases
    ]
