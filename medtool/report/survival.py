"""Survival in the report: curves by group of risk, calibration, what else ranks the patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from markupsafe import Markup

from medtool.core.records import Scores
from medtool.report import prognosis_figures as figures
from medtool.report.performance import metric_title
from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.templates import (
    figure_html,
    figures_html,
    folded_html,
    interval_text,
    number_text,
    paragraph_html,
    table_html,
    warning_html,
)
from medtool.score.survival_summary import SURVIVAL

WHAT_A_RISK_IS = (
    "A risk orders patients: the higher, the sooner the event is expected. It is the logarithm of"
    " a hazard beside that of the training patients, no probability, and no statement about one"
    " patient's time; higher is worse in every table."
)
# Fewer events leave every number of survival wide open.
FEW_EVENTS = 20


def survival_html(view: RunView) -> Markup:
    """Nothing where no outcome was scored."""
    part = view.headline_part
    scores = view.scores[part] if part else Scores({})
    tables = scores.tables.get(SURVIVAL)
    if not tables:
        return Markup("")
    unit, pairs = str(tables.get("unit", "")), tables["pairs"]
    whose, optimistic = PART_TITLES.get(part, part), view.optimistic(part)
    label = f" ({optimistic})" if optimistic else ""
    pieces = [paragraph_html(WHAT_A_RISK_IS), paragraph_html(_counted(whose, pairs))]
    if pairs["events"] < FEW_EVENTS:
        pieces.append(
            warning_html(
                f"Only {pairs['events']} events: an interval of a C-index over so few is wide, and"
                " differences within it mean nothing."
            )
        )
    curves = [
        figure_html(
            figures.survival_figure(tables["curves"], unit),
            f"Kaplan-Meier curves of the {whose}{label}; groups by risk, lowest first; bands:"
            f" Greenwood's, by log(-log). {_log_rank(tables)}",
        )
    ]
    pieces.append(figures_html(curves, wide=True))
    pieces.append(figures_html(_small_figures(scores, tables, unit, whose + label)))
    pieces.append(_rivals(scores, tables))
    pieces.append(_pairs(pairs))
    if tables.get("calibration"):
        pieces.append(
            folded_html(_calibration(tables["calibration"], unit), "Calibration by group")
        )
    return Markup("").join(pieces)


def _counted(whose: str, pairs: Mapping[str, Any]) -> str:
    censored = pairs["patients"] - pairs["events"]
    return (
        f"{pairs['patients']} patients of the {whose}: {pairs['events']} with the event, {censored}"
        " whose follow-up ended before it."
    )


def _log_rank(tables: Mapping[str, Any]) -> str:
    found = tables.get("log_rank")
    if not found or found.get("p") is None or not isfinite(found["p"]):
        return ""
    return (
        f"Log-rank test of the groups: chi-square {number_text(float(found['chi_square']))} with"
        f" {found['degrees']} degree{'s' if found['degrees'] != 1 else ''} of freedom,"
        f" p {found['p']:.2g}."
    )


def _small_figures(
    scores: Scores, tables: Mapping[str, Any], unit: str, whose: str
) -> list[Markup]:
    drawn = []
    if tables.get("calibration"):
        caption = (
            f"Patients of the {whose} in groups of neighbouring risk: the share with the event by"
            " a time as it was said and as it was seen (Kaplan-Meier, with interval)."
        )
        figure = figures.survival_calibration_figure(tables["calibration"], unit)
        drawn.append(figure_html(figure, caption))
    rows = _rival_rows(scores, tables)
    if len(rows) > 1:
        caption = f"Harrell's C of the {whose} with its interval by patient, and of what else ranks"
        drawn.append(figure_html(figures.rivals_figure(rows), f"{caption} the same patients."))
    return drawn


def _rival_rows(scores: Scores, tables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """This model first."""
    ours = scores.metrics["harrell_c"]
    rows = [{"name": "this model", "c": ours.value, "low": ours.low, "high": ours.high}]
    return rows + [{**row, "name": _who(str(row["name"]))} for row in tables.get("rivals") or ()]


def _who(name: str) -> str:
    """Who ranks, by the name of its metric."""
    title = metric_title(name).removeprefix("C of ").removeprefix("the ")
    return "best reachable" if title == "Best reachable C" else title


def _rivals(scores: Scores, tables: Mapping[str, Any]) -> Markup:
    if not tables.get("rivals"):
        return Markup("")
    rows = [
        {
            "name": row["name"],
            "what": row.get("what", ""),
            "c": row["c"],
            "interval": interval_text(row["low"], row["high"]),
            "difference": row.get("difference"),
            "difference_interval": interval_text(
                row.get("difference_low"), row.get("difference_high")
            ),
        }
        for row in _rival_rows(scores, tables)
    ]
    columns = {
        "name": "Who ranks",
        "what": "What that is",
        "c": "Harrell's C",
        "interval": "interval",
        "difference": "This model minus it",
        "difference_interval": "interval, same patients drawn",
    }
    caption = "Higher risk is worse in all of them. An interval of a difference that holds 0 means"
    return table_html(rows, columns, caption=f"{caption} that neither is shown to be better.")


def _pairs(pairs: Mapping[str, Any]) -> Markup:
    return paragraph_html(
        f"Behind Harrell's C are the pairs of which it is known whose event came first:"
        f" {pairs['concordant']} in the right order, {pairs['discordant']} in the wrong one,"
        f" {pairs['tied_risk']} of equal risk, which count half. Among them are"
        f" {pairs['of_equal_time']} of equal time of which one is censored;"
        f" {pairs['left_out_two_events_at_once']} pairs of two events at one time are left out."
    )


def _calibration(rows: Sequence[Mapping[str, Any]], unit: str) -> Markup:
    shown = [{**row, "interval": interval_text(row["low"], row["high"])} for row in rows]
    columns = {
        "time": f"By ({unit})",
        "n": "Patients",
        "events": "Events by then",
        "followed": "Still followed",
        "predicted": "Event said",
        "observed": "Event seen",
        "interval": "interval",
    }
    return table_html(shown, columns)
