"""One picture a case: CT, PET, reference, answer, uncertainty, and the risk with its interval.

The slice is the one that holds most tumour (of the reference, else of the answer, else the most
uncertain), seen from the feet, as radiologists see it: the patient's right is on the left. What is
small is looked at closely, within the frame that is drawn on CT and PET.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.files import replacing
from medtool.core.geometry import Grid
from medtool.data.regridding import labels_on, regridded
from medtool.tasks.prognosis_answers import UNCERTAINTY, survival_column
from medtool.tasks.prognosis_labels import CHANNELS, CT, PET
from medtool.tasks.prognosis_reading import read_pet_ct_truth
from medtool.tasks.segmentation_labels import MASK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from medtool.core.records import Case, Prediction, Prepared
    from medtool.tasks.prognosis_settings import PrognosisSettings

FILE = "six-panels.png"
SIZE_INCHES, DOTS_PER_INCH = (10.8, 7.4), 96
SOFT_TISSUE_HU, SHOWN_SUV = (-160.0, 240.0), 10.0
# The entropy of a coin.
LARGEST_NATS = math.log(2.0)
# Around the tumour: what is shown closely at least, and beside it.
CLOSE_MM, MARGIN_MM = 90.0, 25.0
TRUTH_COLOUR, ANSWER_COLOUR, INK, BLUE = "#2fbf71", "#e0402f", "#1d2733", "#1f6aa5"
# The risk is drawn from minus this to this, or as far as it reaches.
LEAST_RISK_SHOWN = 3.0
NOTICE = "research use only"


@dataclass(frozen=True)
class _Plane:
    """One axial slice (rows, columns): what is shown of it, and where it lies in mm.

    ``extent_mm`` is (left, right, bottom, top) beside the middle of the first pixel, ``close_mm``
    the part that is shown closely, in the same way.
    """

    ct_hu: NDArray[np.float32]
    suv: NDArray[np.float32]
    truth: NDArray[np.uint8] | None
    answer: NDArray[np.uint8] | None
    uncertainty: NDArray[np.float32] | None
    extent_mm: tuple[float, float, float, float]
    close_mm: tuple[float, float, float, float]
    number: int


def draw_study(
    settings: PrognosisSettings,
    prediction: Prediction,
    prepared: Prepared,
    case: Case,
    folder: Path,
) -> list[Path]:
    """Write the six panels into ``folder``. Raises CaseRefused, MachineError."""
    truth = None
    if MASK in case.references:
        truth = read_pet_ct_truth(case, settings.data).arrays[MASK]
    plane = _plane(settings, prediction, prepared, truth)
    figure = _figure(settings, plane, prediction, case)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FILE) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return [folder / FILE]


# --- what is shown ------------------------------------------------------------------------
def _plane(
    settings: PrognosisSettings,
    prediction: Prediction,
    prepared: Prepared,
    truth: NDArray[Any] | None,
) -> _Plane:
    grid, answered = prepared.grids["prepared"], prepared.grids["image"]
    masks = {
        name: labels_on(mask.astype(np.uint8), answered, grid).astype(np.uint8)
        for name, mask in (("truth", truth), ("answer", prediction.arrays.get(MASK)))
        if mask is not None
    }
    doubt = prediction.arrays.get(UNCERTAINTY)
    doubt = None if doubt is None else regridded(doubt, answered, grid, outside=0.0)
    number = _fullest(list(masks.values()), doubt, grid.size[2])
    low, high = settings.data.preparation.ct_window_hu
    image = prepared.arrays["image"][:, number].astype(np.float32)
    ct_hu = (image[CHANNELS.index(CT)] + 1) * np.float32((high - low) / 2) + np.float32(low)
    marked = np.zeros(image.shape[1:], dtype=bool)
    for mask in masks.values():
        marked |= mask[number] > 0
    return _Plane(
        ct_hu=ct_hu,
        suv=image[CHANNELS.index(PET)],
        truth=masks["truth"][number] if "truth" in masks else None,
        answer=masks["answer"][number] if "answer" in masks else None,
        uncertainty=None if doubt is None else doubt[number],
        extent_mm=_extent(grid),
        close_mm=_close(marked, grid),
        number=number,
    )


def _fullest(masks: list[NDArray[np.uint8]], doubt: NDArray[np.float32] | None, slices: int) -> int:
    """The slice to show: that with most of the first mask that holds anything."""
    for mask in masks:
        counts = np.count_nonzero(mask, axis=(1, 2))
        if counts.any():
            return int(counts.argmax())
    if doubt is not None:
        return int(doubt.max(axis=(1, 2)).argmax())
    return slices // 2


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """The outer edges of a slice of ``grid``, from the middle of its first pixel."""
    (columns, rows, _), (x_mm, y_mm, _) = grid.size, grid.spacing_mm
    return -0.5 * x_mm, (columns - 0.5) * x_mm, (rows - 0.5) * y_mm, -0.5 * y_mm


def _close(marked: NDArray[np.bool_], grid: Grid) -> tuple[float, float, float, float]:
    """A square around what is marked, within the slice; the whole slice where nothing is."""
    left, right, bottom, top = _extent(grid)
    if not marked.any():
        return left, right, bottom, top
    rows, columns = np.nonzero(marked)
    x_mm, y_mm, _ = grid.spacing_mm
    ends = [
        (float(places.min()) * step, float(places.max()) * step)
        for places, step in ((columns, x_mm), (rows, y_mm))
    ]
    side = max(CLOSE_MM, *(high - low + 2 * MARGIN_MM for low, high in ends))
    side = min(side, right - left, bottom - top)
    x, y = (
        min(max((low + high) / 2, first + side / 2), last - side / 2)
        for (low, high), (first, last) in zip(ends, ((left, right), (top, bottom)), strict=True)
    )
    return x - side / 2, x + side / 2, y + side / 2, y - side / 2


# --- how it is drawn ----------------------------------------------------------------------
def _figure(
    settings: PrognosisSettings, plane: _Plane, prediction: Prediction, case: Case
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained", facecolor="white")
    panels = figure.subplots(2, 3).reshape(-1)
    low, high = settings.data.preparation.ct_window_hu
    window = (max(SOFT_TISSUE_HU[0], low), min(SOFT_TISSUE_HU[1], high))
    title = f"CT ({window[0]:g} to {window[1]:g} HU)"
    _image(panels[0], plane, plane.ct_hu, window, "gray", title)
    _image(panels[1], plane, plane.suv, (0.0, SHOWN_SUV), "gray_r", f"PET (SUV 0 to {SHOWN_SUV:g})")
    for panel in panels[:2]:
        _frame(panel, plane)
    _outlined(panels[2], plane, plane.truth, TRUTH_COLOUR, "Reference", "none is known")
    _outlined(panels[3], plane, plane.answer, ANSWER_COLOUR, "Answer", "outlines nothing")
    _doubt(panels[4], plane)
    _risk(panels[5], settings, prediction, case)
    said = f"{prediction.case_id}, prepared slice {plane.number} (from 0)   {NOTICE}"
    figure.suptitle(said, fontsize=9, color=INK, x=0.01, ha="left")
    return figure


def _image(
    axes: Axes,
    plane: _Plane,
    values: NDArray[np.float32],
    shown: tuple[float, float],
    colours: str,
    title: str,
) -> Any:
    """A slice in its true proportions, with the patient's sides."""
    image = axes.imshow(
        values,
        cmap=colours,
        vmin=shown[0],
        vmax=shown[1],
        extent=plane.extent_mm,
        interpolation="nearest",
    )
    axes.set_title(title, fontsize=10, loc="left", color=INK, fontweight="bold")
    axes.set_xticks([])
    axes.set_yticks([])
    light = colours == "gray_r"
    for place, letter, side in ((0.02, "R", "left"), (0.98, "L", "right")):
        axes.text(
            place,
            0.5,
            letter,
            transform=axes.transAxes,
            ha=side,
            va="center",
            fontsize=9,
            color="black" if light else "white",
        )
    return image


