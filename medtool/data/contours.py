"""Outlines drawn by hand as text files, and the masks that they enclose.

As in the Sunnybrook Cardiac Data (Radau et al. 2009, MIDAS Journal): one point "x y" a line, in
pixels, x along columns and y along rows; the last point joins the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import CaseRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

# More points than any outline of one slice has.
MOST_POINTS = 1_000_000


def read_contour(path: Path) -> NDArray[np.float64]:
    """Points (n, 2) as x, y in pixels. Raises CaseRefused: ``broken-contour``, ``unreadable``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise _broken(path, "no text") from error
    except OSError as error:
        met = error.strerror or type(error).__name__
        raise CaseRefused(
            "unreadable", "The file cannot be read.", where=str(path), met=met
        ) from error
    points = []
    for number, line in enumerate(lines[:MOST_POINTS], start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            x, y = map(float, words)
        except ValueError as error:
            raise _broken(path, f"line {number}: {line.strip()[:40]}") from error
        points.append((x, y))
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    if len(array) < 3 or not np.isfinite(array).all():
        raise _broken(path, f"{len(array)} points")
    return array


def filled_contour(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """True (rows, columns) where the centre of a pixel lies inside, by the even-odd rule.

    The centre of pixel (row, column) is the point x = column, y = row.
    """
    rows, columns = shape
    inside = np.zeros(shape, dtype=np.bool_)
    centres = np.arange(columns)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = sorted((y1, y2))
        # Rows that this side crosses; half open, so that a corner counts once.
        first, last = max(0, int(np.ceil(low))), min(rows, int(np.ceil(high)))
        for row in range(first, last):
            crossing = x1 + (row - y1) * (x2 - x1) / (y2 - y1)
            inside[row] ^= centres < crossing
    return inside


def _broken(path: Path, met: str) -> CaseRefused:
    return CaseRefused(
        "broken-contour",
        "The file is no outline.",
        where=str(path),
        met=met,
        wanted='at least three points, one "x y" in pixels a line',
    )
