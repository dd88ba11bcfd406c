"""The pairs of masks whose numbers are known from surface-distance, MONAI and MedPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fixture(NamedTuple):
    """A pair of masks and what the independent packages say of it, to the digits given."""

    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    dice: float
    hausdorff_mm: float
    hausdorff95_mm: float
    reference_to_prediction_mm: float
    prediction_to_reference_mm: float
    symmetric_mean_mm: float
    surface_dice_1mm: float
    surface_dice_2mm: float


def box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> NDArray[np.bool_]:
    """A box of half-open ranges."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*pair) for pair in bounds)] = True
    return mask


def ball(side: int, centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    """All voxels whose centre is not farther than ``radius`` voxels from ``centre``."""
    places = np.indices((side,) * len(centre))
    offsets = places - np.asarray(centre).reshape(-1, *(1,) * len(centre))
    return (offsets**2).sum(axis=0) <= radius**2


BOXES = (
    box((20, 20, 20), (6, 15), (5, 13), (5, 12)),
    box((20, 20, 20), (5, 13), (5, 13), (5, 13)),
)
BALLS = (
    ball(24, (11.5, 10.5, 11.5), 7) | box((24, 24, 24), (2, 4), (2, 4), (2, 4)),
    ball(24, (11.5, 11.5, 11.5), 8),
)

FIXTURES = {
    "boxes": Fixture(
        *BOXES, (1, 1, 1), 0.771654, 2.0, 2.0, 0.558042, 0.680431, 0.625955, 0.877681, 1.0
    ),
    "boxes, thick slices": Fixture(
        *BOXES, (3, 1, 1), 0.771654, 6.0, 6.0, 0.650344, 1.141221, 1.344573, 0.816420, 0.834059
    ),
    "balls": Fixture(
        *BALLS, (1, 1, 1), 0.805252, 8.660254, 2.0, 0.800293, 0.797900, 1.031280, 0.780554, 0.975721
    ),
    "balls, thick slices": Fixture(
        *BALLS,
        (2.5, 0.8, 0.8),
        0.805252,
        10.340213,
        2.262742,
        0.760000,
        0.745348,
        1.033890,
        0.719337,
        0.959621,
    ),
}
