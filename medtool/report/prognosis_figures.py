"""Figures of survival and of uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medtool.report.figures import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SERIES,
    SQUARE_INCHES,
    floats,
    square,
    style,
)

Rows = Sequence[Mapping[str, Any]]
WIDE_INCHES = (8.6, 4.6)
ROW_INCHES = 0.22


def survival_figure(curves: Rows, unit: str) -> Figure:
    """Kaplan-Meier curves by group of risk with their bands; below, how many are at risk."""
    with style():
        width, height = WIDE_INCHES
        figure = Figure(figsize=(width, height + ROW_INCHES * len(curves)), layout="constrained")
        axes, table = figure.subplots(
            2, 1, sharex=True, height_ratios=(height, ROW_INCHES * (len(curves) + 2))
        )
        axes.set(title="Survival by group of risk", ylabel="without event", ylim=(-0.02, 1.02))
        for colour, row in zip(SERIES, curves, strict=False):
            times = [0.0, *floats(row["times"])]
            share = [1.0, *floats(row["share"])]
            low, high = ([1.0, *floats(row[end])] for end in ("low", "high"))
            label = f"risk {row['group']}: {row['n']} patients, {row['events']} events"
            axes.step(times, share, where="post", color=colour, label=label)
            axes.fill_between(times, low, high, step="post", color=colour, alpha=0.08, linewidth=0)
        axes.legend(loc="upper right")
        ticks = [0.0, *floats(curves[0]["horizons"])]
        axes.set_xticks(ticks)
        axes.tick_params(labelbottom=False)
        _at_risk(table, curves, ticks)
        table.set_xlabel(f"{unit} from the scan")
    return figure


def _at_risk(axes: Any, curves: Rows, ticks: Sequence[float]) -> None:
    """A line of numbers for each curve, at the ticks."""
    axes.set_ylim(len(curves) - 0.4, -0.9)
    axes.set_yticks(range(len(curves)), [f"at risk, {row['group']}" for row in curves])
    axes.grid(visible=False)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    for place, (colour, row) in enumerate(zip(SERIES, curves, strict=False)):
        for tick, count in zip(ticks, [row["n"], *row["at_risk"]], strict=True):
            axes.text(tick, place, f"{int(count)}", ha="center", va="center", color=colour)


def survival_calibration_figure(rows: Rows, unit: str) -> Figure:
    """Share with the event as it was seen over the share as it was said, at each time."""
    with style():
        figure, axes = square("Calibration of survival", "event said", "event seen")
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
        times = sorted({float(row["time"]) for row in rows})
        for colour, time in zip(SERIES, times, strict=False):
            own = [row for row in rows if float(row["time"]) == time]
            said, seen = floats([r["predicted"] for r in own]), floats([r["observed"] for r in own])
            ends = [floats([row[end] for row in own]) for end in ("low", "high")]
            below, above = (
                [abs(s - e) if isfinite(e) else 0.0 for s, e in zip(seen, end, strict=True)]
                for end in ends
            )
            axes.errorbar(
                said,
                seen,
                yerr=[below, above],
                fmt="o",
                color=colour,
                markersize=4,
                elinewidth=1,
                label=f"by {time:g} {unit}",
            )
        axes.legend(loc="upper left")
        return figure


def rivals_figure(rows: Rows) -> Figure:
    """C-indices with their intervals, one a line; ``name``, ``c``, ``low``, ``high``."""
    with style():
        figure = Figure(figsize=(SQUARE_INCHES[0], 0.9 + 0.36 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            c, low, high = floats([row["c"], row["low"], row["high"]])
            colour = ORANGE if place == 0 else BLUE
            axes.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.5)
            axes.plot([c], [place], "o", color=colour, markersize=7)
        axes.axvline(0.5, color=INK, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(rows)), [str(row["name"]) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(min(0.4, *(floats([row["low"] for row in rows]))), 1.0)
        axes.set_xlabel("Harrell's C (0.5: any order)")
        return figure


def risk_coverage_figure(curve: Mapping[str, Any]) -> Figure:
    """Mean error of the most certain cases over how many of all they are."""
    with style():
        figure, axes = square("Risk and coverage", "share of cases answered", "mean 1 - Dice")
        coverage, risk = floats(curve["coverage"]), floats(curve["risk"])
        axes.step(coverage, risk, where="post", color=BLUE, label="most certain first")
        axes.axhline(risk[-1], color=GREY, linestyle=":", label="in any order")
        axes.legend(loc="best")
        return figure


def doubt_figure(rows: Rows) -> Figure:
    """Uncertainty of each case beside its error; ``uncertainty``, ``dice``, ``failed``."""
    with style():
        figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set(title="Doubt and error", xlabel="uncertainty (nats)", ylabel="1 - Dice")
        doubt = np.asarray(floats([row["uncertainty"] for row in rows]))
        error = 1.0 - np.asarray(floats([row["dice"] for row in rows]))
        axes.plot(doubt, error, "o", color=BLUE, markersize=4, alpha=0.7)
        axes.set_ylim(-0.02, 1.02)
        return figure
