"""Pictures of masks over the image: three planes through the largest structure, in true aspect.

Contours only, so that what lies under them stays visible: truth in green, the answer in one colour
a label. Axes are those of the arrays; the patient's sides stand at the picture's left edge.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import MachineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid

SIDE_PX = 384
CAPTION_PX = 28
GAP_PX = 6
# Blue, green, red, as OpenCV counts.
TRUTH_COLOUR = (80, 220, 80)
LABEL_COLOURS = ((60, 80, 255), (255, 180, 40), (40, 220, 255), (230, 90, 230))
TEXT_COLOUR = (235, 235, 235)
# Values under and over these percentiles are black and white where no window is given.
SHOWN_PERCENTILES = (0.5, 99.5)
NOTICE = "research use only"
# A grid axis within 45 degrees of a patient axis gets that axis's letter; LPS counts upwards.
_AXIS_ENDS = (("R", "L"), ("A", "P"), ("I", "S"))
_VIEWS = {0: "sagittal", 1: "coronal", 2: "axial"}


def draw_overlay(
    image: NDArray[Any],
    mask: NDArray[np.unsignedinteger[Any]],
    truth: NDArray[np.unsignedinteger[Any]] | None,
    grid: Grid,
    path: Path,
    *,
    window: tuple[float, float] | None = None,
    caption: str = "",
    placed: bool = True,
) -> None:
    """Write a PNG of ``image`` (z, y, x) with the contours of ``mask`` and ``truth``.

    Planes cut the largest structure (of the truth, where there is one) in its largest slices; a
    volume of one slice gives one plane. ``window`` is (black, white). Without ``placed`` it is not
    known how the image lies in the patient, and no side is named. Raises ValueError where the
    shapes differ, MachineError where the picture cannot be written.
    """
    masks = [mask] if truth is None else [mask, truth]
    if any(one.shape != image.shape for one in masks) or image.shape != grid.size[::-1]:
        raise ValueError(f"image, masks and grid differ in shape: {image.shape}, {grid.size}")
    low, high = window or np.percentile(image[:: max(len(image) // 32, 1)], SHOWN_PERCENTILES)
    place = _largest_slices(mask if truth is None or not truth.any() else truth)
    panels = [
        _panel(
            axis, place[axis], image, mask, truth, grid, (float(low), float(high)), placed=placed
        )
        for axis in ([0] if len(image) == 1 else range(3))
    ]
    picture = np.concatenate(panels, axis=1)
    _text(picture, f"{caption}   {NOTICE}".strip(), (GAP_PX, picture.shape[0] - GAP_PX))
    _write_png(path, picture)


def _largest_slices(mask: NDArray[np.unsignedinteger[Any]]) -> tuple[int, int, int]:
    """For each axis the slice that holds most of the commonest label; the middle where none is."""
    counts = sum(
        (np.bincount(plane.ravel(), minlength=int(mask.max(initial=0)) + 1) for plane in mask),
        start=np.zeros(int(mask.max(initial=0)) + 1, dtype=np.int64),
    )
    counts[0] = 0
    if not counts.any():
        z, y, x = (length // 2 for length in mask.shape)
        return z, y, x
    largest = mask == counts.argmax()
    z, y, x = (
        int(np.count_nonzero(largest, axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)
    )
    return z, y, x


def _panel(
    axis: int,
    index: int,
    image: NDArray[Any],
    mask: NDArray[np.unsignedinteger[Any]],
    truth: NDArray[np.unsignedinteger[Any]] | None,
    grid: Grid,
    window: tuple[float, float],
    *,
    placed: bool,
) -> NDArray[np.uint8]:
    """One plane across array axis ``axis``, with its contours, letters and name if ``placed``."""
    rows_axis, columns_axis = (other for other in range(3) if other != axis)
    spacing_mm = grid.spacing_mm[::-1]
    plane = _plane(image, axis, index)
    height_mm = plane.shape[0] * spacing_mm[rows_axis]
    width_mm = plane.shape[1] * spacing_mm[columns_axis]
    scale = SIDE_PX / max(height_mm, width_mm)
    size = (max(round(width_mm * scale), 1), max(round(height_mm * scale), 1))
    # Rows of coronal and sagittal planes run along z: shown with the head up.
    upside_down = rows_axis == 0 and _end_letters(grid, 0)[1] == "S"
    shown = _coloured(_turned(plane, upside_down), window, size)
    if truth is not None:
        known = _plane(truth, axis, index)
        # Each label by itself: what lies in another one has an outline too.
        for label in np.unique(known[known > 0]).tolist():
            _contours(shown, _turned(known == label, upside_down), TRUTH_COLOUR)
    labels = _plane(mask, axis, index)
    for label in np.unique(labels[labels > 0]).tolist():
        colour = LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]
        _contours(shown, _turned(labels == label, upside_down), colour)
    canvas = np.zeros((SIDE_PX + CAPTION_PX, SIDE_PX, 3), np.uint8)
    top, left = (SIDE_PX - size[1]) // 2, (SIDE_PX - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = shown
    if placed:
        _text(canvas, _end_letters(grid, columns_axis)[0], (GAP_PX, SIDE_PX // 2))
        _text(canvas, f"{_view(grid, axis)} {index}", (GAP_PX, 20))
    return canvas


def _plane(values: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    plane: NDArray[Any] = np.moveaxis(values, axis, 0)[index]
    return plane


def _turned(plane: NDArray[Any], upside_down: bool) -> NDArray[Any]:  # noqa: FBT001
    return plane[::-1] if upside_down else plane


def _coloured(
    plane: NDArray[Any], window: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    import cv2

    low, high = window
    scaled = (plane.astype(np.float32) - low) / max(high - low, 1e-6)
    grey = (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)
    resized = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)
    coloured: NDArray[np.uint8] = cv2.cvtColor(resized, cv2.COLOR_GRAY2BGR)
    return coloured


def _contours(
    shown: NDArray[np.uint8], marked: NDArray[np.bool_], colour: tuple[int, int, int]
) -> None:
    import cv2

    size = (shown.shape[1], shown.shape[0])
    grown = cv2.resize(marked.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, outlines, -1, colour, 1)


def _end_letters(grid: Grid, array_axis: int) -> tuple[str, str]:
    """The patient's sides at which an array axis begins and ends."""
    along = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)[:, 2 - array_axis]
    nearest = int(np.abs(along).argmax())
    away, toward = _AXIS_ENDS[nearest]
    return (away, toward) if along[nearest] > 0 else (toward, away)


def _view(grid: Grid, array_axis: int) -> str:
    """The name of the planes across an array axis."""
    along = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)[:, 2 - array_axis]
    return _VIEWS[int(np.abs(along).argmax())]


def _text(canvas: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    import cv2

    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.48, TEXT_COLOUR, 1, cv2.LINE_AA)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    import cv2

    done, data = cv2.imencode(".png", picture)
    if not done:
        raise MachineError("A picture cannot be encoded.", where=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV's own writer cannot name a file with letters that the code page lacks on Windows.
    path.write_bytes(data.tobytes())
