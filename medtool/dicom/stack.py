"""From positions of planes to the true geometry of their stack, or why there is none.

Everything is worked out from ImageOrientationPatient, ImagePositionPatient and PixelSpacing
(PS3.3 C.7.6.2.1.1): never from file names, InstanceNumber, SliceLocation, SliceThickness or
GantryDetectorTilt. SliceThickness only serves to judge gaps where fewer than three steps exist.
All lengths are mm in LPS; "along the normal" is the projection on row direction x column direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medtool.core.geometry import Triple
from medtool.core.records import Finding
from medtool.dicom.series import Plane, StackGeometry

# Direction cosines are rounded by scanners; beyond this they are no directions (PS3.3 C.7.6.2).
ORIENTATION_TOLERANCE = 1e-3
# Two planes nearer than this along the normal are at one position.
SAME_POSITION_MM = 0.01
# Steps that differ from the median by more than this are uneven (highdicom's default share).
STEP_TOLERANCE = 0.01
STEP_TOLERANCE_MM = 0.01
# Even steps may still add up: beyond this share of a step the planes are off their regular grid.
GRID_DRIFT_TOLERANCE = 0.1
# Two steps are "the same spacing" within this share, when gaps and second spacings are judged.
SAME_STEP = 0.05
# A step over both of these is a hole in the stack, whatever the others look like.
GAP_STEPS = 2.5
GAP_MM = 10.0
# Fewer planes do not make a volume.
FEWEST_PLANES = 3
# From this many planes on nobody needs to be warned.
FEW_PLANES = 10
# A stack leans when it moves this far in its plane per mm of normal (0.57 degrees) ...
SHEAR_PER_MM = 1e-2
# ... but not when all of it moves less than rounding of positions explains,
SHEAR_LEAST_MM = 0.05
# and in any case when it moves by this many pixels from first to last plane.
SHEAR_PIXELS = 0.25
# Planes farther off the line through their stack than this do not belong to one straight stack.
OFF_LINE_PIXELS = 1.0


@dataclass(frozen=True)
class Stack:
    """Planes in ascending order along the normal, their geometry, and what was found.

    ``geometry`` is None where the planes do not make a stack; the findings then hold a refusal.
    """

    planes: tuple[Plane, ...]
    geometry: StackGeometry | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Axes:
    """Unit vectors of a plane in LPS: along a row, along a column, and their cross product."""

    row: Triple
    column: Triple
    normal: Triple


def plane_axes(orientation: Sequence[float]) -> Axes | None:
    """Renormalised axes of ImageOrientationPatient (6 values), or None where it has none."""
    if len(orientation) != 6 or not all(math.isfinite(value) for value in orientation):
        return None
    row = np.asarray(orientation[:3], dtype=np.float64)
    column = np.asarray(orientation[3:], dtype=np.float64)
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    if any(abs(length - 1.0) > ORIENTATION_TOLERANCE for length in lengths):
        return None
    if abs(float(row @ column)) > ORIENTATION_TOLERANCE:
        return None
    row /= lengths[0]
    column -= (column @ row) * row
    column /= np.linalg.norm(column)
    return Axes(_triple(row), _triple(column), _triple(np.cross(row, column)))


@lru_cache(maxsize=1024)
def cached_axes(orientation: tuple[float, ...]) -> Axes | None:
    """``plane_axes`` of an orientation that many planes repeat."""
    return plane_axes(orientation)


def along(position_mm: Sequence[float], direction: Triple) -> float:
    """Projection of a point on a unit vector, mm."""
    x_mm, y_mm, z_mm = position_mm
    return x_mm * direction[0] + y_mm * direction[1] + z_mm * direction[2]


def sort_planes(planes: Sequence[Plane], normal: Triple) -> tuple[Plane, ...]:
    """The planes with ``along_normal_mm`` filled in, ascending; equal positions by SOP instance."""
    placed = []
    for plane in planes:
        height = along(plane.position_mm, normal)
        same = plane.along_normal_mm == height
        placed.append(plane if same else replace(plane, along_normal_mm=height))
    return tuple(
        sorted(placed, key=lambda p: (p.along_normal_mm, p.sop_instance_uid, str(p.path), p.frame))
    )


def stack_geometry(
    planes: Sequence[Plane],
    orientation: Sequence[float],
    spacing_mm: Sequence[float],
    *,
    thickness_mm: float | None = None,
) -> Stack:
    """The geometry of planes that share orientation, pixel spacing and size, in any order.

    ``orientation`` is ImageOrientationPatient, ``spacing_mm`` PixelSpacing (between rows, between
    columns). Positions must differ: duplicates are settled before (medtool.dicom.duplicates).
    """
    axes = plane_axes(orientation)
    row_mm, column_mm = _two(spacing_mm)
    finite = all(math.isfinite(value) for p in planes for value in p.position_mm)
    if axes is None or not planes or not finite or not (row_mm > 0 and column_mm > 0):
        return Stack(
            tuple(planes),
            None,
            (_invalid(axes, finite=finite, row_mm=row_mm, column_mm=column_mm),),
        )
    ordered = sort_planes(planes, axes.normal)
    positions = np.asarray([p.along_normal_mm for p in ordered])
    findings: list[Finding] = []
    target_mm, step_findings = _steps(positions, thickness_mm)
    findings += step_findings
    shear, lean_findings = _shear(ordered, axes, min(row_mm, column_mm))
    findings += lean_findings
    if any(f.severity == "refusal" for f in findings):
        return Stack(ordered, None, tuple(findings))
    regular = target_mm is None
    spacing = target_mm if target_mm is not None else float(np.mean(np.diff(positions)))
    own = tuple(float(p) for p in positions)
    geometry = StackGeometry(
        row_direction=axes.row,
        column_direction=axes.column,
        normal=axes.normal,
        row_spacing_mm=row_mm,
        column_spacing_mm=column_mm,
        rows=ordered[0].pixels.rows,
        columns=ordered[0].pixels.columns,
        slice_spacing_mm=spacing,
        tilt_degrees=math.degrees(math.atan(math.hypot(*shear))),
        shear_mm=shear,
        positions_mm=own,
        target_positions_mm=own if regular else target_positions(own, spacing),
    )
    return Stack(ordered, geometry, tuple(findings))


def target_positions(positions_mm: Sequence[float], step_mm: float) -> tuple[float, ...]:
    """Even positions from the first plane on, none beyond the last (nothing is extrapolated)."""
    first, last = positions_mm[0], positions_mm[-1]
    count = math.floor((last - first) / step_mm + STEP_TOLERANCE) + 1
    return tuple(min(first + k * step_mm, last) for k in range(count))


def _steps(
    positions: NDArray[np.float64], thickness_mm: float | None
) -> tuple[float | None, list[Finding]]:
    """The even step to resample to (None: the steps are even already), and findings."""
    findings: list[Finding] = []
    count = len(positions)
    if count < FEWEST_PLANES:
        findings.append(
            Finding(
                "too-few-slices",
                f"only {count} slice{'s' if count != 1 else ''} at different positions: "
                f"a volume needs at least {FEWEST_PLANES} slices",
                "refusal",
            )
        )
    elif count < FEW_PLANES:
        findings.append(Finding("few-slices", f"only {count} slices", "warning"))
    steps = np.diff(positions)
    if not len(steps):
        return None, findings
    usual_mm = _usual_step(steps, thickness_mm)
    gaps = _gaps(steps, usual_mm)
    if gaps:
        shown = ", ".join(f"{steps[k]:.2f} mm after {positions[k]:.2f} mm" for k in gaps[:5])
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        findings.append(
            Finding(
                "missing-slices",
                f"slices are missing: step {shown}{more}, where {usual_mm:.2f} mm is usual",
                "refusal",
            )
        )
    if count < FEWEST_PLANES or gaps or _is_even(positions, steps):
        return None, findings
    target_mm = _target_step(steps, usual_mm)
    findings.append(
        Finding(
            "uneven-spacing",
            f"uneven slice spacing ({_step_summary(steps)}): resampled from the true positions "
            f"to {target_mm:.3f} mm",
        )
    )
    return target_mm, findings


def _usual_step(steps: NDArray[np.float64], thickness_mm: float | None) -> float:
    """The median step; with fewer than three steps SliceThickness, where there is one."""
    if len(steps) >= 3:
        return float(np.median(steps))
    if thickness_mm is not None and math.isfinite(thickness_mm) and thickness_mm > 0:
        return thickness_mm
    return float(steps.min())


def _gaps(steps: NDArray[np.float64], usual_mm: float) -> list[int]:
    """Indices of the steps that are holes.

    A step is one when it is far over the usual one, or alone near twice its neighbours or more;
    neighbours count when they are the usual step, or agree with each other (so that a hole shows
    inside either half of a stack with two spacings).
    """
    gaps = []
    for k, step in enumerate(steps):
        around = [float(steps[i]) for i in (k - 1, k + 1) if 0 <= i < len(steps)]
        usual_around = around and all(_same(n, usual_mm) for n in around)
        agree = len(around) == 2 and _same(around[0], around[1])
        local_mm = usual_mm if usual_around else float(np.mean(around)) if agree else math.inf
        alone = step >= 2.0 * (1.0 - SAME_STEP) * local_mm
        if step > max(GAP_STEPS * usual_mm, GAP_MM) or alone:
            gaps.append(k)
    return gaps


def _is_even(positions: NDArray[np.float64], steps: NDArray[np.float64]) -> bool:
    median_mm = float(np.median(steps))
    tolerance_mm = max(STEP_TOLERANCE_MM, STEP_TOLERANCE * median_mm)
    if float(np.abs(steps - median_mm).max()) > tolerance_mm:
        return False
    grid = np.linspace(positions[0], positions[-1], len(positions))
    return float(np.abs(positions - grid).max()) <= GRID_DRIFT_TOLERANCE * median_mm


def _target_step(steps: NDArray[np.float64], usual_mm: float) -> float:
    """The smaller of the two common steps where a stack has two spacings, else the usual one."""
    common = [group for group in _step_groups(steps) if len(group) >= 2]
    common.sort(key=len, reverse=True)
    if len(common) >= 2:
        return min(float(np.median(group)) for group in common[:2])
    # SliceThickness stands in for the median of two steps, and may lie outside of them.
    return float(np.clip(usual_mm, steps.min(), steps.max()))


def _step_groups(steps: NDArray[np.float64]) -> list[list[float]]:
    groups: list[list[float]] = []
    for step in sorted(float(s) for s in steps):
        if groups and _same(step, groups[-1][0]):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _step_summary(steps: NDArray[np.float64]) -> str:
    groups = _step_groups(steps)
    if len(groups) > 4:
        return f"{steps.min():.3f} to {steps.max():.3f} mm"
    return ", ".join(f"{len(group)} x {np.median(group):.3f} mm" for group in groups)


def _same(first_mm: float, second_mm: float) -> bool:
    return abs(first_mm - second_mm) <= SAME_STEP * max(first_mm, second_mm)


def _shear(
    ordered: Sequence[Plane], axes: Axes, pixel_mm: float
) -> tuple[tuple[float, float], list[Finding]]:
    """In-plane movement per mm of normal (along row, along column), and findings."""
    if len(ordered) < 2:
        return (0.0, 0.0), []
    points = np.asarray([p.position_mm for p in ordered], dtype=np.float64)
    points -= points[0]
    height = points @ np.asarray(axes.normal)
    plane = points @ np.asarray([axes.row, axes.column]).T
    extent_mm = float(height[-1])
    if extent_mm < SAME_POSITION_MM:
        return (0.0, 0.0), []
    centred = height - height.mean()
    slope = (centred @ (plane - plane.mean(axis=0))) / float(centred @ centred)
    lean = float(np.linalg.norm(slope))
    drift_mm = lean * extent_mm
    leans = drift_mm > SHEAR_PIXELS * pixel_mm or (
        lean > SHEAR_PER_MM and drift_mm > SHEAR_LEAST_MM
    )
    residual = plane - plane.mean(axis=0) - np.outer(centred, slope)
    off_mm = float(np.linalg.norm(residual, axis=1).max())
    if off_mm > OFF_LINE_PIXELS * pixel_mm:
        text = f"positions leave the straight line of the stack by up to {off_mm:.2f} mm"
        return (0.0, 0.0), [Finding("positions-off-line", text, "refusal")]
    if not leans:
        return (0.0, 0.0), []
    degrees = math.degrees(math.atan(lean))
    text = f"gantry tilt of {degrees:.2f} degrees, measured from positions: sheared back"
    return (float(slope[0]), float(slope[1])), [Finding("gantry-tilt", text)]


def _invalid(axes: Axes | None, *, finite: bool, row_mm: float, column_mm: float) -> Finding:
    if axes is None:
        what = "ImageOrientationPatient does not hold two perpendicular unit vectors"
    elif not finite:
        what = "ImagePositionPatient holds values that are no numbers"
    elif not (row_mm > 0 and column_mm > 0):
        what = "PixelSpacing does not hold two positive lengths"
    else:
        what = "there are no planes"
    return Finding("invalid-geometry", what, "refusal")


def _two(spacing_mm: Sequence[float]) -> tuple[float, float]:
    if len(spacing_mm) != 2 or not all(math.isfinite(value) for value in spacing_mm):
        return 0.0, 0.0
    return float(spacing_mm[0]), float(spacing_mm[1])


def _triple(vector: NDArray[np.float64]) -> Triple:
    return float(vector[0]), float(vector[1]), float(vector[2])
