"""PET and CT of one patient on one grid: SUV and HU voxel by voxel.

SUV is worked out before anything is resampled. The grid may be that of either image, or one in the
field of view that both share (``regridding.common_grid``, ``regridding.sliced_grid``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medtool.core.geometry import Grid
from medtool.data.regridding import regridded
from medtool.dicom.pixels import AIR_HU

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Where a PET measured nothing.
NO_UPTAKE_SUV = 0.0


class Placed(Protocol):
    """A volume (z, y, x) with its grid, from DICOM or from a file."""

    @property
    def array(self) -> NDArray[np.float32]:
        """Values (z, y, x)."""

    @property
    def grid(self) -> Grid:
        """Where they lie."""


@dataclass(frozen=True)
class PetCt:
    """``suv`` and ``ct_hu`` (z, y, x), float32, on one grid."""

    suv: NDArray[np.float32]
    ct_hu: NDArray[np.float32]
    grid: Grid


def on_grid(suv: Placed, ct: Placed, grid: Grid) -> PetCt:
    """A PET in SUV and a CT in HU at the voxels of ``grid``.

    Values between voxels are linear (``regridded``); beyond the fields of view SUV is 0 and the CT
    air.
    """
    return PetCt(
        regridded(suv.array, suv.grid, grid, outside=NO_UPTAKE_SUV),
        regridded(ct.array, ct.grid, grid, outside=AIR_HU),
        grid,
    )
