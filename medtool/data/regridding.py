"""Images on another grid of the patient: by place, whatever the axes, spacing and origin of both.

``resampling`` gives an image other voxels in the same field of view, as nnU-Net does; here the
field of view changes too, which brings two scanners' images together. Linear, so that nothing
overshoots: a spline makes negative uptake beside a hot lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import ceil, floor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.fields import field_box_mm, shared_box_mm
from medtool.core.geometry import Grid, Triple
from medtool.data.grids import check_grid, grid_text, same_grid

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
        raise _apart(first, second)
    # The first centre, half a step inside the first of the voxels that are laid in the middle.
    start = shared.mean(axis=0) - (np.array([x, y, z]) - 1) / 2 * np.asarray(spacing_mm)
    origin = np.asarray(first.direction).reshape(3, 3) @ start
    return Grid(
        (x, y, z),
        spacing_mm,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        first.direction,
    )


def sliced_grid(pet: Grid, ct: Grid, size_px: tuple[int, int], slice_mm: float = 0.0) -> Grid:
    """The grid of ``size_px`` (rows, columns) square pixels over what both fields of view share.

    It has the axes of ``pet`` and, where ``slice_mm`` is 0, those slices of it that the other
    covers. Where the shared field is no square, the grid reaches beyond it along the shorter
    side. Raises CaseRefused ``fields-apart`` (nothing is shared, or less than a slice).
    """
    rows, columns = size_px
    shared = shared_box_mm(pet, ct)
    if shared is None:
        raise _apart(pet, ct)
    low, high = shared
    step_mm = max((high[0] - low[0]) / columns, (high[1] - low[1]) / rows)
    first_mm, count, between_mm = _slices(pet, float(low[2]), float(high[2]), slice_mm)
    if count < 1:
        raise _apart(pet, ct)
    middle = (low + high) / 2
    start = np.array(
        [
            middle[0] - (columns - 1) / 2 * step_mm,
            middle[1] - (rows - 1) / 2 * step_mm,
            first_mm,
        ]
    )
    x, y, z = (float(v) for v in np.asarray(pet.direction).reshape(3, 3) @ start)
    spacing = (float(step_mm), float(step_mm), between_mm)
    return Grid((columns, rows, count), spacing, (x, y, z), pet.direction)


def _slices(pet: Grid, low_mm: float, high_mm: float, slice_mm: float) -> tuple[float, int, float]:
    """Place of the first slice along the third axis, how many there are, and their step."""
    if slice_mm:
        count = floor((high_mm - low_mm) / slice_mm + ROUNDING_VOX)
        return (low_mm + high_mm) / 2 - (count - 1) / 2 * slice_mm, count, slice_mm
    step = pet.spacing_mm[2]
    start = float(np.asarray(pet.direction).reshape(3, 3)[:, 2] @ np.asarray(pet.origin_mm))
    first = max(0, ceil((low_mm - start) / step - ROUNDING_VOX))
    last = min(pet.size[2] - 1, floor((high_mm - start) / step + ROUNDING_VOX))
    return start + first * step, last - first + 1, step


def axial(grid: Grid) -> Grid:
    """The same voxels with their axes in the order and sense that is nearest to L, P, S."""
    directions = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    best = max(
        permutations(range(3)),
        key=lambda order: sum(abs(directions[axis, order[axis]]) for axis in range(3)),
    )
    origin = np.asarray(grid.origin_mm, dtype=np.float64)
    columns = []
    for axis, source in enumerate(best):
        along = directions[:, source]
        if along[axis] < 0:
            origin = origin + along * grid.spacing_mm[source] * (grid.size[source] - 1)
            along = -along
        columns.append(along)
    x, y, z = best
    place = (float(origin[0]), float(origin[1]), float(origin[2]))
    return Grid(
        (grid.size[x], grid.size[y], grid.size[z]),
        (grid.spacing_mm[x], grid.spacing_mm[y], grid.spacing_mm[z]),
        place,
        # Without minus zeros, which differ from zeros where they are written down.
        tuple((np.stack(columns, axis=1) + 0.0).ravel().tolist()),
    )


def labels_on(labels: NDArray[Any], grid: Grid, target: Grid) -> NDArray[np.int16]:
    """Ids (z, y, x) on ``grid`` at the voxels of ``target``: of each voxel what most of it is.

    Where voxels of ``target`` are larger, as many places in each are looked at as it passes voxels
    of ``grid``, else the middle alone, so that volumes are kept. A voxel is background where less
    than half of it is labelled.
    """
    if same_grid(grid, target) is None:
        return labels.astype(np.int16)
    out = np.zeros(target.size[::-1], np.int16)
    found = np.nonzero(labels)
    if not len(found[0]):
        return out
    # Only around what is labelled there is something to do.
    own = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in found)
    piece = part_of_grid(grid, own)
    box = _covered_box(piece, target)
    if box is None:
        return out
    there = part_of_grid(target, box)
    counts = [max(1, ceil(passed - ROUNDING_VOX)) for passed in _voxels_passed(piece, there)]
    near = regridded(labels[own], piece, _divided(there, counts), outside=0.0, how="nearest")
    (x, y, z), (kx, ky, kz) = there.size, counts
    places = near.reshape(z, kz, y, ky, x, kx)
    most = np.zeros((z, y, x), np.float32)
    labelled = np.zeros((z, y, x), np.float32)
    for value in np.unique(near[near != 0]):
        share = (places == value).mean(axis=(1, 3, 5), dtype=np.float32)
        out[box][share > most] = int(value)
        np.maximum(most, share, out=most)
        labelled += share
    out[box][labelled < 0.5] = 0
    return out


def part_of_grid(grid: Grid, box: tuple[slice, ...]) -> Grid:
    """The grid of the voxels in ``box`` (z, y, x)."""
    starts = [part.start for part in box[::-1]]
    x, y, z, _ = (float(v) for v in grid.affine_lps() @ [*starts, 1.0])
    sizes = [part.stop - part.start for part in box[::-1]]
    return Grid((sizes[0], sizes[1], sizes[2]), grid.spacing_mm, (x, y, z), grid.direction)


def _covered_box(piece: Grid, target: Grid) -> tuple[slice, ...] | None:
    """The voxels (z, y, x) of ``target`` that ``piece`` may reach; None where there are none."""
    edges = (field_box_mm(piece, target) - field_box_mm(target, target)[0]) / target.spacing_mm
    box = []
    for low, high, size in zip(edges[0], edges[1], target.size, strict=True):
        start, stop = max(0, floor(low)), min(size, ceil(high))
        if start >= stop:
            return None
        box.append(slice(start, stop))
    return tuple(box[::-1])


def _divided(grid: Grid, counts: Sequence[int]) -> Grid:
    """The grid with each voxel divided into ``counts`` (x, y, z) of equal size."""
    sizes = [size * count for size, count in zip(grid.size, counts, strict=True)]
    steps = [step / count for step, count in zip(grid.spacing_mm, counts, strict=True)]
    first = [(1 / count - 1) / 2 for count in counts]
    x, y, z, _ = (float(v) for v in grid.affine_lps() @ [*first, 1.0])
    return Grid(
        (sizes[0], sizes[1], sizes[2]), (steps[0], steps[1], steps[2]), (x, y, z), grid.direction
    )


def _apart(first: Grid, second: Grid) -> CaseRefused:
    return CaseRefused(
        "fields-apart",
        "Two images of one patient have no field of view in common.",
        met=f"{grid_text(first)}; {grid_text(second)}",
        wanted="images that show the same part of the patient",
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
    """How many voxels of ``grid`` a step of ``target`` passes, along each axis of ``grid``."""
    ratios: NDArray[np.float64] = _steps_mm(grid, target).max(axis=1) / np.asarray(grid.spacing_mm)
    return ratios


def _voxels_passed(grid: Grid, target: Grid) -> NDArray[np.float64]:
    """The same along each axis of ``target``."""
    passed = _steps_mm(grid, target) / np.asarray(grid.spacing_mm)[:, None]
    most: NDArray[np.float64] = passed.max(axis=0)
    return most


def _steps_mm(grid: Grid, target: Grid) -> NDArray[np.float64]:
    """How far each step of ``target`` (columns) leads along each axis of ``grid`` (rows)."""
    ours = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    theirs = np.asarray(target.direction, dtype=np.float64).reshape(3, 3)
    steps: NDArray[np.float64] = np.abs(ours.T @ theirs) * np.asarray(target.spacing_mm)
    return steps


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
