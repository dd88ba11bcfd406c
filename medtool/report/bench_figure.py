"""The figure of ``medtool bench``: how much each way to compute answers in a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medtool.report.figures import SERIES, style

PANEL_INCHES = (4.6, 3.8)
# Names of ways beside each other under a panel.
NAMES_IN_A_ROW = 2
# Engine and arithmetic, file, and the model that it belongs to.
Way: TypeAlias = tuple[str, str, str]


def bench_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each batch: images a second over threads, a line for each way to compute.

    ``rows`` are those of ``medtool bench --json``; rows without a time are left out.
    """
    timed = [row for row in rows if row.get("per_second") is not None]
    batches = sorted({int(row["batch"]) for row in timed}) or [1]
    ways = list(dict.fromkeys(map(_way, timed)))
    with style():
        width, height = PANEL_INCHES
        figure = Figure(figsize=(width * len(batches), height), layout="constrained")
        panels = figure.subplots(1, len(batches), squeeze=False)[0]
        lines = {}
        for axes, batch in zip(panels, batches, strict=True):
            for number, (way, label) in enumerate(zip(ways, _labels(ways), strict=True)):
                own = sorted(
                    (int(row["threads"]), float(row["per_second"]))
                    for row in timed
                    if _way(row) == way and int(row["batch"]) == batch
                )
                if not own:
                    # It could not compute so many images.
                    continue
                colour = SERIES[number % len(SERIES)]
                (lines[way],) = axes.plot(
                    *zip(*own, strict=True), "o-", color=colour, label=label, markersize=4
                )
            axes.set(
                title=f"{batch} image{'s' if batch > 1 else ''} at a time",
                xlabel="threads",
                ylabel="images a second",
                ylim=(0, None),
            )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if ways:
            figure.legend(
                handles=[lines[way] for way in ways],
                loc="outside lower center",
                ncols=NAMES_IN_A_ROW * len(batches),
                fontsize=7,
            )
        return figure


def _way(row: Mapping[str, Any]) -> Way:
    """What a line stands for: the same engine may run several files of several models."""
    return str(row["name"]), str(row["file"]), str(row["model"])


def _labels(ways: Sequence[Way]) -> list[str]:
    """What each is called: by as little as tells them apart."""
    names = Counter(way[:1] for way in ways)
    files = Counter(way[:2] for way in ways)
    return [
        ", ".join(way[: 1 if names[way[:1]] == 1 else 2 if files[way[:2]] == 1 else 3])
        for way in ways
    ]
