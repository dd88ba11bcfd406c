"""Uncertainty in the report: whether it finds errors, whether it is true, whom to look at first."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from markupsafe import Markup

from medtool.report import figures, prognosis_figures
from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.templates import (
    figure_html,
    figures_html,
    number_text,
    paragraph_html,
    table_html,
)
from medtool.score.uncertainty_summary import REVIEW, UNCERTAINTY

CASES_LISTED = 20
# Metrics of promises, and how they are told.
PROMISES = {
    "volume_interval_coverage": "The interval of the volume held the true volume in {share} of {n}"
    " cases ({promised}).",
    "lesion_set_coverage": 'The set "lesion present" held what is true in {share} of {n} cases'
    " ({promised}).",
}


def uncertainty_html(view: RunView) -> Markup:
    """Nothing where no uncertainty was scored."""
    part = view.headline_part
    scores = view.scores[part] if part else None
    tables = scores.tables.get(UNCERTAINTY) if scores is not None else None
    if scores is None or not tables:
        return Markup("")
    whose, optimistic = PART_TITLES.get(part, part), view.optimistic(part)
    label = f" ({optimistic})" if optimistic else ""
    drawn = []
    if tables.get("reliability"):
        figure = figures.reliability_figure(tables["reliability"], "voxels")
        caption = (
            f"Reliability of the probabilities of voxels within 5 mm of truth or answer, {whose}"
            f"{label}; voxels of a case are not independent, so that no intervals are drawn."
        )
        drawn.append(figure_html(figure, caption))
    curve = tables.get("risk_coverage") or {}
    if curve.get("risk"):
        caption = (
            f"Error of the most certain cases, {whose}{label}: area {_area(curve, 'area')}, with"
            f" an uncertainty that knew the errors {_area(curve, 'best')}, excess"
            f" {_area(curve, 'excess')}."
        )
        drawn.append(figure_html(prognosis_figures.risk_coverage_figure(curve), caption))
    rows = [row for row in scores.tables.get(REVIEW) or () if _known(row)]
    if rows:
        figure = prognosis_figures.doubt_figure(rows)
        drawn.append(figure_html(figure, f"Each case with lesions of the {whose}{label}."))
    return figures_html(drawn) + Markup("").join(
        paragraph_html(text) for text in _promises(view, part)
    )


def _area(curve: Mapping[str, Any], name: str) -> str:
    return number_text(None if curve.get(name) is None else float(curve[name]))


def _known(row: Mapping[str, Any]) -> bool:
    values = (row.get("uncertainty"), row.get("dice"))
    return all(value is not None and isfinite(value) for value in values)


def _promises(view: RunView, part: str) -> list[str]:
    """Intervals and sets, and how often they held what is true."""
    said = []
    for name, text in PROMISES.items():
        score = view.scores[part].metrics.get(name)
        if score is not None:
            promised = score.convention.rpartition("; ")[2]
            share = f"{score.value:.0%}"
            said.append(text.format(share=share, n=score.n, promised=promised))
    return said


def review_html(view: RunView) -> Markup:
    """Which cases a person should look at first, and why; nothing where none was judged."""
    part = view.headline_part
    rows = view.scores[part].tables.get(REVIEW) if part else ()
    if not rows:
        return Markup("")
    asked = sum(row.get("review") == "yes" for row in rows)
    whose = PART_TITLES.get(part, part)
    said = f"{asked} of {len(rows)} cases of the {whose} are sent to review by limits that were"
    said += " set on the selection part. Within them, and among the others, the most uncertain"
    said += f" come first; the first {min(len(rows), CASES_LISTED)} are listed."
    columns = {
        "case": "Case",
        "patient": "Patient",
        "review": "Review",
        "why": "Why",
        "uncertainty": "Uncertainty",
        "volume_ml": "Volume (mL)",
        "risk": "Risk",
        "dice": "Dice",
    }
    caption = (
        "Uncertainty: entropy within 5 mm of the outline by its voxels, in nats. Risk: higher is"
        " worse. Dice: where a reference has lesions; nobody knows it of a new case."
    )
    return paragraph_html(said) + table_html(rows[:CASES_LISTED], columns, caption=caption)
