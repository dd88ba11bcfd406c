"""How far the surfaces of two masks are from each other, in mm.

Two definitions of a surface are in use, and their numbers differ:

- *surfels*: the points where voxels meet and not all are inside or outside, each with the area of
  the surface that passes there (``surfels.py``). Hausdorff distances, the directed mean distances
  and the surface Dice are of this kind, as in surface-distance 0.1 (Nikolov et al., arXiv
  1809.04430), which HECKTOR and FLARE use.
- *edge voxels*: inside voxels with a face neighbour outside, each counted once. The average
  symmetric surface distance is of this kind, as in MedPy 0.5 and MONAI 1.6.

Arrays have two or three axes and ``spacing_mm`` is in their order. Outside the image is outside
the mask. Distances are between points of the two surfaces, found with a k-d tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nan, prod

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medtool.score.overlap import Mask
from medtool.score.sample import FloatArray, IntArray
from medtool.score.surfels import surface_sizes

# Voxels that are looked at together: few enough to stay in a processor's cache.
BLOCK_VOX = 2**18
# Points of the k-d tree that are compared one by one: the fastest of 16 to 96 on an organ.
LEAF_POINTS = 48
# Many points are looked up by several threads; the answers are the same.
THREADS, MANY_POINTS = 4, 20_000
# The share of a surface is a sum of rounded areas: 95 % may come out as 0.95 - 1e-16.
SHARE_SLACK = 1e-12


@dataclass(frozen=True)
class Surface:
    """One mask's surface as seen from the other mask's.

    ``distances_mm`` (points,) to the nearest point of the other surface, inf where there is none;
    ``sizes`` (points,) the area in mm^2 (length in mm in 2D) of each point, or ones.
    """

    distances_mm: FloatArray
    sizes: FloatArray

    @property
    def total(self) -> float:
        """Area of the whole surface in mm^2 (length in mm in 2D; a number of edge voxels)."""
        return float(self.sizes.sum())

    @property
    def mean_mm(self) -> float:
        """Mean distance to the other surface, each point by its size; NaN without a surface."""
        return float(self.distances_mm @ self.sizes) / self.total if self.sizes.size else nan

    def within(self, tolerance_mm: float) -> float:
        """Size of the part that is not farther than ``tolerance_mm`` from the other surface."""
        return float(self.sizes[self.distances_mm <= tolerance_mm].sum())

    def percentile_mm(self, percent: float) -> float:
        """The least distance that ``percent`` of the surface does not pass; inf without one."""
        if not self.sizes.size:
            return inf
        order = np.argsort(self.distances_mm)
        reached = np.cumsum(self.sizes[order])
        place = int(np.searchsorted(reached, reached[-1] * (percent / 100.0 - SHARE_SLACK)))
        return float(self.distances_mm[order[min(place, order.size - 1)]])


@dataclass(frozen=True)
class SurfacePair:
    """The surfaces of a prediction and its reference, each with its distances to the other."""

    prediction: Surface
    reference: Surface

    def hausdorff_mm(self, percent: float = 100.0) -> float:
        """The larger of both directions' percentiles; inf where one mask is empty."""
        return max(self.prediction.percentile_mm(percent), self.reference.percentile_mm(percent))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of both surfaces within ``tolerance_mm`` of the other (NSD); NaN without any."""
        total = self.prediction.total + self.reference.total
        close = self.prediction.within(tolerance_mm) + self.reference.within(tolerance_mm)
        return close / total if total else nan

    def symmetric_mean_mm(self) -> float:
        """Mean of the distances of both surfaces together; inf where one mask is empty."""
        total = self.prediction.total + self.reference.total
        summed = sum(
            float(side.distances_mm @ side.sizes) for side in (self.prediction, self.reference)
        )
        return summed / total if total else nan


def surfel_pair(prediction: Mask, reference: Mask, spacing_mm: Sequence[float]) -> SurfacePair:
    """Distances between the surfaces of two masks of one shape, each point with its area."""
    return _pair(prediction, reference, spacing_mm, edge_voxels=False)


def edge_pair(prediction: Mask, reference: Mask, spacing_mm: Sequence[float]) -> SurfacePair:
    """Distances between the edge voxels of two masks of one shape, each counted once."""
    return _pair(prediction, reference, spacing_mm, edge_voxels=True)


def joint_box(*masks: Mask) -> tuple[slice, ...]:
    """The smallest box that holds every voxel of the masks; empty slices where there is none."""
    box = [slice(0, length) for length in masks[0].shape]
    for axis in range(len(box)):
        others = tuple(other for other in range(len(box)) if other != axis)
        # What one axis leaves out, the next need not look at.
        rows = [mask[tuple(box)].any(axis=others) for mask in masks]
        seen = np.flatnonzero(np.logical_or.reduce(rows))
        box[axis] = slice(int(seen[0]), int(seen[-1]) + 1) if seen.size else slice(0, 0)
    return tuple(box)


@dataclass(frozen=True)
class _Points:
    """The surface points of one mask.

    ``places`` (points,) index into the flat array of all places where a point could be; ``codes``
    which voxels around it are inside; ``shared`` whether the other mask has a point there too.
    """

    places: IntArray
    codes: NDArray[np.uint8]
    shared: Mask


Block = NDArray[np.uint8]


def _pair(
    prediction: Mask, reference: Mask, spacing_mm: Sequence[float], *, edge_voxels: bool
) -> SurfacePair:
    box = joint_box(prediction, reference)
    # One voxel of outside all around: every surface point then has all its neighbours.
    masks = [np.pad(mask[box], 1).view(np.uint8) for mask in (prediction, reference)]
    look, reach = (_edge_voxels, 2) if edge_voxels else (_meeting_points, 1)
    shape = tuple(length - reach for length in masks[0].shape)
    one, two = _surface_points(masks, shape, look)
    sizes = np.ones(2) if edge_voxels else surface_sizes(tuple(spacing_mm))
    return SurfacePair(
        Surface(_distances_mm(one, two, shape, spacing_mm), sizes[one.codes]),
        Surface(_distances_mm(two, one, shape, spacing_mm), sizes[two.codes]),
    )


def _meeting_points(block: Block) -> tuple[Block, Mask]:
    """Code of the voxels around each point where voxels meet, and where both kinds meet."""
    codes, bits = block, 1
    for axis in reversed(range(block.ndim)):
        before, after = _neighbours(codes, axis, 1)
        codes, bits = np.left_shift(before, np.uint8(bits)) | after, bits * 2
    # Neither none nor all inside, in one comparison: 0 - 1 wraps around to 255.
    return codes, codes - np.uint8(1) < 2**bits - 2


def _edge_voxels(block: Block) -> tuple[Block, Mask]:
    """Each voxel but the outermost of the block, and where one is inside but not wrapped."""
    inner = block[(slice(1, -1),) * block.ndim]
    wrapped = inner.copy()
    for axis in range(block.ndim):
        sides = tuple(slice(None) if other == axis else slice(1, -1) for other in range(block.ndim))
        for neighbour in _neighbours(block[sides], axis, 2):
            wrapped &= neighbour
    return inner, inner != wrapped


def _neighbours(block: Block, axis: int, apart: int) -> tuple[Block, Block]:
    """The block without its last, and without its first ``apart`` layers along an axis."""
    layers = np.moveaxis(block, axis, 0)
    return np.moveaxis(layers[:-apart], 0, axis), np.moveaxis(layers[apart:], 0, axis)


def _surface_points(
    masks: Sequence[Block],
    shape: tuple[int, ...],
    look: Callable[[Block], tuple[Block, Mask]],
) -> tuple[_Points, _Points]:
    """The points of two padded masks, looked for block by block."""
    layer = prod(shape[1:])
    step = max(1, BLOCK_VOX // max(layer, 1))
    reach = masks[0].shape[0] - shape[0]
    found: tuple[list[_Points], list[_Points]] = ([], [])
    for start in range(0, max(shape[0], 1), step):
        seen = [look(mask[start : start + step + reach]) for mask in masks]
        for points, (codes, here), (_, there) in zip(found, seen, reversed(seen), strict=True):
            at = np.flatnonzero(here)
            points.append(_Points(at + start * layer, codes.reshape(-1)[at], there.reshape(-1)[at]))
    return _joined(found[0]), _joined(found[1])


def _joined(parts: Sequence[_Points]) -> _Points:
    return _Points(
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.shared for part in parts]),
    )


def _distances_mm(
    points: _Points, others: _Points, shape: tuple[int, ...], spacing_mm: Sequence[float]
) -> FloatArray:
    """(points,) distance in mm to the nearest of the others; inf where there are none."""
    if not others.places.size:
        return np.full(points.places.size, inf)
    distances = np.zeros(points.places.size)
    apart = ~points.shared
    if apart.any():
        here = np.stack(np.unravel_index(points.places[apart], shape))
        there = np.stack(np.unravel_index(others.places, shape))
        scale = np.asarray(spacing_mm, dtype=np.float64)[:, None]
        # A tree that is split at the middle, not the median, is built in a third of the time.
        tree = cKDTree(
            (there * scale).T, leafsize=LEAF_POINTS, balanced_tree=False, compact_nodes=False
        )
        threads = THREADS if here.shape[1] >= MANY_POINTS else 1
        nearest = tree.query((here * scale).T, workers=threads)[1]
        # From whole steps, as a distance transform has it: positions are rounded, and whether a
        # distance is within a tolerance of just as much would hang on that.
        steps = (there[:, nearest] - here) * scale
        distances[apart] = np.sqrt((steps * steps).sum(axis=0))
    return distances
