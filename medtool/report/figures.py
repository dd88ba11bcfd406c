"""The figures of the report, drawn without any global state of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from math import nan
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that stay apart for colour-blind readers and in print (Okabe and Ito, darkened).
BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f6aa5", "#c8601a", "#2b8a6b", "#8a5a9e", "#7d8894"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, "#b08a00", "#4a4a4a", "#b03060", "#3aa0a0")
INK = "#1d2733"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": "#b7c0ca",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaef",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "white",
    "legend.fancybox": False,
    "lines.linewidth": 1.7,
    "svg.fonttype": "none",
}
SQUARE_INCHES = (4.1, 3.8)
# Metrics of history.csv that are drawn, in this order, when they are there.
CURVE_METRICS = (
    "auroc",
    "f1",
    "sensitivity",
    "specificity",
    "dice",
    "macro_f1",
    "dice_and_f1",
    "harrell_c",
    "dice_and_c_index",
)


def style() -> AbstractContextManager[None]:
    """How all figures look."""
    context: AbstractContextManager[None] = matplotlib.rc_context(STYLE)
    return context


def square(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Axes from 0 to 1 both ways."""
    figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return figure, axes


def floats(values: Sequence[Any]) -> list[float]:
    """Numbers as files keep them: None is NaN."""
    return [nan if value is None else float(value) for value in values]


def roc_figure(
    curve: Mapping[str, Any], *, label: str, operating: tuple[float, float] | None
) -> Figure:
    """ROC with its band; ``operating`` is (1 - specificity, sensitivity) of the decision."""
    with style():
        figure, axes = square("ROC", "1 \N{MINUS SIGN} specificity", "sensitivity")
        low, high = floats(curve["low"]), floats(curve["high"])
        axes.fill_between(curve["grid"], low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(curve["fpr"], curve["tpr"], color=BLUE, label=label)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="any constant answer, 0.5")
        if operating is not None:
            axes.plot(*operating, "o", color=ORANGE, markersize=6, label="decision threshold")
        axes.legend(loc="lower right")
        return figure


def pr_figure(
    curve: Mapping[str, Any], *, label: str, operating: tuple[float, float] | None
) -> Figure:
    """Precision over recall with its band; ``operating`` is (sensitivity, PPV)."""
    with style():
        figure, axes = square("Precision and recall", "recall (sensitivity)", "precision (PPV)")
        low, high = floats(curve["low"]), floats(curve["high"])
        axes.fill_between(curve["grid"], low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.step(curve["recall"], curve["precision"], where="pre", color=BLUE, label=label)
        prevalence = float(curve["prevalence"])
        axes.axhline(
            prevalence, color=GREY, linestyle=":", label=f"any constant answer, {prevalence:.2f}"
        )
        if operating is not None:
            axes.plot(*operating, "o", color=ORANGE, markersize=6, label="decision threshold")
        axes.legend(loc="lower left")
        return figure


def reliability_figure(rows: Sequence[Mapping[str, Any]], of: str = "cases") -> Figure:
    """Observed rate over said probability; below, how many ``of`` what.

    With Wilson intervals where rows have them: voxels, which are not independent, have none.
    """
    with style():
        figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.set(title="Reliability", ylabel="observed share of positives", ylim=(-0.03, 1.03))
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
        said = [float(row["mean_probability"]) for row in rows]
        seen = np.asarray([float(row["observed_rate"]) for row in rows])
        spread = None
        if all("observed_low" in row for row in rows):
            spread = [
                np.maximum(0, seen - [row["observed_low"] for row in rows]),
                np.maximum(0, [row["observed_high"] for row in rows] - seen),
            ]
        axes.errorbar(said, seen, yerr=spread, fmt="o", color=BLUE, markersize=5, elinewidth=1)
        axes.legend(loc="upper left")
        below.bar(
            [row["low"] for row in rows],
            [row["n"] for row in rows],
            width=[row["high"] - row["low"] for row in rows],
            align="edge",
            color=BLUE,
            alpha=0.35,
            edgecolor="white",
        )
        below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        below.set(xlabel="probability said", ylabel=of, xlim=(-0.02, 1.02))
        return figure


def threshold_figure(table: Mapping[str, Sequence[float]], threshold: float | None) -> Figure:
    """Sensitivity, specificity and F1 at every threshold, and where the decision lies."""
    with style():
        figure, axes = square("Threshold", "threshold (positive at or above)", "")
        for name, colour in (("sensitivity", BLUE), ("specificity", ORANGE), ("f1", GREEN)):
            heights = floats(table[name])
            axes.step(table["threshold"], heights, where="pre", color=colour, label=_title(name))
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1)
            axes.set_title(f"Threshold (used: {threshold:.3g})")
        axes.legend(loc="lower center")
        return figure


