"""Where voxels are in the patient.

Conventions, said once: patient coordinates are LPS millimetres (x to the patient's Left, y to
Posterior, z to Superior), as in DICOM and ITK. A grid's ``size``, ``spacing_mm`` and ``origin_mm``
are in x, y, z order (columns, rows, slices); numpy arrays are indexed [z, y, x]. NIfTI files hold
RAS: the first two axes of patient space change sign there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in patient space.

    ``direction`` is a row-major 3 x 3 matrix whose columns are the unit vectors of the x, y and
    z axes of the grid in LPS, as in ``sitk.Image.GetDirection()``.
    """

    size: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def affine_lps(self) -> NDArray[np.float64]:
        """4 x 4 matrix from voxel indices (x, y, z) to LPS mm."""
        import numpy as np

        matrix = np.eye(4)
        directions = np.asarray(self.direction, dtype=np.float64).reshape(3, 3)
        matrix[:3, :3] = directions * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    def as_dict(self) -> dict[str, object]:
        """Plain lists and numbers, for JSON."""
        return {
            "size": list(self.size),
            "spacing_mm": list(self.spacing_mm),
            "origin_mm": list(self.origin_mm),
            "direction": list(self.direction),
        }