def _closely(axes: Axes, plane: _Plane) -> None:
    left, right, bottom, top = plane.close_mm
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _frame(axes: Axes, plane: _Plane) -> None:
    """Where the other panels look closely; nothing where they show the whole slice."""
    from matplotlib.patches import Rectangle

    if plane.close_mm == plane.extent_mm:
        return
    left, right, bottom, top = plane.close_mm
    axes.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=BLUE, linewidth=1.2
        )
    )


def _outlined(
    axes: Axes,
    plane: _Plane,
    mask: NDArray[np.uint8] | None,
    colour: str,
    title: str,
    without: str,
) -> None:
    """The PET with the outlines of a mask, or with words where there is none."""
    text = title if mask is not None and mask.any() else f"{title}: {without}"
    if mask is not None and not mask.any():
        text = f"{title}: no tumour in this slice"
    _image(axes, plane, plane.suv, (0.0, SHOWN_SUV), "gray_r", text)
    _closely(axes, plane)
    if mask is not None:
        _contours(axes, plane, mask, colour)


def _contours(axes: Axes, plane: _Plane, mask: NDArray[np.uint8], colour: str) -> None:
    left, right, bottom, top = plane.extent_mm
    rows, columns = mask.shape
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    for label in np.unique(mask[mask > 0]).tolist():
        axes.contour(x, y, mask == label, levels=[0.5], colors=[colour], linewidths=1.6)


