"""One image of a segmentation task, and its label map, as a plan wants them.

In nnU-Net's order (Isensee 2021; default_preprocessor.py of version 2.8.1): axes are turned, what
is zero all around is cut off, channels are normalised, then resampled. Beside them the places of
some voxels of each class are kept, so that a patch with a rare class is found at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import InputError
from medtool.core.plan import Configuration, Plan
from medtool.core.randomness import generator
from medtool.data.cropping import nonzero_box, nonzero_mask
from medtool.data.normalising import normalise
from medtool.data.orientation import Turn, turn_to
from medtool.data.placement import Placement
from medtool.data.planning import resampled_size
from medtool.data.resampling import resample, separate_axis
from medtool.data.resampling_labels import resample_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid

# The label of voxels outside the body; there are some only where a channel is normalised inside.
OUTSIDE = -1
# So many voxels of a class are kept, or this share of them, whichever is more.
LEAST_LOCATIONS = 10_000
LOCATIONS_SHARE = 0.01

IMAGE, LABEL = "image", "label"


def prepare_image(
    image: NDArray[Any],
    label: NDArray[np.integer[Any]] | None,
    grid: Grid,
    plan: Plan,
    configuration: Configuration,
    *,
    case_id: str,
    classes: Sequence[tuple[int, ...]] = (),
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays for the cache and the facts that lead back to ``grid``.

    ``image`` is (channels, z, y, x) on ``grid``, ``label`` (z, y, x) or None. The arrays are
    ``image`` (channels, z, y, x; float32), ``label`` (int8, or int16 for labels over 127) and for
    each of ``classes``, a label or several that make a region, ``locations_name`` of it: voxels
    (n, 3; int32) drawn by the case's own generator. The facts are those of ``Placement``. Raises
    InputError where image, label and grid do not have one size.
    """
    _check_sizes(image, label, grid)
    turn = turn_to(plan.orientation, grid).then(plan.axes_forward)
    turned = turn.there(image)
    box = nonzero_box(turned)
    placement = _placement(turned[0][box].shape, box, grid, turn, configuration)
    channels = turned[(slice(None), *box)]
    seen = None if label is None else _small_type(turn.there(label)[box])
    outside = _outside(channels, seen) if any(configuration.mask_for_normalisation) else None
    arrays: dict[str, NDArray[Any]] = {
        IMAGE: _prepared_channels(channels, outside, plan, configuration, placement)
    }
    if seen is not None:
        if outside is not None:
            seen[outside] = OUTSIDE
        separate = separate_axis(placement.spacing_mm, placement.prepared_spacing_mm)
        arrays[LABEL] = resample_labels(seen, placement.prepared_size_vox, separate=separate)
        for labels in classes:
            arrays[locations_name(labels)] = _locations(arrays[LABEL], labels, case_id)
    return arrays, placement.as_facts()


def locations_name(labels: Sequence[int]) -> str:
    """The array that holds places of a class: ``locations_1``, of a region ``locations_1_2``."""
    return "_".join(["locations", *map(str, labels)])


def _check_sizes(image: NDArray[Any], label: NDArray[np.integer[Any]] | None, grid: Grid) -> None:
    wanted = grid.size[::-1]
    for name, array in ((IMAGE, image[0]), (LABEL, label)):
        if array is not None and array.shape != wanted:
            raise InputError(
                f"The {name} is not on the grid that it is said to be on.",
                met=" x ".join(map(str, array.shape)),
                wanted=" x ".join(map(str, wanted)) + " voxels (z, y, x)",
            )


def _placement(
    cropped_vox: tuple[int, ...],
    box: tuple[slice, ...],
    grid: Grid,
    turn: Turn,
    configuration: Configuration,
) -> Placement:
    spacing = tuple(grid.spacing_mm[::-1][axis] for axis in turn.axes)
    target = configuration.spacing_mm
    if configuration.network.dimensions == 2:
        # Slices stay where they are.
        target = (spacing[0], *target[1:])
    return Placement(
        axes_forward=turn.axes,
        input_size_vox=grid.size[::-1],
        spacing_mm=spacing,
        box=tuple((part.start, part.stop) for part in box),
        prepared_spacing_mm=target,
        prepared_size_vox=resampled_size(cropped_vox, spacing, target),
        flipped=turn.flipped,
    )


def _small_type(label: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """A copy in int8, or int16 where labels need it."""
    return label.astype(np.int8 if label.max(initial=0) <= np.iinfo(np.int8).max else np.int16)


def _outside(channels: NDArray[Any], label: NDArray[np.integer[Any]] | None) -> NDArray[np.bool_]:
    """Where nothing was measured; never where a label says that there is something."""
    outside = ~nonzero_mask(channels)
    if label is not None:
        outside &= label == 0
    return outside


def _prepared_channels(
    channels: NDArray[Any],
    outside: NDArray[np.bool_] | None,
    plan: Plan,
    configuration: Configuration,
    placement: Placement,
) -> NDArray[np.float32]:
    size = placement.prepared_size_vox
    separate = separate_axis(placement.spacing_mm, placement.prepared_spacing_mm)
    whole = np.empty((len(channels), *size), dtype=np.float32)
    inside = None if outside is None else ~outside
    for number, channel in enumerate(channels):
        # One channel at a time, so that only one is in memory twice.
        values = np.array(channel, dtype=np.float32, order="C")
        masked = configuration.mask_for_normalisation[number]
        normalise(
            values,
            configuration.normalisation[number],
            intensities=plan.intensities[number] if plan.intensities else None,
            inside=inside if masked else None,
        )
        whole[number] = resample(values, size, order=3, separate=separate)
    return whole


def _locations(
    label: NDArray[np.integer[Any]], labels: Sequence[int], case_id: str
) -> NDArray[np.int32]:
    """Some voxels (n, 3) of the labels, each as likely as any other, in the order of the array."""
    wanted_labels = label == labels[0]
    for value in labels[1:]:
        wanted_labels |= label == value
    found = np.flatnonzero(wanted_labels)
    wanted = max(min(LEAST_LOCATIONS, len(found)), math.ceil(len(found) * LOCATIONS_SHARE))
    if wanted < len(found):
        draws = generator("class locations", case_id, *labels)
        found = np.sort(draws.choice(found, wanted, replace=False, shuffle=False))
    places = np.unravel_index(found, label.shape)
    return np.stack(places, axis=1).astype(np.int32)
