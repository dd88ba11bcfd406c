"""What the report says beyond the common part: top slices, and the test of the augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from medtool.core.records import SELECTION_OPTIMISTIC, Section
from medtool.data.run_folder import RunFolder, read_rows
from medtool.report.templates import figure_html, table_html
from medtool_brainmet.leak import VARIANTS, verdict_of

STUDIES_LISTED = 20
# The part that is shown: the first of these that has predictions.
PARTS = {
    "test": "held-out studies",
    "out-of-fold": "held-out studies",
    "selection": f"selection studies ({SELECTION_OPTIMISTIC})",
}
Rows = list[dict[str, Any]]


def report_sections(run: RunFolder) -> list[Section]:
    """The sections for which the run has what they need."""
    found = [audit_section(run.read_run().get("audit") or {}), top_slices_section(run)]
    return [section for section in found if section is not None]


def audit_section(audit: Mapping[str, Any]) -> Section | None:
    """Whether augmentation gives the label away: figure, table and what follows from it."""
    if not audit:
        return None
    rows: Rows = [
        {
            "variant": words + (" (this run)" if name == audit["used"] else ""),
            "mean": audit["auroc"][name][0],
            "lowest": audit["auroc"][name][1],
            "highest": audit["auroc"][name][2],
        }
        for name, words in VARIANTS.items()
    ]
    columns = {
        "variant": "Training slices with",
        "mean": "AUROC for the shuffled label (mean)",
        "lowest": "lowest",
        "highest": "highest",
    }
    text = Markup(
        "<p>Labels were shuffled {shuffles} times among {studies} training studies, "
        "{slices} slices of each were changed as the shuffled label says, and a small classifier "
        "looked for that label in the changed pixels of studies it had not seen. 0.5 is no trace. "
        "{verdict}</p>"
    ).format(
        shuffles=audit["shuffles"],
        studies=audit["studies"],
        slices=audit["slices_per_study"],
        verdict=verdict_of(audit["used"], audit["auroc"][audit["used"]][0]),
    )
    caption = "AUROC of a small classifier for shuffled labels; bars span lowest to highest"
    html = text + figure_html(_audit_figure(rows), caption) + table_html(rows, columns)
    return Section("Does the augmentation give the label away?", str(html), order=80)


def _audit_figure(rows: Rows) -> Figure:
    figure = Figure(figsize=(6.4, 1.9))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.plot([row["lowest"], row["highest"]], [place, place], color="#7d8894", linewidth=5)
        axes.plot([row["mean"]], [place], "o", color="#1f6aa5", markersize=8)
    axes.axvline(0.5, color="#1d2733", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC for the shuffled label")
    return figure


def top_slices_section(run: RunFolder) -> Section | None:
    """The slice that speaks most for positive, of the most suspicious held-out studies."""
    parts = [part for part in PARTS if _predictions(run, part).is_file()]
    if not parts:
        return None
    kept = [row for row in read_rows(_predictions(run, parts[0])) if row.get("status") == "ok"]
    rows = [row for row in kept if row.get("probability")]
    if not rows:
        return None
    words = PARTS[parts[0]]
    labels = {row["case"]: row["label"] for row in run.read_cases()}
    listed: Rows = [
        {
            "case": row["case"],
            "label": _label(labels.get(row["case"])),
            "probability": float(row["probability"]),
            "instance": _whole(row.get("top_slice_instance")),
            "index": _whole(row.get("top_slice_index")),
            "position": _tenths(row.get("top_slice_position_mm")),
            "used": f"{row.get('slices_used', '')} of {row.get('slices_read', '')}",
        }
        for row in sorted(rows, key=lambda row: -float(row["probability"]))[:STUDIES_LISTED]
    ]
    columns = {
        "case": "Case",
        "label": "Label",
        "probability": "Probability",
        "instance": "Instance number",
        "index": "Slice (from 0)",
        "position": "Position (mm)",
        "used": "Slices used",
    }
    text = Markup(
        "<p>Where to look first in the {count} {words} with the highest probability. The "
        "slice is the one with the highest logit; it is a pointer for a reader, not a finding.</p>"
    ).format(count=len(listed), words=words)
    return Section("Top slices", str(text + table_html(listed, columns)), order=70)


def _predictions(run: RunFolder, part: str) -> Path:
    return run.predictions_folder / part / "predictions.csv"


def _label(text: str | None) -> str:
    return {0.0: "negative", 1.0: "positive"}[float(text)] if text else ""


def _tenths(text: str | None) -> str:
    return f"{float(text):.1f}" if text else ""


def _whole(text: str | None) -> int | None:
    return int(float(text)) if text else None
