"""Classes in the report: which one was taken for which, each by itself, and what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from medtool.core.records import Scores
from medtool.report.performance import metric_title
from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.templates import interval_text, paragraph_html, table_html

# What stands for a metric that is only told where it differs from this one.
SAME_AS = {"dice_where_present": "dice"}


def classes_html(view: RunView) -> Markup:
    """Confusion matrix and recall of each class; nothing where classes have no names."""
    part = view.headline_part
    scores = view.scores[part] if part else Scores({})
    rows = scores.tables.get("confusion")
    targets = targets_html(view, scores)
    if not isinstance(rows, Sequence) or not rows:
        return targets
    why = view.optimistic(part)
    whose = PART_TITLES.get(part, part) + (f", {why}" if why else "")
    names = [str(row["label"]) for row in rows]
    majority = scores.metrics["macro_f1"].trivial_by
    intro = paragraph_html(
        f"Each case of the {whose} has one answer, the most probable class; no threshold is "
        f"involved. What knows nothing of the image is '{majority}', the commonest class."
    )
    return intro + _matrix(rows, names) + _each(scores, names) + targets


def _matrix(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Markup:
    head = Markup("").join(Markup("<th>called {}</th>").format(name) for name in names)
    body = Markup("").join(
        Markup("<tr><th>{}</th>{}</tr>").format(
            row["label"],
            Markup("").join(
                Markup("<td class='{}'>{}</td>").format(
                    "right" if name == row["label"] else "wrong" if row[name] else "", row[name]
                )
                for name in names
            ),
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll"><table class="matrix"><caption>Confusion matrix: a row a true class.'
        "</caption><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(head, body)


def _each(scores: Scores, names: Sequence[str]) -> Markup:
    rows = []
    for name in names:
        recall, f1 = scores.metrics[f"recall.{name}"], scores.metrics[f"f1.{name}"]
        rows.append(
            {
                "class": name,
                "n": recall.n,
                "recall": recall.value,
                "recall_interval": interval_text(recall.low, recall.high),
                "trivial": recall.trivial,
                "f1": f1.value,
                "f1_interval": interval_text(f1.low, f1.high),
            }
        )
    columns = {
        "class": "Class",
        "n": "Cases",
        "recall": "Recall",
        "recall_interval": "interval",
        "trivial": "Recall of always the commonest",
        "f1": "F1",
        "f1_interval": "interval",
    }
    return table_html(rows, columns, caption="Each class by itself; intervals by patient.")


def targets_html(view: RunView, scores: Scores) -> Markup:
    """The values that the preset aims at, beside what was reached."""
    rows = []
    for name, target in view.preset.get("metrics", {}).get("targets", {}).items():
        metric, dot, structure = name.partition(".")
        score = scores.metrics.get(name) or scores.metrics.get(
            f"{SAME_AS.get(metric, metric)}{dot}{structure}"
        )
        if score is not None:
            rows.append(
                {
                    "metric": metric_title(metric) + (f" of {structure}" if dot else ""),
                    "target": float(target),
                    "value": score.value,
                    "interval": interval_text(score.low, score.high),
                    "reached": bool(score.value >= target),
                }
            )
    if not rows:
        return Markup("")
    columns = {
        "metric": "Metric",
        "target": "Target",
        "value": "Value",
        "interval": "interval",
        "reached": "Reached",
    }
    return table_html(rows, columns, caption="What the preset aims at.")