def histogram_figure(rows: Sequence[Mapping[str, Any]], threshold: float | None) -> Figure:
    """How probabilities of the two classes lie apart."""
    with style():
        figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set(title="Probabilities by label", xlabel="probability said", ylabel="cases")
        edges = np.linspace(0, 1, 21).tolist()
        by_label = [[r["probability"] for r in rows if r["label"] == label] for label in (0, 1)]
        axes.hist(
            by_label[0], edges, color=BLUE, alpha=0.55, label=f"negative ({len(by_label[0])})"
        )
        axes.hist(
            by_label[1], edges, color=ORANGE, alpha=0.55, label=f"positive ({len(by_label[1])})"
        )
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper center")
        return figure


def spread_figure(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """A share of each case by structure: dots, and a box of median and quartiles."""
    with style():
        figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set(title=f"{title} by structure", ylabel=title, ylim=(-0.02, 1.02))
        names = list(values)
        axes.boxplot([list(values[name]) for name in names], showfliers=False, widths=0.5)
        for place, name in enumerate(names, 1):
            # Apart, so that equal values are seen, and the same way every time.
            offsets = [0.03 * (number * 7 % 11 - 5) for number in range(len(values[name]))]
            places = [place + offset for offset in offsets]
            axes.plot(places, values[name], "o", color=BLUE, markersize=3, alpha=0.6)
        axes.set_xticks(range(1, len(names) + 1), names)
    return figure


def agreement_figure(pairs: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> Figure:
    """Volumes as answered beside those of the reference, and the line on which they are equal."""
    with style():
        figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set(title="Volumes", xlabel=f"reference ({unit})", ylabel=f"answer ({unit})")
        for colour, (name, points) in zip(cycle(SERIES), pairs.items(), strict=False):
            known, answered = zip(*points, strict=True)
            axes.plot(known, answered, "o", color=colour, markersize=4, alpha=0.7, label=name)
        most = max(max(pair) for points in pairs.values() for pair in points)
        axes.plot([0, most], [0, most], "--", color=GREY, linewidth=1)
        axes.legend(loc="upper left")
    return figure


def learning_figure(
    history: Sequence[Mapping[str, Any]], *, best_epoch: int | None = None
) -> Figure:
    """Loss, metrics on the selection part, and rates over epochs; stages are marked."""
    epochs = [int(row["epoch"]) for row in history]
    names = list(history[0]) if history else []
    rates = [name for name in names if name.startswith("rate_")]
    metrics = [m for m in CURVE_METRICS if f"selection_{m}" in names]
    with style():
        figure = Figure(figsize=(11.4, 3.4), layout="constrained")
        axes = figure.subplots(1, 3)
        axes[0].set_title("Loss")
        _plot(axes[0], history, {"loss": "training", "selection_loss": "selection"}, epochs)
        axes[1].set_title("On the selection part (optimistic)")
        axes[1].set_ylim(-0.02, 1.02)
        _plot(axes[1], history, {f"selection_{m}": _title(m) for m in metrics}, epochs)
        axes[2].set_title("Learning rates")
        _plot(axes[2], history, _rate_names(history, rates), epochs)
        if any((row.get(r) or 0) > 0 for row in history for r in rates):
            axes[2].set_yscale("log")
        for panel in axes:
            panel.set_xlabel("epoch (from 0)")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            _mark_stages(panel, history, epochs)
            if best_epoch is not None:
                panel.axvline(best_epoch, color=INK, linewidth=1, linestyle="--")
            if panel.get_legend_handles_labels()[0]:
                panel.legend(fontsize=8)
        return figure


def _rate_names(history: Sequence[Mapping[str, Any]], rates: Sequence[str]) -> dict[str, str]:
    """What to call each line: groups that learn alike all along share one."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name in rates:
        alike.setdefault(tuple(row.get(name) for row in history), []).append(name)
    return {
        names[0]: ", ".join(name.removeprefix("rate_") for name in names)
        for names in alike.values()
    }


def _plot(
    axes: Axes, history: Sequence[Mapping[str, Any]], names: Mapping[str, str], epochs: list[int]
) -> None:
    for colour, (name, label) in zip(SERIES, names.items(), strict=False):
        values = floats([row.get(name) for row in history])
        if np.isfinite(values).any():
            positive = [v if v > 0 or not name.startswith("rate_") else nan for v in values]
            marker = "." if len(epochs) < 40 else ""
            axes.plot(epochs, positive, color=colour, label=label, marker=marker)


def _mark_stages(axes: Axes, history: Sequence[Mapping[str, Any]], epochs: list[int]) -> None:
    stages = [row.get("stage") for row in history]
    for number in range(1, len(stages)):
        if stages[number] != stages[number - 1]:
            axes.axvline(epochs[number] - 0.5, color=GREY, linewidth=1, linestyle=":")


def _title(metric: str) -> str:
    known = {"harrell_c": "Harrell's C", "dice_and_c_index": "mean of dice and C"}
    if metric in known:
        return known[metric]
    upper = ("auroc", "auprc", "f1", "ppv", "npv", "mcc", "ece", "mce")
    return metric.upper() if metric in upper else metric.replace("_", " ")
