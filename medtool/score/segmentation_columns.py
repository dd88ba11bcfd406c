"""The rows of many cases as columns: one metric of one structure over all cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from medtool.core.errors import UsageError
from medtool.core.records import Scores
from medtool.score.overlap import Mask
from medtool.score.sample import FloatArray
from medtool.score.segmentation import DISTANCES, OVERLAPS, Row, SegmentationOptions

# The table of scores that has a row of every structure of every case.
BY_CASE = "structures_by_case"
# The list of structures that are in no mean over structures, where there are any.
APART = "structures_apart"

BOTH_EMPTY = "cases with neither mask are not counted"
EMPTY_OR_ZERO = f"{BOTH_EMPTY}; with one of them, 0"
WHERE_PRESENT = "cases whose reference has none are not counted"
UNDEFINED = "cases without a denominator are not counted"
NOT_EMPTY = "cases with an empty mask are not counted"
CONVENTIONS: Mapping[str, str] = {
    "dice": EMPTY_OR_ZERO,
    "iou": EMPTY_OR_ZERO,
    "nsd": f"{EMPTY_OR_ZERO}; by area",
    "sensitivity": UNDEFINED,
    "specificity": UNDEFINED,
    "precision": UNDEFINED,
    "relative_volume_error": f"(predicted - true) / true; {UNDEFINED}",
    "hd_mm": f"largest distance between the surfaces; {NOT_EMPTY}",
    "hd95_mm": f"95 % of the surface area, the larger of both directions; {NOT_EMPTY}",
    "assd_mm": f"edge voxels of both masks together; {NOT_EMPTY}",
    "prediction_to_reference_mm": f"mean by area; {NOT_EMPTY}",
    "reference_to_prediction_mm": f"mean by area; {NOT_EMPTY}",
    "lesion_f1": EMPTY_OR_ZERO,
    "false_positive_ml": "predicted components without any true voxel",
    "false_negative_ml": "true components without any predicted voxel",
    "false_positive_mm2": "predicted components without any true voxel",
    "false_negative_mm2": "true components without any predicted voxel",
}
# Of surfaces, where all cases have two axes or one slice.
CONTOURS: Mapping[str, str] = {
    "nsd": f"{EMPTY_OR_ZERO}; by length of the contours",
    "hd_mm": f"largest distance between the contours; {NOT_EMPTY}",
    "hd95_mm": f"95 % of the contour's length, the larger of both directions; {NOT_EMPTY}",
    "assd_mm": f"edge pixels of both masks together; {NOT_EMPTY}",
    "prediction_to_reference_mm": f"mean by length of the contour; {NOT_EMPTY}",
    "reference_to_prediction_mm": f"mean by length of the contour; {NOT_EMPTY}",
}
SINGLE_SLICES = "single slices by their contours"
LESION_VOLUMES = ("false_positive", "false_negative")


@dataclass(frozen=True)
class ScoredCase:
    """The rows of ``score_structures`` for one case, and whose they are."""

    case: str
    patient: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Column:
    """One metric of one structure over all cases.

    ``values`` (cases,) are NaN where undefined; ``missing`` (cases,) marks those where a distance
    is undefined because exactly one mask is empty; ``penalty`` (cases,) is the diagonal of each
    image in mm; ``rows`` (cases,) are where the values come from.
    """

    structure: str
    metric: str
    values: FloatArray
    missing: Mask
    penalty: FloatArray
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """Key among the scores: metric and structure."""
        return f"{self.metric}.{self.structure}"

    @property
    def penalised(self) -> FloatArray:
        """(cases,) the values, with the diagonal of the image where one is missing."""
        return np.where(self.missing, self.penalty, self.values)


def convention(metric: str, rows: Sequence[Row], options: SegmentationOptions) -> str:
    """What stands beside a number: its definition where that is a choice, what it leaves out.

    ``rows`` are those of the structure in all cases.
    """
    text = CONVENTIONS[metric]
    if metric in CONTOURS:
        flat = [row.get("surface_axes") == 2 for row in rows]
        if all(flat):
            text = CONTOURS[metric]
        elif any(flat):
            text += f"; {SINGLE_SLICES}"
    if options.where_present and metric in OVERLAPS:
        text = text.replace(EMPTY_OR_ZERO, WHERE_PRESENT)
    if metric == "nsd":
        text += f", tolerance {rows[0]['tolerance_mm']:g} mm"
    if metric == "lesion_f1":
        text += f"; {options.lesion_rule}"
    elif metric.startswith(LESION_VOLUMES):
        text += f"; components of {options.lesion_rule.connectivity} neighbours"
    return text


def scored_cases(scores: Scores) -> dict[str, ScoredCase]:
    """Each case with its rows, as they were scored; {} where no masks were."""
    rows: dict[str, list[Row]] = {}
    patients: dict[str, str] = {}
    for row in scores.tables.get(BY_CASE) or ():
        # Scores that were kept in a file hold None for what is undefined.
        known = {name: nan if value is None else value for name, value in row.items()}
        rows.setdefault(str(row["case"]), []).append(known)
        patients[str(row["case"])] = str(row["patient"])
    return {name: ScoredCase(name, patients[name], own) for name, own in rows.items()}


def columns_of(cases: Sequence[ScoredCase]) -> list[Column]:
    """Every metric that rows hold, structure by structure.

    Raises UsageError where cases have different structures.
    """
    names = [tuple(row["structure"] for row in case.rows) for case in cases]
    for case, found in zip(cases, names, strict=True):
        if found != names[0]:
            raise UsageError(
                "Cases were scored for different structures.",
                where=f"case {case.case}",
                met=", ".join(found) or "none",
                wanted=", ".join(names[0]),
            )
    return [
        _column(metric, [case.rows[number] for case in cases])
        for number in range(len(names[0]) if names else 0)
        for metric in CONVENTIONS
        if metric in cases[0].rows[number]
    ]


def _column(metric: str, rows: Sequence[Row]) -> Column:
    return Column(
        rows[0]["structure"],
        metric,
        np.array([row[metric] for row in rows], dtype=np.float64),
        np.array([metric in DISTANCES and _one_is_empty(row) for row in rows]),
        np.array([row["image_diagonal_mm"] for row in rows], dtype=np.float64),
        rows,
    )


def _one_is_empty(row: Row) -> bool:
    """Whether a distance is missing for that reason, and not since no length is known at all."""
    if not isfinite(row["image_diagonal_mm"]):
        return False
    return bool((row["tp"] + row["fp"] == 0) != (row["tp"] + row["fn"] == 0))
