"""PET and CT of one patient on one grid: SUV and HU voxel by voxel.

SUV is worked out before anything is resampled. Either the PET comes to the CT's grid, or both come
to a common spacing in the field of view that they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.fields import shared_box_mm
from medtool.core.geometry import Grid, Triple
from medtool.core.records import Finding
from medtool.data.grids import grid_text
from medtool.data.regridding import common_grid, regridded
from medtool.dicom.pet_ct import PetCtPair
from medtool.dicom.pixels import AIR_HU
from medtool.dicom.suv import read_suv
from medtool.dicom.volume import read_volume

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
    """``suv`` and ``ct_hu`` (z, y, x), float32, on one grid; what was read, and what was said."""

    suv: NDArray[np.float32]
    ct_hu: NDArray[np.float32]
    grid: Grid
    findings: tuple[Finding, ...] = ()


def read_pet_ct(
    pair: PetCtPair, spacing_mm: Triple | None = None, *, threads: int | None = None
) -> PetCt:
    """Both series of a pair on one grid: the CT's, or one of ``spacing_mm`` (x, y, z).

    The findings are those of the pair, of the SUV and of the pixels of both. Raises CaseRefused
    with the codes of ``read_volume`` and of ``on_one_grid``.
    """
    suv = read_suv(pair.pet, pair.scale, threads=threads)
    ct = read_volume(pair.ct, threads=threads)
    joined = on_one_grid(suv, ct, spacing_mm)
    findings = (*pair.findings, *suv.findings, *ct.findings)
    return PetCt(joined.suv, joined.ct_hu, joined.grid, findings)


def on_one_grid(suv: Placed, ct: Placed, spacing_mm: Triple | None = None) -> PetCt:
    """A PET in SUV and a CT in HU on the CT's grid, or both on one of ``spacing_mm`` (x, y, z).

    The common grid has the CT's axes and lies in what both fields of view share. Values between
    voxels are linear (``regridding``); where the PET's field of view ends SUV is 0. Raises
    CaseRefused ``fields-apart`` where the fields of view have nothing in common.
    """
    if spacing_mm is not None:
        grid = common_grid(ct.grid, suv.grid, spacing_mm)
        ct_hu = regridded(ct.array, ct.grid, grid, outside=AIR_HU)
    else:
        grid, ct_hu = ct.grid, ct.array
        if shared_box_mm(ct.grid, suv.grid) is None:
            raise CaseRefused(
                "fields-apart",
                "PET and CT have no field of view in common.",
                met=f"PET {grid_text(suv.grid)}; CT {grid_text(ct.grid)}",
                wanted="images that show the same part of the patient",
            )
    return PetCt(regridded(suv.array, suv.grid, grid, outside=NO_UPTAKE_SUV), ct_hu, grid)