def _doubt(axes: Axes, plane: _Plane) -> None:
    """The map of uncertainty, under the outline of the answer."""
    title = "Uncertainty (entropy, nats)"
    if plane.uncertainty is None:
        _image(axes, plane, np.zeros_like(plane.suv), (0.0, 1.0), "magma", f"{title}: none")
        return
    image = _image(axes, plane, plane.uncertainty, (0.0, LARGEST_NATS), "magma", title)
    _closely(axes, plane)
    if plane.answer is not None:
        _contours(axes, plane, plane.answer, "white")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=8)


def _risk(axes: Axes, settings: PrognosisSettings, prediction: Prediction, case: Case) -> None:
    """The risk with its interval, and in words survival at each horizon and what became of it."""
    said = prediction.scalars
    axes.set_title("Risk (higher is worse)", fontsize=10, loc="left", color=INK, fontweight="bold")
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.set_ylim(-1.0, 1.0)
    if said.get("risk") is None:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "this model says no risk", transform=axes.transAxes, ha="center")
        return
    risk = float(said["risk"])
    low, high = (float(said[n]) if said.get(n) is not None else risk for n in _ENDS)
    reach = max(LEAST_RISK_SHOWN, *(1.1 * abs(value) for value in (low, high)))
    axes.set_xlim(-reach, reach)
    axes.axvline(0.0, ymax=0.35, color="#7d8894", linestyle=":", linewidth=1)
    axes.plot([low, high], [-0.55, -0.55], color=BLUE, linewidth=4, solid_capstyle="butt")
    axes.plot([risk], [-0.55], "o", color=INK, markersize=8)
    axes.set_xlabel("log hazard beside the mean training patient", fontsize=8, color=INK)
    axes.tick_params(labelsize=8)
    for number, line in enumerate(_risk_lines(settings, said, case, (risk, low, high))):
        axes.text(0.02, 0.92 - 0.11 * number, line, transform=axes.transAxes, fontsize=9, color=INK)


_ENDS = ("risk_low", "risk_high")


def _risk_lines(
    settings: PrognosisSettings,
    said: Any,
    case: Case,
    risk: tuple[float, float, float],
) -> list[str]:
    middle, low, high = risk
    lines = [f"risk {middle:.2f}" + (f" ({low:.2f} to {high:.2f})" if low < high else "")]
    for days in settings.metrics.horizons_days:
        share = said.get(survival_column(days))
        if share is not None:
            ends = [said.get(survival_column(days, end)) for end in ("low", "high")]
            known = all(end is not None for end in ends)
            between = f" ({ends[0]:.0%} to {ends[1]:.0%})" if known else ""
            lines.append(f"without event at {days:g} days: {share:.0%}{between}")
    if case.outcome is not None:
        what = "event at" if case.outcome.event else "no event up to"
        lines.append(f"known: {what} {case.outcome.time_days:.0f} days")
    if said.get("review"):
        lines.append(f"to be reviewed: {said['review']}")
    return lines
