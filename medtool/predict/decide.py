"""From logits that arrive slab by slab to a mask on the grid of the image, in bounded memory.

The way back of the preparation, as in nnU-Net (2.8.1, export_prediction.py): to the size that was
cut out, decide, into the place that it was cut from, axes turned back. Full-size logits never
exist; probabilities do where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.data.orientation import Turn
from medtool.data.resampling import separate_axis
from medtool.predict.planes import Planes, planes_of, resized_planes
from medtool.predict.stored_chances import StoredChances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.data import placement as preparation
    from medtool.predict.sliding_window import Slab

Size = tuple[int, int, int]


@dataclass(frozen=True)
class LabelRule:
    """What label the channels of the logits stand for.

    ``values`` has one label a channel: of the channel with the highest logit (the first of equal
    ones); with ``regions`` each channel whose probability is over a half is painted with its
    label, a later one over an earlier one (nnU-Net's ``regions_class_order``). Another probability
    than a half is given by its logit, ``cut``.
    """

    values: tuple[int, ...]
    regions: bool = False
    cut: float = 0.0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds the labels."""
        return np.dtype(np.min_scalar_type(max(self.values)))


@dataclass(frozen=True)
class Placement:
    """How the prepared volume came out of the image: what leads back.

    ``image_size_vox`` are the axes of the image's own array; ``axes_forward[k]`` is the one that
    became axis k, reversed where ``flipped[k]``; ``crop`` are slices along the axes after that.
    ``nearest_axis`` (of those) is
    resampled on its own, by the nearest plane. ``depth_vox`` is the prepared volume's first axis.
    """

    image_size_vox: Size
    axes_forward: Size
    crop: tuple[slice, slice, slice]
    depth_vox: int
    nearest_axis: int | None = None
    flipped: tuple[bool, ...] = (False, False, False)

    @property
    def turn(self) -> Turn:
        """How the axes of the image were turned."""
        return Turn(self.axes_forward, self.flipped)

    @property
    def crop_size_vox(self) -> Size:
        """The size to which logits are brought before they are decided."""
        z, y, x = (part.stop - part.start for part in self.crop)
        return z, y, x


def way_back(place: preparation.Placement) -> Placement:
    """What leads from a prepared volume back to the image that it was made of."""
    first, second, third = place.axes_forward
    z, y, x = place.input_size_vox
    along_z, along_y, along_x = (slice(start, stop) for start, stop in place.box)
    return Placement(
        image_size_vox=(z, y, x),
        axes_forward=(first, second, third),
        crop=(along_z, along_y, along_x),
        depth_vox=place.prepared_size_vox[0],
        nearest_axis=separate_axis(place.prepared_spacing_mm, place.spacing_mm),
        flipped=place.flipped,
    )


@dataclass(frozen=True)
class Decided:
    """A mask (z, y, x) on the image's grid; ``probabilities`` (channels, z, y, x) if asked for.

    These are read from the disk as they are looked at: look at one plane at a time.
    """

    mask: NDArray[np.unsignedinteger[Any]]
    probabilities: NDArray[np.float32] | None = None


def decide(
    slabs: Iterable[Slab], placement: Placement, rule: LabelRule, *, probabilities: bool = False
) -> Decided:
    """The mask of the logits in ``slabs``, which together are the prepared volume.

    What was cropped away is background (0). ``probabilities`` lie on the disk, plane by plane.
    """
    return decide_planes(
        image_planes(slabs, placement), placement, rule, probabilities=probabilities
    )


def image_planes(slabs: Iterable[Slab], placement: Placement) -> Planes:
    """The planes (channels, y, x) of logits at the size that was cut out of the image, in order."""
    size, depth = placement.crop_size_vox, placement.depth_vox
    return resized_planes(planes_of(slabs), depth, size, placement.nearest_axis)


def decide_planes(
    planes: Planes, placement: Placement, rule: LabelRule, *, probabilities: bool = False
) -> Decided:
    """As ``decide``, from planes that have the image's size already."""
    mask = np.zeros(placement.image_size_vox, dtype=rule.dtype)
    crop_z, *crop_plane = placement.crop
    labels_there = placement.turn.there(mask)[crop_z]
    stored = StoredChances(placement, _surely_nothing(rule)) if probabilities else None
    with stored or nullcontext():
        for row, logits in enumerate(planes):
            labels_there[row][tuple(crop_plane)] = decide_labels(logits, rule)
            if stored is not None:
                stored.add(_chances(logits, rule))
        return Decided(mask, None if stored is None else stored.whole())


def decide_labels(logits: NDArray[np.float32], rule: LabelRule) -> NDArray[Any]:
    """Labels (...) of logits (channels, ...)."""
    if len(logits) != len(rule.values):
        raise ValueError(f"there are {len(logits)} channels and {len(rule.values)} labels")
    if rule.regions:
        painted = np.zeros(logits.shape[1:], dtype=rule.dtype)
        for channel, value in zip(logits, rule.values, strict=True):
            np.copyto(painted, value, where=channel > rule.cut, casting="unsafe")
        return painted
    values = np.asarray(rule.values, dtype=rule.dtype)
    return values.take(_highest(logits))


def _highest(logits: NDArray[np.float32]) -> NDArray[Any]:
    """Index of the highest channel, the first of equal ones; ten times as fast as ``argmax``."""
    best = logits[0].copy()
    found = np.zeros(best.shape, dtype=np.min_scalar_type(len(logits)))
    for index, channel in enumerate(logits[1:], start=1):
        higher = (channel > best).astype(found.dtype)
        # Indices rise: where this channel is higher, it is the larger index as well.
        np.maximum(found, higher * found.dtype.type(index), out=found)
        np.maximum(best, channel, out=best)
    return found


def _surely_nothing(rule: LabelRule) -> NDArray[np.float32]:
    """Background for certain (channels): what was cropped away is so."""
    chances = np.zeros(len(rule.values), dtype=np.float32)
    if not rule.regions:
        chances[0] = 1
    return chances


def _chances(logits: NDArray[np.float32], rule: LabelRule) -> NDArray[np.float32]:
    from scipy.special import expit, softmax

    chances: NDArray[np.float32] = expit(logits) if rule.regions else softmax(logits, axis=0)
    return chances
