"""How well, with which uncertainty: the headline, the metrics, the curves, the subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from markupsafe import Markup

from medtool.core.records import Score, Scores
from medtool.report import figures
from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.templates import (
    MISSING,
    fact_title,
    figure_html,
    figures_html,
    heading_html,
    interval_text,
    list_html,
    number_text,
    paragraph_html,
    table_html,
    warning_html,
)
from medtool.score.document import TOLD_FIRST
from medtool.score.paired import COMPARED

METRIC_TITLES: Mapping[str, str] = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "mcc": "MCC",
    "brier": "Brier score",
    "brier_skill": "Brier skill",
    "ece": "ECE",
    "mce": "MCE",
    "adaptive_ece": "Adaptive ECE",
    "dice": "Dice",
    "dice_where_present": "Dice where present",
    "dice_and_f1": "Mean of Dice and macro F1",
    "macro_f1": "Macro F1",
    "iou": "IoU",
    "nsd": "Surface Dice (NSD)",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
    "dice_pooled": "Dice of all volumes together (DSCagg)",
    "lesion_f1": "F1 of lesions",
    "false_positive_ml": "FPV (mL)",
    "false_negative_ml": "FNV (mL)",
    "false_positive_where_absent_ml": "FPV without any lesion (mL)",
    "harrell_c": "Harrell's C",
    "uno_c": "Uno's C",
    "reachable_c": "Best reachable C",
    "volume_alone_c": "C of the volume alone",
    "covariates_alone_c": "C of covariates alone",
    "dice_and_c_index": "Mean of Dice and C",
    "mean_auc": "Mean AUC over time",
    "integrated_brier": "Integrated Brier score",
    "voxel_ece": "ECE of voxels",
    "voxel_auroc": "AUROC of errors, voxels",
    "case_auroc": "AUROC of failures, cases",
    "uncertainty_spearman": "Spearman of doubt and error",
    "aurc": "AURC",
    "excess_aurc": "E-AURC",
    "volume_interval_coverage": "Coverage of volumes",
    "lesion_set_coverage": "Coverage of sets",
}
# How names begin that end in a number of days.
TIMED_METRICS = {"auc_": "AUC at {} days", "brier_": "Brier score at {} days"}
HEADLINE = ("auroc", "sensitivity", "specificity", "auprc", "f1", "brier")
# A fact alone that reaches this AUROC may be what the model learned.
SUSPICIOUS_AUROC = 0.65

_CARD = Markup(
    '<div class="card{first}"><div class="name">{name}</div><div class="value">{value}</div>'
    '<div class="detail">{interval}</div><div class="detail">{n}</div>'
    '<div class="detail">{trivial}</div></div>'
)


def metric_title(name: str) -> str:
    """The name of a metric for a reader."""
    known = METRIC_TITLES.get(name)
    if known:
        return known
    if name.startswith("sensitivity_at_specificity_"):
        return f"Sensitivity at specificity {name.rsplit('_', 1)[1]}"
    for start, title in TIMED_METRICS.items():
        if name.startswith(start):
            return title.format(name.removeprefix(start))
    metric, dot, structure = name.partition(".")
    if dot and metric in METRIC_TITLES:
        return f"{METRIC_TITLES[metric]}, {structure}"
    return name.replace("_", " ")


def headline_html(view: RunView) -> Markup:
    """The few numbers that count, each with interval, n, trivial value, and whose they are."""
    part = view.headline_part
    if not part:
        return paragraph_html("No predictions were scored in this run.")
    scores, optimistic = view.scores[part], view.optimistic(part)
    names = _headline(view, scores)
    cards = [_card(scores.metrics[name], first=number == 0) for number, name in enumerate(names)]
    whose = paragraph_html(
        f"Numbers of the {PART_TITLES.get(part, part)}. " + " ".join(scores.notes)
    )
    warning = warning_html(_optimistic_text(optimistic)) if optimistic else Markup("")
    return warning + Markup('<div class="cards">{}</div>').format(Markup("").join(cards)) + whose


def _optimistic_text(why: str) -> str:
    return (
        f"{why[0].upper()}{why[1:]}: these numbers come from patients that had a say in the model,"
        " and new patients will do worse."
    )


def _headline(view: RunView, scores: Scores) -> list[str]:
    """The primary metric, then those that the task tells first, or as many others."""
    primary = view.preset.get("metrics", {}).get("primary", "auroc")
    named = scores.tables.get(TOLD_FIRST)
    order = dict.fromkeys([primary, *(named or (*HEADLINE, *scores.metrics))])
    known = [name for name in order if name in scores.metrics]
    return known if named else known[: len(HEADLINE)]


def _card(score: Score, *, first: bool) -> Markup:
    between = interval_text(score.low, score.high)
    return _CARD.format(
        first=" first" if first else "",
        name=metric_title(score.name),
        value=number_text(score.value),
        interval=f"({between})" if between != MISSING else "no interval",
        n=f"of {score.n} cases",
        trivial=f"trivial: {number_text(score.trivial)}" if isfinite(score.trivial) else "",
    )


def performance_html(view: RunView) -> Markup:
    """All metrics of every part that was scored, the most honest first, with its curves."""
    parts = sorted(view.scores, key=lambda part: part != view.headline_part)
    if not parts:
        return paragraph_html("No predictions were scored in this run.")
    return Markup("").join(_part_html(view, part) for part in parts)


def _part_html(view: RunView, part: str) -> Markup:
    scores, optimistic = view.scores[part], view.optimistic(part)
    pieces = [heading_html(PART_TITLES.get(part, part).capitalize())]
    if optimistic:
        pieces.append(warning_html(_optimistic_text(optimistic)))
    pieces.append(metrics_table(scores))
    # Curves of one part only: two sets side by side invite reading the wrong one.
    if part == view.headline_part:
        pieces.append(score_figures(scores, PART_TITLES.get(part, part), optimistic))
        pieces.append(confusion_html(scores))
    return Markup("").join(pieces)


def metrics_table(scores: Scores) -> Markup:
    """Every metric with interval, n, what a trivial predictor scores, and its convention."""
    rows = [
        {
            "metric": metric_title(name),
            "value": score.value,
            "interval": interval_text(score.low, score.high),
            "n": score.n,
            "trivial": score.trivial,
            "by": score.trivial_by,
            "kind": score.interval,
            "convention": score.convention,
        }
        for name, score in scores.metrics.items()
        # Those of single structures ("dice.liver") have a table of their own.
        if not (scores.tables.get("structures") and "." in name)
    ]
    bootstrap = scores.tables.get("bootstrap", {})
    confidence = bootstrap.get("confidence", 0.95)
    columns = {
        "metric": "Metric",
        "value": "Value",
        "interval": f"{confidence:.0%} interval",
        "n": "n",
        "trivial": "Trivial",
        "by": "Who is trivial",
        "kind": "Kind of interval",
        "convention": "Convention",
    }
    caption = "Trivial: what someone scores who knows nothing of the case. Bootstrap: percentiles"
    caption += f" of {bootstrap.get('draws', 0)} draws of patients with all their cases."
    # Where all intervals are of one kind a column of it only takes room.
    kinds = {str(row["kind"]) for row in rows if row["interval"] != MISSING}
    if len(kinds) == 1:
        del columns["kind"]
        caption += f" All intervals: {kinds.pop()}."
    return table_html(rows, columns, caption=caption)


def score_figures(scores: Scores, whose: str, optimistic: str = "") -> Markup:
    """ROC, precision and recall, reliability, thresholds, probabilities by label."""
    tables, label = scores.tables, f" ({optimistic})" if optimistic else ""
    threshold = tables.get("decision", {}).get("threshold")
    value = {name: score.value for name, score in scores.metrics.items()}
    drawn = []
    if tables.get("roc"):
        point = _point(1.0 - value["specificity"], value["sensitivity"])
        figure = figures.roc_figure(
            tables["roc"], label=_legend("AUROC", scores.metrics["auroc"]), operating=point
        )
        drawn.append(figure_html(figure, f"ROC of the {whose}{label}; band by patient."))
    if tables.get("pr"):
        point = _point(value["sensitivity"], value["ppv"])
        figure = figures.pr_figure(
            tables["pr"], label=_legend("AUPRC", scores.metrics["auprc"]), operating=point
        )
        drawn.append(figure_html(figure, f"Precision and recall of the {whose}{label}."))
    if tables.get("reliability"):
        figure = figures.reliability_figure(tables["reliability"])
        caption = f"Reliability of the {whose}{label}; bars are Wilson intervals."
        drawn.append(figure_html(figure, caption))
    if tables.get("thresholds"):
        figure = figures.threshold_figure(tables["thresholds"], threshold)
        caption = (
            f"What other thresholds would give on the {whose}{label}; not a way to choose one."
        )
        drawn.append(figure_html(figure, caption))
    if scores.per_case and "probability" in scores.per_case[0]:
        figure = figures.histogram_figure(scores.per_case, threshold)
        drawn.append(figure_html(figure, f"Probabilities of the {whose}{label} by label."))
    return figures_html(drawn)


def _point(x: float, y: float) -> tuple[float, float] | None:
    return (x, y) if isfinite(x) and isfinite(y) else None


def _legend(name: str, score: Score) -> str:
    return f"{name} {number_text(score.value)} ({interval_text(score.low, score.high)})"


def confusion_html(scores: Scores) -> Markup:
    """The confusion matrix, sensitivity at fixed specificities, the intervals by other rules."""
    counts = scores.tables.get("confusion")
    # Of classes with names it is a table of rows (``medtool.report.classes``).
    if not isinstance(counts, Mapping):
        return Markup("")
    threshold = scores.tables.get("decision", {}).get("threshold")
    matrix = Markup(
        '<div class="scroll"><table class="matrix"><caption>Confusion matrix{t}.</caption>'
        "<thead><tr><th></th><th>called positive</th><th>called negative</th></tr></thead>"
        "<tbody><tr><th>positive</th><td class='right'>{tp}</td><td class='wrong'>{fn}</td></tr>"
        "<tr><th>negative</th><td class='wrong'>{fp}</td><td class='right'>{tn}</td></tr></tbody>"
        "</table></div>"
    ).format(t=_at(threshold), **counts)
    fixed = scores.tables.get("fixed_specificity") or ()
    table = (
        table_html(
            fixed,
            {
                "target": "Specificity asked for",
                "threshold": "Threshold",
                "sensitivity": "Sensitivity",
                "specificity": "Specificity reached",
                "threshold_from": "Threshold from",
            },
            caption="Sensitivity at fixed specificities.",
        )
        if fixed
        else Markup("")
    )
    return matrix + table


def _at(threshold: float | None) -> str:
    if threshold is None:
        return ", each fold at its own threshold"
    return f" at a threshold of {number_text(threshold)}"


def subgroups_html(view: RunView) -> Markup:
    """The headline part by scanner, kernel, thickness."""
    part = view.headline_part
    rows = view.scores[part].tables.get("subgroups") if part else None
    if not rows:
        return paragraph_html("No subgroup was asked for, or none of the facts is known.")
    caption, small = _subgroup_words(view, part)
    if "structure" in rows[0]:
        return small + _mask_subgroups(rows, caption)
    shown = [
        {
            **row,
            "by": fact_title(str(row["by"])),
            "auroc_interval": interval_text(row.get("auroc_low"), row.get("auroc_high")),
            "sensitivity_interval": interval_text(
                row.get("sensitivity_low"), row.get("sensitivity_high"), 2
            ),
            "specificity_interval": interval_text(
                row.get("specificity_low"), row.get("specificity_high"), 2
            ),
        }
        for row in rows
    ]
    columns = {
        "by": "By",
        "group": "Group",
        "n": "n",
        "positives": "Positive",
        "auroc": "AUROC",
        "auroc_interval": "interval",
        "sensitivity": "Sens.",
        "sensitivity_interval": "interval",
        "specificity": "Spec.",
        "specificity_interval": "interval",
    }
    return small + table_html(shown, columns, caption=caption)


def _subgroup_words(view: RunView, part: str) -> tuple[str, Markup]:
    """Whose numbers they are, and what they are worth."""
    optimistic = view.optimistic(part)
    caption = f"Numbers of the {PART_TITLES.get(part, part)}" + (
        f" ({optimistic})." if optimistic else "."
    )
    small = "Small groups have wide intervals; differences within them mean nothing."
    return caption, paragraph_html(small)


def _mask_subgroups(rows: Sequence[Mapping[str, Any]], caption: str) -> Markup:
    """Of each structure the same metrics that two models are compared by."""
    columns = {"by": "By", "group": "Group", "structure": "Structure", "n": "n"}
    for name in COMPARED:
        if any(row.get(name) is not None for row in rows):
            columns |= {name: METRIC_TITLES[name], f"{name}_interval": "interval"}
    shown = [
        {
            **row,
            "by": fact_title(str(row["by"])),
            **{
                f"{name}_interval": interval_text(row.get(f"{name}_low"), row.get(f"{name}_high"))
                for name in COMPARED
            },
        }
        for row in rows
    ]
    return table_html(shown, columns, caption=caption)


def confounders_html(view: RunView) -> Markup:
    """Whether a fact of the scan alone predicts the label, beside the model's AUROC."""
    rows: Sequence[Mapping[str, Any]] = view.run.get("confounders") or ()
    if not rows:
        masks = view.headline_part and view.scores[view.headline_part].tables.get("structures")
        return Markup("") if masks else paragraph_html("Not measured in this run.")
    model = view.scores[view.headline_part].metrics.get("auroc") if view.headline_part else None
    listed = [
        {
            "fact": fact_title(str(row.get("fact", ""))),
            "auroc": row.get("auroc"),
            "interval": interval_text(row.get("low"), row.get("high")),
            "n": row.get("n"),
            "how": row.get("how", ""),
        }
        for row in rows
    ]
    strong = [
        f"{row['fact']} alone reaches an AUROC of {row['auroc']:.2f}: the model may rest on it."
        for row in listed
        if isinstance(row["auroc"], float) and row["auroc"] > SUSPICIOUS_AUROC
    ]
    beside = f"; the model's own AUROC is {number_text(model.value)}" if model is not None else ""
    return (
        (list_html(strong) if strong else Markup(""))
        + table_html(
            listed,
            {
                "fact": "Fact alone",
                "auroc": "AUROC",
                "interval": f"{rows[0].get('confidence', 0.95):.0%} interval",
                "n": "n",
                "how": "How",
            },
            caption=f"How well each fact alone predicts the label{beside}.",
        )
        + paragraph_html(
            "A number is shown in the better of its two directions, so it is above 0.5 by"
            " construction; a category is judged by other patients of the same category, and pairs"
            " tie where those differ by no more than chance."
        )
    )


