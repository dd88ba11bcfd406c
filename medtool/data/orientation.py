"""How the axes of an image run in the patient, and arrays with axes that run as they should.

The nearest order of axes and the signs are found as in nibabel (``io_orientation`` of version 5.4:
by polar decomposition, the clearest axis first), so that an oblique image becomes the same array
here and there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid
    from medtool.core.plan import Orientation

# NIfTI's patient axes point to the Right, the Anterior and the Superior, ours to the Left, the
# Posterior and the Superior.
RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Turn:
    """``axes[k]`` is the array axis that becomes k; it is reversed where ``flipped[k]``."""

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    def then(self, axes: Sequence[int]) -> Turn:
        """This turn with its result's axes in another order."""
        return Turn(
            tuple(self.axes[axis] for axis in axes), tuple(self.flipped[axis] for axis in axes)
        )

    def there(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of an array, whose last axes are those of the image, turned."""
        leading = array.ndim - len(self.axes)
        turned = array.transpose(*range(leading), *(leading + axis for axis in self.axes))
        view: NDArray[Any] = turned[self._steps(leading)]
        return view

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of a turned array as the image's axes are."""
        leading = array.ndim - len(self.axes)
        order = [leading + int(axis) for axis in np.argsort(self.axes)]
        return array[self._steps(leading)].transpose(*range(leading), *order)

    def voxel(self, voxel: Sequence[int], size_vox: Sequence[int]) -> list[int]:
        """Where a voxel of an image of ``size_vox`` is after the turn."""
        return [
            size_vox[axis] - 1 - voxel[axis] if flipped else voxel[axis]
            for axis, flipped in zip(self.axes, self.flipped, strict=True)
        ]

    def _steps(self, leading: int) -> tuple[slice, ...]:
        flipped = (*(False for _ in range(leading)), *self.flipped)
        return tuple(slice(None, None, -1 if one else None) for one in flipped)


AS_STORED = Turn((0, 1, 2), (False, False, False))


def turn_to(orientation: Orientation, grid: Grid) -> Turn:
    """The turn of an array (z, y, x) on ``grid`` to the axes that a plan speaks of."""
    return towards_superior_anterior_right(grid) if orientation == "ras" else AS_STORED


def left_right_axis(grid: Grid, axes: Sequence[int]) -> int:
    """Which axis of an array runs nearest to the patient's left and right.

    Axis k of it was axis ``axes[k]`` of the array (z, y, x) on ``grid``.
    """
    across = np.abs(np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)[0])
    return list(axes).index(2 - int(across.argmax()))


def towards_superior_anterior_right(grid: Grid) -> Turn:
    """The turn of an array (z, y, x) on ``grid`` after which its axes run to S, A and R."""
    directions = RAS_OF_LPS @ np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    left, _, right = np.linalg.svd(directions)
    nearest = left @ right
    axes, flipped = [0, 0, 0], [False, False, False]
    # From the strongest to the weakest, so that the order in the file does not matter.
    for axis in map(int, np.argsort(-(nearest**2).max(axis=0), kind="stable")):
        column = nearest[:, axis]
        towards = int(np.abs(column).argmax())
        # Arrays count their axes from the other end.
        axes[2 - towards] = 2 - axis
        flipped[2 - towards] = bool(column[towards] < 0)
        nearest[towards] = 0
    return Turn(tuple(axes), tuple(flipped))
