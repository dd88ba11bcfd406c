"""Pictures of the slices that an answer rests on, for overlays and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import MachineError
from medtool.core.records import Prediction, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid

SLICES_SHOWN = 3
SIDE_PX = 384
CAPTION_PX = 54
GAP_PX = 6
TEXT_COLOUR = 235
NOTICE = "research use only"
# A grid axis within 45 degrees of a patient axis gets that axis's letter.
AXIS_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


def draw_top_slices(
    prediction: Prediction, prepared: Prepared, folder: Path, *, shown: int = SLICES_SHOWN
) -> list[Path]:
    """One PNG a slice, of the used slices with the highest logits; most suspicious first.

    Each picture shows the slice as the network saw it before normalisation, with its number,
    position and logit, and the patient's side at the picture's left edge where it is known.
    """
    rows = [dict(row) for row in prediction.elements if row.get("used")]
    slices = prepared.arrays["slices"]
    scored = [
        (float(row["logit"]), place, row)
        for place, row in enumerate(rows)
        if row.get("logit") not in (None, "") and place < len(slices)
    ]
    scored.sort(key=lambda item: (-item[0], item[1]))
    folder.mkdir(parents=True, exist_ok=True)
    side = _left_letter(prepared.grids)
    written = []
    for rank, (logit, place, row) in enumerate(scored[:shown], start=1):
        picture = _picture(np.asarray(slices[place]), _caption(row, logit), side)
        path = folder / f"{rank:02d}_slice_{int(row['slice_index']):04d}.png"
        _write_png(path, picture)
        written.append(path)
    return written


def _caption(row: Mapping[str, Any], logit: float) -> Sequence[str]:
    instance = row.get("instance_number")
    position = row.get("position_mm")
    first = f"slice {row['slice_index']}"
    if instance not in (None, ""):
        first += f" (instance {instance})"
    if position not in (None, ""):
        first += f" at {float(position):.1f} mm"
    return first, f"logit {logit:+.2f}   {NOTICE}"


def _left_letter(grids: Mapping[str, Grid]) -> str:
    """The patient's side at the picture's left edge, or "" where no grid says so."""
    grid = grids.get("slices")
    if grid is None:
        return ""
    x_axis = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)[:, 0]
    axis = int(np.abs(x_axis).argmax())
    toward, away = AXIS_LETTERS[axis]
    # Columns run along x: the left edge is where the axis comes from.
    return away if x_axis[axis] > 0 else toward


def _picture(image: NDArray[Any], caption: Sequence[str], side: str) -> NDArray[np.uint8]:
    import cv2

    grey = _grey(image)
    scale = SIDE_PX / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    shown = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)
    canvas = np.zeros((SIDE_PX + CAPTION_PX, SIDE_PX), np.uint8)
    top, left = (SIDE_PX - size[1]) // 2, (SIDE_PX - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = shown
    for line, text in enumerate(caption):
        _write_on(canvas, text, (GAP_PX, SIDE_PX + 20 + 22 * line), size=0.48, thickness=1)
    if side:
        _write_on(canvas, side, (GAP_PX, SIDE_PX // 2), size=0.8, thickness=2)
    return canvas


def _write_on(
    canvas: NDArray[np.uint8], text: str, at: tuple[int, int], *, size: float, thickness: int
) -> None:
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, text, at, font, size, (TEXT_COLOUR,), thickness, cv2.LINE_AA)


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Windowed values as grey: floats are 0..1, integers the full range of their type."""
    if np.issubdtype(image.dtype, np.integer):
        scaled = image.astype(np.float32) / np.iinfo(image.dtype).max
    else:
        scaled = image.astype(np.float32)
    return (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    import cv2

    done, data = cv2.imencode(".png", picture)
    if not done:
        raise MachineError("A picture cannot be encoded.", where=str(path))
    # OpenCV's own writer cannot name a file with letters that the code page lacks on Windows.
    path.write_bytes(data.tobytes())
