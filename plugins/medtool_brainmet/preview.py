"""Pictures of what happens to a study: every stage side by side, and augmentations by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medtool.core.files import replacing
from medtool.core.names import case_file_stem
from medtool.core.randomness import generator
from medtool.core.records import Case
from medtool_brainmet.augmentation import apply_changes, changes_for, draw_changes
from medtool_brainmet.normalisation import normalise_slices
from medtool_brainmet.preparation import Stages, run_stages
from medtool_brainmet.reading import read_scan

if TYPE_CHECKING:
    from medtool_brainmet.task import Brainmet

SLICES_SHOWN = 4
AUGMENTATIONS_SHOWN = 4
THUMBNAILS_A_ROW = 8
# Grey of the raw scan, wide enough to show bone, brain and air at once.
SCAN_RANGE_HU = (-200.0, 400.0)
# Grey of a normalised slice: deviations from the mean, or the whole window.
NORMALISED_RANGE = {"brain_zscore": (-3.0, 3.0), "radimagenet": (-1.0, 1.0)}
# Colour of a change of this share of the window is saturated (16 of 80 HU).
DIFFERENCE_RANGE = 0.2
DOTS_PER_INCH = 100
DARK, LIGHT = "#101418", "#e8ecf0"
KEPT, DROPPED, ASYMMETRIC = "#4fbf8b", "#e0605a", "#e0b050"


def write_preview(task: Brainmet, case: Case, folder: Path) -> list[Path]:
    """``stages.png``, ``slices.png`` and ``augmentation.png`` below ``folder``/<case>.

    Raises CaseRefused where the study cannot be prepared.
    """
    stages = run_stages(read_scan(task.input_of(case)), task.settings.data.preparation)
    target = folder / case_file_stem(case.case_id)
    figures = {
        "stages.png": stages_figure(stages, task),
        "slices.png": slices_figure(stages),
        "augmentation.png": augmentation_figure(stages, task, case.case_id),
    }
    written = []
    for name, figure in figures.items():
        path = target / name
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor=DARK)
        written.append(path)
    return written


def stages_figure(stages: Stages, task: Brainmet) -> Figure:
    """A row for each of a few slices, a column for each stage up to normalisation."""
    shown = _spread(stages.used or list(range(len(stages.quality))), SLICES_SHOWN)
    size_px = task.settings.data.preparation.size_px
    titles = (
        "scan",
        "1 brain",
        "2 window",
        f"3 {size_px} x {size_px}",
        "4 quality",
        f"6 {task.settings.model.normalisation}",
    )
    figure = _figure(len(titles), len(shown), f"{stages.brain.volume_ml:.0f} mL of brain")
    normalised = normalise_slices(
        stages.slices[shown], stages.masks[shown], task.settings.model.normalisation
    )
    low_hu, high_hu = SCAN_RANGE_HU
    for row, index in enumerate(shown):
        axes = [
            figure.add_subplot(len(shown), len(titles), row * len(titles) + column + 1)
            for column in range(len(titles))
        ]
        aspect = stages.grid.spacing_mm[1] / stages.grid.spacing_mm[0]
        _show(axes[0], stages.volume_hu[index], low_hu, high_hu, aspect=aspect)
        _show(axes[1], stages.volume_hu[index], low_hu, high_hu, aspect=aspect)
        _outline(axes[1], stages.brain.mask[index])
        _show(axes[2], stages.windowed[index], 0, 1, aspect=aspect)
        _show(axes[3], stages.slices[index], 0, 1)
        _show(axes[4], stages.slices[index], 0, 1)
        _draw_quality(axes[4], stages, index)
        _show(axes[5], normalised[row], *NORMALISED_RANGE[task.settings.model.normalisation])
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title if row == 0 else "", color=LIGHT, fontsize=9)
        axes[0].set_ylabel(f"slice {index}", color=LIGHT, fontsize=8)
    return figure


def slices_figure(stages: Stages) -> Figure:
    """Every slice that was read, small, with the verdict of the quality filter."""
    count = len(stages.quality)
    rows = -(-count // THUMBNAILS_A_ROW)
    text = f"{len(stages.used)} of {count} slices used"
    figure = _figure(THUMBNAILS_A_ROW, rows, text, cell_inches=1.5)
    for index, verdict in enumerate(stages.quality):
        axes = figure.add_subplot(rows, THUMBNAILS_A_ROW, index + 1)
        _show(axes, stages.slices[index], 0, 1)
        colour = KEPT if verdict.used else DROPPED
        colour = ASYMMETRIC if verdict.reason == "asymmetric" else colour
        axes.set_title(f"{index} {verdict.reason or 'used'}", color=colour, fontsize=7, pad=2)
    return figure


def augmentation_figure(stages: Stages, task: Brainmet, case_id: str) -> Figure:
    """For each class four changed versions of the slice with most brain, and what changed."""
    index = int(np.argmax(stages.masks.sum(axis=(1, 2))))
    image, inside = stages.slices[index], stages.masks[index]
    columns = AUGMENTATIONS_SHOWN + 1
    note = "by class" if task.settings.augment.by_class else "the same for both classes"
    figure = _figure(columns, 4, f"5 augmentation, {note}; below each what changed, +-16 HU")
    for half, (label, name) in enumerate(((1.0, "positive"), (0.0, "negative"))):
        first = half * 2 * columns
        axes = figure.add_subplot(4, columns, first + 1)
        _show(axes, image, 0, 1)
        axes.set_title("unchanged", color=LIGHT, fontsize=8)
        axes.set_ylabel(name, color=LIGHT, fontsize=9)
        changes = changes_for(task.settings.augment, label)
        for number in range(AUGMENTATIONS_SHOWN):
            rng = generator(task.settings.train.seed, "preview", case_id, name, number)
            drawn = draw_changes(rng, changes)
            changed = apply_changes(image, inside, drawn)
            above = figure.add_subplot(4, columns, first + 2 + number)
            _show(above, changed, 0, 1)
            above.set_title(_words(drawn), color=LIGHT, fontsize=7, pad=2)
            below = figure.add_subplot(4, columns, first + columns + 2 + number)
            _show(below, changed - image, -DIFFERENCE_RANGE, DIFFERENCE_RANGE, colours="RdBu_r")
    return figure


def _words(drawn: dict[str, float]) -> str:
    """What was drawn, short enough for a title."""
    names = {
        "gamma": "gamma",
        "clahe_clip": "CLAHE",
        "blur_sigma_px": "blur",
        "sharpen_amount": "sharpen",
    }
    parts = [f"{word} {drawn[name]:.2f}" for name, word in names.items() if name in drawn]
    return "\n".join([" ".join(parts[:2]), " ".join(parts[2:])]) if parts else "no change"


def _figure(columns: int, rows: int, title: str, *, cell_inches: float = 2.1) -> Figure:
    figure = Figure(figsize=(columns * cell_inches, rows * cell_inches + 0.45), facecolor=DARK)
    top = 1 - 0.55 / (rows * cell_inches + 0.45)
    figure.subplots_adjust(left=0.03, right=0.99, bottom=0.01, top=top, wspace=0.04, hspace=0.16)
    figure.suptitle(title, color=LIGHT, fontsize=10, x=0.03, ha="left")
    return figure


def _show(
    axes: Axes,
    image: NDArray[Any],
    low: float,
    high: float,
    *,
    aspect: float = 1.0,
    colours: str = "gray",
) -> None:
    axes.imshow(image, cmap=colours, vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Axes, mask: NDArray[np.bool_]) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=[KEPT], linewidths=0.8)


def _draw_quality(axes: Axes, stages: Stages, index: int) -> None:
    """The mid-sagittal line and what was measured on the slice."""
    rows, columns = stages.slices[index].shape
    verdict, line = stages.quality[index], stages.mid_sagittal
    slope = np.tan(np.radians(line.angle_degrees))
    middle = (columns - 1) / 2 + line.shift_mm / stages.slices_grid.spacing_mm[0]
    half = (rows - 1) / 2
    axes.plot([middle + slope * half, middle - slope * half], [0, rows - 1], "--", color=ASYMMETRIC)
    axes.set_xlim(-0.5, columns - 0.5)
    text = (
        f"noise {verdict.noise:.3f}\ncorr. {verdict.correlation:.2f}\nasym. {verdict.asymmetry:.3f}"
    )
    axes.text(0.02, 0.02, text, color=LIGHT, fontsize=6, transform=axes.transAxes, va="bottom")


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the indices, evenly spread and without the ends where possible."""
    places = np.linspace(0, len(indices) - 1, count + 2)[1:-1] if len(indices) > count else None
    return list(indices) if places is None else [indices[round(place)] for place in places]
