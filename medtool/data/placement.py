"""Where a prepared image lies in the image that was read, and the way back for scores and masks.

Preparation turns the axes, crops and resamples; what follows undoes it in the opposite order.
Sizes, spacings and the box are in the order of the turned axes, ``input_size_vox`` alone is in that
of the image that was read (z, y, x).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.data.resampling import resampled_slabs, separate_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """``axes_forward[k]`` is the input's axis that became k; ``box`` is (start, stop) an axis."""

    axes_forward: tuple[int, ...]
    input_size_vox: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    box: tuple[tuple[int, int], ...]
    prepared_spacing_mm: tuple[float, ...]
    prepared_size_vox: tuple[int, ...]

    @property
    def cropped_size_vox(self) -> tuple[int, ...]:
        """Size of the box."""
        return tuple(stop - start for start, stop in self.box)

    def as_facts(self) -> dict[str, Any]:
        """Plain values for the facts of a prepared case; ``placement_from_facts`` reads them."""
        return asdict(self)


def placement_from_facts(facts: Mapping[str, Any]) -> Placement:
    """The placement whose ``as_facts`` this was, also after a way through JSON."""
    return Placement(
        axes_forward=tuple(facts["axes_forward"]),
        input_size_vox=tuple(facts["input_size_vox"]),
        spacing_mm=tuple(facts["spacing_mm"]),
        box=tuple((start, stop) for start, stop in facts["box"]),
        prepared_spacing_mm=tuple(facts["prepared_spacing_mm"]),
        prepared_size_vox=tuple(facts["prepared_size_vox"]),
    )


def scores_on_box(
    scores: NDArray[Any], placement: Placement
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """``scores`` (channels, z, y, x) of a prepared image at the size of its box, slab by slab.

    Linear, or by the nearest plane along an axis that is much coarser, as nnU-Net resamples logits
    back. Gives which planes of the box a slab holds, and the slab (channels, planes, y, x).
    """
    separate = separate_axis(placement.prepared_spacing_mm, placement.spacing_mm)
    return resampled_slabs(scores, placement.cropped_size_vox, order=1, separate=separate)


def mask_on_input(mask: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """A mask of the box (z, y, x) on the grid of the image that was read; 0 around the box."""
    turned = [placement.input_size_vox[axis] for axis in placement.axes_forward]
    whole = np.zeros(turned, dtype=mask.dtype)
    whole[tuple(slice(start, stop) for start, stop in placement.box)] = mask
    return np.ascontiguousarray(whole.transpose(np.argsort(placement.axes_forward)))
