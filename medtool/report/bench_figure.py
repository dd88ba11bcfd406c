"""The figure of ``medtool bench``: how much each way to compute answers in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medtool.report.figures import SERIES, style

PANEL_INCHES = (4.6, 3.8)


def bench_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each batch: images a second over threads, a line for each way to compute.

    ``rows`` are those of ``medtool bench --json``; rows without a time are left out.
    """
    timed = [row for row in rows if row.get("per_second") is not None]
    batches = sorted({int(row["batch"]) for row in timed}) or [1]
    names = list(dict.fromkeys(str(row["name"]) for row in timed))
    with style():
        width, height = PANEL_INCHES
        figure = Figure(figsize=(width * len(batches), height), layout="constrained")
        panels = figure.subplots(1, len(batches), squeeze=False)[0]
        for axes, batch in zip(panels, batches, strict=True):
            for number, name in enumerate(names):
                own = sorted(
                    (int(row["threads"]), float(row["per_second"]))
                    for row in timed
                    if row["name"] == name and int(row["batch"]) == batch
                )
                colour = SERIES[number % len(SERIES)]
                axes.plot(*zip(*own, strict=True), "o-", color=colour, label=name, markersize=4)
            axes.set(
                title=f"{batch} image{'s' if batch > 1 else ''} at a time",
                xlabel="threads",
                ylabel="images a second",
                ylim=(0, None),
            )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if names:
            panels[0].legend(fontsize=7)
        return figure
