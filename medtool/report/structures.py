"""Masks in the report: structures with their metrics, spread of Dice, agreement of volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from medtool.report import figures
from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.templates import (
    figure_html,
    figures_html,
    interval_text,
    number_text,
    paragraph_html,
    table_html,
)
from medtool.score.paired import MaskComparison
from medtool.score.segmentation_columns import BY_CASE

# Tables of scores that a scoring of masks leaves.
SUMMARY = "structures"
UNITS: Mapping[str, str] = {"_mm": " (mm)", "_ml": " (mL)", "_mm2": " (mm²)"}
METRIC_NAMES: Mapping[str, str] = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "Surface Dice (NSD)",
    "hd_mm": "Hausdorff distance (mm)",
    "hd95_mm": "95 % Hausdorff distance (mm)",
    "assd_mm": "Average surface distance (mm)",
    "lesion_f1": "F1 of lesions",
    "false_positive_ml": "False-positive volume (mL)",
    "false_negative_ml": "False-negative volume (mL)",
    "harrell_c": "Harrell's C",
}


def structures_html(view: RunView) -> Markup:
    """Nothing where no masks were scored."""
    part = view.headline_part
    tables = view.scores[part].tables if part else {}
    rows = tables.get(SUMMARY)
    if not rows:
        return Markup("")
    whose, optimistic = PART_TITLES.get(part, part), view.optimistic(part)
    label = f" ({optimistic})" if optimistic else ""
    by_case = tables.get(BY_CASE) or ()
    drawn = []
    if spread := _by_structure(by_case, "dice"):
        figure = figures.spread_figure(spread, "Dice")
        drawn.append(figure_html(figure, f"Dice of each case of the {whose}{label}."))
    if volumes := _volumes(by_case):
        figure = figures.agreement_figure(volumes, "mL")
        caption = f"Volume answered beside that of the reference, {whose}{label}; line: equal."
        drawn.append(figure_html(figure, caption))
    return figures_html(drawn) + _summary(rows)


def _by_structure(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        value = _number(row, metric)
        if math.isfinite(value):
            found.setdefault(str(row["structure"]), []).append(value)
    return found


def _volumes(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """(reference, answer) of each structure."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        pair = (_number(row, "reference_ml"), _number(row, "prediction_ml"))
        if all(map(math.isfinite, pair)):
            found.setdefault(str(row["structure"]), []).append(pair)
    return found


def _number(row: Mapping[str, Any], name: str) -> float:
    """NaN where the row has none: scores that are read back hold None for what is undefined."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _summary(rows: Sequence[Mapping[str, Any]]) -> Markup:
    shown = [
        {
            "structure": row["structure"],
            "metric": metric_name(str(row["metric"])),
            "mean": row["mean"],
            "mean_interval": interval_text(*row["mean_interval"]),
            "median": row["median"],
            "penalised": row["penalised"],
            "n": f"{row['n_valid']}"
            + (f" (+{row['n_missing']} with one empty mask)" if row["n_missing"] else ""),
            "convention": row["convention"],
        }
        for row in rows
    ]
    columns = {
        "structure": "Structure",
        "metric": "Metric",
        "mean": "Mean",
        "mean_interval": "95% interval",
        "median": "Median",
        "penalised": "Penalised mean",
        "n": "Cases",
        "convention": "Convention",
    }
    caption = (
        "Intervals by bootstrap of patients. Penalised: cases with one empty mask count with the "
        "diagonal of their image."
    )
    return table_html(shown, columns, caption=caption)


def metric_name(name: str) -> str:
    """The name of a metric of masks for a reader, with its unit."""
    if name in METRIC_NAMES:
        return METRIC_NAMES[name]
    for ending, unit in UNITS.items():
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " ").capitalize() + unit
    return name.replace("_", " ").capitalize()


def plan_html(view: RunView) -> Markup:
    """What was planned from the data and why; nothing where nothing was."""
    plan = (view.run.get("audit") or {}).get("plan") or {}
    chosen = view.preset.get("data", {}).get("preparation", {}).get("configuration", "")
    configuration = (plan.get("configurations") or {}).get(chosen) or {}
    decisions = [*plan.get("decisions", ()), *configuration.get("decisions", ())]
    if not decisions:
        return Markup("")
    rows = [
        {"what": entry["what"], "value": _short(entry["value"]), "why": entry["why"]}
        for entry in decisions
    ]
    table = table_html(rows, {"what": "Decision", "value": "Value", "why": "Why"})
    if not chosen:
        return table
    intro = paragraph_html(
        f"Planned for the configuration {chosen} from the training and selection cases; what the "
        "preset fixed stands above it. Batch and patch as they were used: "
        f"{view.preset.get('train', {}).get('batch_cases')} patches of "
        + " x ".join(map(str, view.preset.get("model", {}).get("patch_size_vox", ())))
        + " voxels."
    )
    return intro + table


def _short(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else str(value)


def comparison_html(names: Sequence[str], found: MaskComparison) -> Markup:
    """Both models in every structure and metric, with the difference on the same cases."""
    rows = [
        {
            "structure": one.structure,
            "metric": metric_name(one.metric),
            "first": one.first,
            "second": one.second,
            "difference": one.difference,
            "interval": interval_text(*one.interval),
            "n": one.n,
            "bootstrap": one.holm_bootstrap,
            "wilcoxon": one.holm_wilcoxon,
        }
        for one in found.differences
    ]
    columns = {
        "structure": "Structure",
        "metric": "Metric",
        "first": names[0],
        "second": names[1],
        "difference": "First minus second",
        "interval": f"{found.confidence:.0%} interval",
        "n": "Cases",
        "bootstrap": "p, paired bootstrap",
        "wilcoxon": "p, Wilcoxon",
    }
    caption = "Patients are the unit; p values are adjusted for all comparisons by Holm's method."
    return table_html(rows, columns, caption=caption)
