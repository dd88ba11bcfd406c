"""Grids of images and masks: whether they are sound, the same, and how they are shown."""

from __future__ import annotations

import math
from itertools import product
from typing import NoReturn

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid

# Two grids are one where no corner departs by more than this share of a voxel. Headers hold 32-bit
# numbers, and writers round; nothing of it reaches a hundredth of a voxel.
GRID_TOLERANCE_VOX = 0.05
# Largest entry of D'D - I of a direction D: an angle of 0.06 degrees off the right one.
ORTHONORMAL_TOLERANCE = 1e-3
# No scanner of patients steps less or more; 999 and 0 stand for "not known".
LEAST_SPACING_MM, LARGEST_SPACING_MM = 0.001, 50.0
# LPS: positive x is Left, positive y Posterior, positive z Superior.
_AXIS_ENDS = ("RL", "AP", "IS")


def same_grid(a: Grid, b: Grid) -> str | None:
    """None where two grids are one, else what differs, in words.

    Sizes have to be equal; every corner voxel has to lie within ``GRID_TOLERANCE_VOX`` voxels of
    the other grid's.
    """
    if a.size != b.size:
        return f"sizes differ: {_size(a)} and {_size(b)} voxels"
    corners = np.array([[*index, 1.0] for index in product(*((0.0, float(n - 1)) for n in a.size))])
    # An origin at the end of all numbers is far away, whatever its square.
    with np.errstate(over="ignore", invalid="ignore"):
        apart_mm = np.linalg.norm((a.affine_lps() - b.affine_lps())[:3] @ corners.T, axis=0)
    largest_mm = float(apart_mm.max())
    if largest_mm <= GRID_TOLERANCE_VOX * min(*a.spacing_mm, *b.spacing_mm):
        return None
    for name, left, right in (
        ("spacing", a.spacing_mm, b.spacing_mm),
        ("direction", a.direction, b.direction),
    ):
        if not np.allclose(left, right, rtol=1e-3, atol=1e-3):
            return f"the {name} differs: corners are up to {largest_mm:.3g} mm apart"
    return f"the position differs: corners are up to {largest_mm:.3g} mm apart"


def require_same_grid(image: Grid, other: Grid, *, names: tuple[str, str], where: str) -> None:
    """Refuse two grids that are not one, with both; nothing is ever resampled to fit.

    Raises CaseRefused ``grids-differ``.
    """
    why = same_grid(image, other)
    if why is None:
        return
    raise CaseRefused(
        "grids-differ",
        f"{names[0]} and {names[1]} lie on different grids: {why}.",
        where=where,
        met=f"{names[0]} {grid_text(image)}; {names[1]} {grid_text(other)}",
        wanted="one grid; nothing is resampled silently",
        how="resample one of them to the other's grid yourself, masks by nearest neighbour.",
    )


def grid_text(grid: Grid) -> str:
    """Size, spacing, origin and axes of a grid on one line."""
    spacing = " x ".join(f"{value:.5g}" for value in grid.spacing_mm)
    origin = ", ".join(f"{value:.5g}" for value in grid.origin_mm)
    text = f"{_size(grid)} voxels of {spacing} mm at ({origin}), axes {orientation(grid)}"
    return text if _along_axes(grid) else f"{text} {_shown_direction(grid)}"


def orientation(grid: Grid) -> str:
    """Where the grid's axes run to, nearest patient axis each: ``LPS`` for the identity."""
    directions = np.asarray(grid.direction).reshape(3, 3)
    letters = ""
    for axis in range(3):
        nearest = int(np.argmax(np.abs(directions[:, axis])))
        letters += _AXIS_ENDS[nearest][int(directions[nearest, axis] > 0)]
    return letters


def check_grid(grid: Grid, where: str) -> None:
    """Refuse a grid that no scan has.

    Raises CaseRefused: ``invalid-spacing`` (zero, 999, no number), ``skewed-axes``,
    ``invalid-origin``.
    """
    if not all(LEAST_SPACING_MM <= value <= LARGEST_SPACING_MM for value in grid.spacing_mm):
        _refuse(
            "invalid-spacing",
            "The spacing of the voxels is none that a scan has.",
            where,
            met=" x ".join(f"{value:g}" for value in grid.spacing_mm) + " mm",
            wanted=f"{LEAST_SPACING_MM:g} to {LARGEST_SPACING_MM:g} mm",
        )
    directions = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    error = np.abs(directions.T @ directions - np.eye(3)).max()
    if not error <= ORTHONORMAL_TOLERANCE:
        _refuse(
            "skewed-axes",
            "The axes of the image are not at right angles.",
            where,
            met=_shown_direction(grid),
            wanted="three axes at right angles",
        )
    if not all(map(math.isfinite, grid.origin_mm)):
        _refuse("invalid-origin", "The origin is no number.", where, met=str(grid.origin_mm))


def _size(grid: Grid) -> str:
    return " x ".join(map(str, grid.size))


def _shown_direction(grid: Grid) -> str:
    rows = np.asarray(grid.direction).reshape(3, 3)
    return "[" + "; ".join(", ".join(f"{value:.4g}" for value in row) for row in rows) + "]"


def _along_axes(grid: Grid) -> bool:
    """Whether every axis runs along one of the patient."""
    return bool(np.allclose(np.abs(np.asarray(grid.direction)), np.rint(np.abs(grid.direction))))


def _refuse(code: str, what: str, where: str, *, met: str, wanted: str = "") -> NoReturn:
    raise CaseRefused(code, what, where=where, met=met, wanted=wanted)
