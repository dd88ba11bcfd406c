"""Where a NIfTI file says that its voxels lie: qform and sform, which may contradict each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Finding
from medtool.data.grids import check_grid, grid_text, same_grid
from medtool.data.nifti import NiftiHeader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

# NIfTI holds RAS: the first two rows change sign.
_LPS_FROM_RAS = np.array([[-1.0], [-1.0], [1.0]])


def nifti_grid(header: NiftiHeader, path: Path) -> tuple[Grid, tuple[Finding, ...]]:
    """The grid of a NIfTI header, and what is to be said of it.

    Of sform and qform the one with a code above 0 counts; where both have one they must agree.
    Without any, the axes are taken for those of the patient in LPS, as SimpleITK does. Raises
    CaseRefused: ``forms-conflict`` and those of ``check_grid``.
    """
    where = str(path)
    # Headers hold anything; what makes no numbers is refused by ``check_grid``.
    with np.errstate(all="ignore"):
        forms = {
            name: _grid(header, affine(header))
            for name, code, affine in (
                ("sform", header.sform_code, _sform),
                ("qform", header.qform_code, _qform),
            )
            if code > 0
        }
    for grid in forms.values():
        check_grid(grid, where)
    if not forms:
        grid = _without_orientation(header)
        check_grid(grid, where)
        text = f"{path.name} does not say how it lies in the patient: its axes are taken for LPS"
        return grid, (Finding("no-orientation", text, "warning"),)
    first, *others = forms.values()
    if others and (why := same_grid(first, others[0])):
        raise CaseRefused(
            "forms-conflict",
            f"The header places the image in two ways: {why}.",
            where=where,
            met="; ".join(f"{name} {grid_text(grid)}" for name, grid in forms.items()),
            wanted="sform and qform that agree, or one of them",
            how="set the code of the wrong one to 0, in the image and in its mask alike.",
        )
    return first, ()


def _grid(header: NiftiHeader, affine_ras: Matrix) -> Grid:
    """The grid of a 3 x 4 matrix from voxel indices to RAS in the file's unit."""
    affine = affine_ras * _LPS_FROM_RAS * header.unit_mm
    spacing = np.linalg.norm(affine[:, :3], axis=0)
    return _as_grid(header, spacing, affine[:, 3], affine[:, :3] / spacing)


def _without_orientation(header: NiftiHeader) -> Grid:
    spacing = np.abs(header.pixdim[1:4]) * header.unit_mm
    return _as_grid(header, spacing, np.zeros(3), np.eye(3))


def _as_grid(header: NiftiHeader, spacing: Matrix, origin: Matrix, direction: Matrix) -> Grid:
    x, y, z = (*header.shape, 1, 1)[:3]
    a, b, c = spacing.tolist()
    p, q, r = origin.tolist()
    return Grid((x, y, z), (a, b, c), (p, q, r), tuple(direction.ravel().tolist()))


def _sform(header: NiftiHeader) -> Matrix:
    return np.asarray(header.rows, dtype=np.float64).reshape(3, 4)


def _qform(header: NiftiHeader) -> Matrix:
    """The 3 x 4 matrix of a quaternion (nifti1.h, method 2)."""
    b, c, d, *offset = header.quaternion
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 0:
        # Rounding made it a little longer than 1: a is 0, the others are made one again.
        length = math.sqrt(b * b + c * c + d * d)
        b, c, d = b / length, c / length, d / length
    a = math.sqrt(max(0.0, rest))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handedness = -1.0 if header.pixdim[0] < 0 else 1.0
    scale = np.array([*header.pixdim[1:3], header.pixdim[3] * handedness])
    return np.hstack([rotation * scale, np.reshape(offset, (3, 1))])
