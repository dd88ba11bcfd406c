"""Slices at even distances out of planes at uneven ones, along the normal, from true positions.

Linear between the two planes around a position; where one of them has no measurement the nearer
one is taken, so that padding is never mixed into tissue. Nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A position this near to a plane, as a share of the gap, is that plane.
_ON_PLANE = 1e-3


@dataclass(frozen=True, slots=True)
class Blend:
    """The planes that one slice is made of (one or two), and their weights, which sum to 1."""

    planes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def nearest(self) -> int:
        """The plane to name to a person: the one with the greater weight."""
        return self.planes[int(np.argmax(self.weights))]


def blends(positions_mm: Sequence[float], targets_mm: Sequence[float]) -> tuple[Blend, ...]:
    """For each target, the planes around it; ``positions_mm`` ascend and enclose the targets."""
    positions = np.asarray(positions_mm, dtype=np.float64)
    found = []
    for target in targets_mm:
        upper = int(np.clip(np.searchsorted(positions, target), 1, max(len(positions) - 1, 1)))
        if len(positions) == 1:
            found.append(Blend((0,), (1.0,)))
            continue
        lower = upper - 1
        gap_mm = float(positions[upper] - positions[lower])
        share = float(np.clip((target - positions[lower]) / gap_mm, 0.0, 1.0))
        if share <= _ON_PLANE:
            found.append(Blend((lower,), (1.0,)))
        elif share >= 1.0 - _ON_PLANE:
            found.append(Blend((upper,), (1.0,)))
        else:
            found.append(Blend((lower, upper), (1.0 - share, share)))
    return tuple(found)


def blended_slice(
    planes: NDArray[np.float32],
    invalid: Mapping[int, NDArray[np.bool_] | None],
    blend: Blend,
    out: NDArray[np.float32],
) -> None:
    """Write one slice (rows, columns) out of ``planes`` (planes, rows, columns).

    ``invalid`` holds, for the planes of the blend, where they have no measurement (None: nowhere).
    """
    if len(blend.planes) == 1:
        np.copyto(out, planes[blend.planes[0]])
        return
    lower, upper = blend.planes
    # In this form equal neighbours give exactly themselves.
    np.subtract(planes[upper], planes[lower], out=out)
    out *= np.float32(blend.weights[1])
    out += planes[lower]
    masks = [mask for mask in (invalid[lower], invalid[upper]) if mask is not None]
    if masks:
        either = masks[0] if len(masks) == 1 else masks[0] | masks[1]
        np.copyto(out, planes[blend.nearest], where=either)
