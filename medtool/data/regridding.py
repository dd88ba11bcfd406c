"""Images on another grid of the patient: by place, whatever the axes, spacing and origin of both.

``resampling`` gives an image other voxels in the same field of view, as nnU-Net does; here the
field of view changes too, which brings two scanners' images together. Linear, so that nothing
overshoots: a spline makes negative uptake beside a hot lesion.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.fields import shared_box_mm
from medtool.core.geometry import Grid, Triple
from medtool.data.grids import check_grid, grid_text

if TYPE_CHECKING:
    import SimpleITK
    from numpy.typing import NDArray

How = Literal["linear", "nearest"]

# Steps this many times longer skip voxels between: they are averaged first.
SMOOTHED_FROM = 2.0
# Planes of the new grid that are made at once.
SLAB_PLANES = 32
# A field of view that holds a whole number of voxels but for rounding holds them all.
ROUNDING_VOX = 1e-6


def regridded(
    array: NDArray[Any], grid: Grid, target: Grid, *, outside: float, how: How = "linear"
) -> NDArray[np.float32]:
    """``array`` (z, y, x) on ``grid`` as it is at the voxels of ``target``, float32.

    ``outside`` stands where ``target`` leaves the field of view, which reaches to the outer edges
    of the voxels; in the outer half of a border voxel its value stands. Where the new steps are
    over twice as long along an axis, linear values are taken from the image smoothed along it by a
    Gaussian of (ratio - 1) / 2 voxels. Masks go by ``how="nearest"``. Memory is that of the
    result, of one more copy of the input, and of a few planes.
    """
    import SimpleITK

    if array.shape != grid.size[::-1]:
        raise ValueError(f"an array of {array.shape} on a grid of {grid.size[::-1]} voxels")
    values = np.ascontiguousarray(array, dtype=np.float32)
    if grid == target:
        return values.copy()
    if how == "linear":
        values = _smoothed(values, grid, target)
    image = _image(values, grid)
    out = np.empty(target.size[::-1], dtype=np.float32)
    for start in range(0, len(out), SLAB_PLANES):
        stop = min(start + SLAB_PLANES, len(out))
        # Named, since the view below does not keep it alive.
        slab = _slab(image, target, start, stop, outside, how)
        out[start:stop] = SimpleITK.GetArrayViewFromImage(slab)
    return out


def common_grid(first: Grid, second: Grid, spacing_mm: Triple) -> Grid:
    """The grid of ``spacing_mm`` (x, y, z) in what both fields of view share, on ``first``'s axes.

    It holds as many whole voxels as fit, in the middle of the shared box. Raises CaseRefused:
    ``fields-apart`` (nothing is shared, or less than a voxel), ``invalid-spacing``.
    """
    shared = shared_box_mm(first, second)
    lengths_mm = shared[1] - shared[0] if shared is not None else np.zeros(3)
    x, y, z = (
        floor(length / step + ROUNDING_VOX) if step > 0 else 0
        for length, step in zip(lengths_mm, spacing_mm, strict=True)
    )
    check_grid(Grid((x, y, z), spacing_mm, first.origin_mm, first.direction), "the new grid")
    if shared is None or min(x, y, z) < 1:
        raise CaseRefused(
            "fields-apart",
            "Two images of one patient have no field of view in common.",
            met=f"{grid_text(first)}; {grid_text(second)}",
            wanted="images that show the same part of the patient",
        )
    # The first centre, half a step inside the first of the voxels that are laid in the middle.
    start = shared.mean(axis=0) - (np.array([x, y, z]) - 1) / 2 * np.asarray(spacing_mm)
    origin = np.asarray(first.direction).reshape(3, 3) @ start
    return Grid(
        (x, y, z),
        spacing_mm,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        first.direction,
    )


def _smoothed(values: NDArray[np.float32], grid: Grid, target: Grid) -> NDArray[np.float32]:
    """The image averaged along the axes that the target samples too coarsely."""
    from scipy import ndimage

    smoothed = None
    for axis, ratio in enumerate(_step_ratios(grid, target)):
        if ratio > SMOOTHED_FROM:
            # The image that was given stays as it is; its first smoothed copy is used up.
            source = values if smoothed is None else smoothed
            smoothed = ndimage.gaussian_filter1d(
                source, (ratio - 1.0) / 2.0, axis=2 - axis, mode="nearest", output=smoothed
            )
    return values if smoothed is None else smoothed


def _step_ratios(grid: Grid, target: Grid) -> NDArray[np.float64]:
    """How many voxels of ``grid`` a step of ``target`` passes, along each axis (x, y, z)."""
    ours = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    theirs = np.asarray(target.direction, dtype=np.float64).reshape(3, 3)
    steps_mm = np.abs(ours.T @ theirs) * np.asarray(target.spacing_mm)
    ratios: NDArray[np.float64] = steps_mm.max(axis=1) / np.asarray(grid.spacing_mm)
    return ratios


def _image(values: NDArray[np.float32], grid: Grid) -> SimpleITK.Image:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(grid.spacing_mm)  # type: ignore[no-untyped-call]
    image.SetOrigin(grid.origin_mm)  # type: ignore[no-untyped-call]
    image.SetDirection(grid.direction)  # type: ignore[no-untyped-call]
    return image


def _slab(
    image: SimpleITK.Image, target: Grid, start: int, stop: int, outside: float, how: How
) -> SimpleITK.Image:
    """Planes ``start`` to ``stop`` of the target."""
    import SimpleITK

    origin = target.affine_lps() @ (0.0, 0.0, float(start), 1.0)
    linear, nearest = SimpleITK.sitkLinear, SimpleITK.sitkNearestNeighbor
    return SimpleITK.Resample(
        image,
        (*target.size[:2], stop - start),
        SimpleITK.Transform(),  # type: ignore[no-untyped-call]
        linear if how == "linear" else nearest,
        tuple(float(value) for value in origin[:3]),
        target.spacing_mm,
        target.direction,
        outside,
        SimpleITK.sitkFloat32,
    )