def training_html(view: RunView) -> Markup:
    """Learning curves with the boundaries of stages and the epoch that was selected."""
    if not view.history:
        return paragraph_html(view.in_folds or "No epoch was recorded.")
    best = next((row for row in view.checkpoints if row.get("kind") == "best"), None)
    epoch = best.get("epoch") if best is not None else None
    figure = figures.learning_figure(
        view.history, best_epoch=epoch if isinstance(epoch, int) else None
    )
    caption = (
        "Loss, metrics on the selection part (selection set, optimistic) and learning rates by"
        " epoch. Dotted lines: a new stage"
        " begins; dashed line: the selected checkpoint. Groups of layers that learn at the same"
        " rate share a line."
    )
    seconds = [row.get("seconds") for row in view.history]
    known = [float(s) for s in seconds if isinstance(s, (int, float))]
    waited = [row.get("data_wait_share") for row in view.history]
    shares = [float(w) for w in waited if isinstance(w, (int, float))]
    text = f"{len(view.history)} epochs"
    if known:
        text += f", {sum(known) / len(known):.1f} seconds each in the mean"
    if shares:
        text += f", {sum(shares) / len(shares):.0%} of the time waiting for data"
    return figures_html([figure_html(figure, caption)], wide=True) + paragraph_html(text + ".")
