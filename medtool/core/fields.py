"""Fields of view of two grids: where both lie, and how much of one the other covers.

A field of view reaches to the outer edges of its voxels, half a step beyond their centres. Where
the axes of two grids are oblique to one another, the box around the other's corners counts.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from medtool.core.geometry import Grid, Triple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def field_box_mm(grid: Grid, axes: Grid) -> NDArray[np.float64]:
    """Lower and upper edges (2, 3) of ``grid`` along the x, y, z axes of the grid ``axes``.

    In mm from the patient's origin, along the unit vectors of ``axes``.
    """
    import numpy as np

    ends = [(-0.5, size - 0.5) for size in grid.size]
    corners = np.array([[*corner, 1.0] for corner in product(*ends)])
    places = corners @ grid.affine_lps().T[:, :3]
    along = places @ np.asarray(axes.direction, dtype=np.float64).reshape(3, 3)
    return np.stack([along.min(axis=0), along.max(axis=0)])


def shared_box_mm(first: Grid, second: Grid) -> NDArray[np.float64] | None:
    """Edges (2, 3) of what both grids cover, along the axes of ``first``; None for nothing."""
    import numpy as np

    ours, theirs = field_box_mm(first, first), field_box_mm(second, first)
    low, high = np.maximum(ours[0], theirs[0]), np.minimum(ours[1], theirs[1])
    return np.stack([low, high]) if bool((high > low).all()) else None


def covered_shares(first: Grid, second: Grid) -> Triple:
    """Which share of the field of ``first`` the other covers, along each of its axes.

    (0, 0, 0) where they have no volume in common.
    """
    shared = shared_box_mm(first, second)
    if shared is None:
        return (0.0, 0.0, 0.0)
    x, y, z = (
        float(length) / (size * step)
        for length, size, step in zip(
            shared[1] - shared[0], first.size, first.spacing_mm, strict=True
        )
    )
    return (min(x, 1.0), min(y, 1.0), min(z, 1.0))
