"""Beside simpler models: runs that learned a part of it alone, on the same parts."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from medtool.core.records import Score, Scores
from medtool.report.performance import metric_title
from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.structures import metric_name
from medtool.report.templates import MISSING, interval_text, number_text, paragraph_html, table_html
from medtool.score.paired_scores import compare_scores

# Metrics that are put side by side, as far as a model has them.
COMPARED = (
    "dice",
    "dice_pooled",
    "false_positive_ml",
    "false_negative_ml",
    "sensitivity",
    "specificity",
    "harrell_c",
    "uno_c",
    "integrated_brier",
    "voxel_ece",
    "uncertainty_spearman",
)


def baselines_html(view: RunView) -> Markup:
    """Nothing where no baseline was trained."""
    part = view.headline_part
    others = {
        name: scores[part] for name, scores in view.baselines.items() if part and part in scores
    }
    if not others:
        return Markup("")
    whole = view.scores[part]
    models = {"this": whole, **others}
    rows = [
        {"metric": metric_title(name), **{k: _cell(s.metrics.get(name)) for k, s in models.items()}}
        for name in COMPARED
        if any(name in scores.metrics for scores in models.values())
    ]
    titles = {"metric": "Metric", "this": "This model"}
    titles |= {name: f"{name.capitalize()} alone" for name in others}
    intro = paragraph_html(
        f"The same training on the same parts, with one objective left out; numbers of the"
        f" {PART_TITLES.get(part, part)}. Where a difference below holds 0 in its interval, doing"
        " both at once is not shown to help."
    )
    return intro + table_html(rows, titles) + _differences(whole, others)


def _cell(score: Score | None) -> str:
    if score is None:
        return MISSING
    between = interval_text(score.low, score.high)
    return number_text(score.value) + (f" ({between})" if between != MISSING else "")


def _differences(whole: Scores, others: Mapping[str, Scores]) -> Markup:
    rows = [
        {
            "other": f"{name} alone",
            "metric": f"{metric_name(one.metric)}"
            + (f", {one.structure}" if one.metric != "harrell_c" else ""),
            "first": one.first,
            "second": one.second,
            "difference": one.difference,
            "interval": interval_text(*one.interval),
            "n": one.n,
            "p": one.holm_bootstrap,
        }
        for name, scores in others.items()
        for one in compare_scores(whole, scores)
    ]
    columns = {
        "other": "Beside",
        "metric": "Metric",
        "first": "This model",
        "second": "The other",
        "difference": "Difference",
        "interval": "95% interval",
        "n": "Cases",
        "p": "p, paired bootstrap",
    }
    caption = "Paired by patient; p values are adjusted for all comparisons with one model (Holm)."
    return table_html(rows, columns, caption=caption) if rows else Markup("")
