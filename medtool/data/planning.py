"""Everything that is planned for a segmentation data set, out of its fingerprint.

The rules are nnU-Net's (Isensee 2021, version 2.8.1: default_experiment_planner.py), so that plans
agree with its own; each decision says why. What is decided of one configuration's patch, network
and batch stands in ``medtool.data.patch_planning``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medtool.core.errors import InputError, UsageError
from medtool.core.plan import Configuration, Decision, Normalisation, Plan
from medtool.data.channels import plain_names
from medtool.data.fingerprint import Fingerprint
from medtool.data.patch_planning import Budget, Means, PatchPlan, by_text, means_of, plan_patch

# An axis that is this many times coarser than the others, with as many times fewer voxels, is
# anisotropic (nnU-Net's ANISO_THRESHOLD).
ANISOTROPY = 3
# Of an anisotropic axis this percentile of the spacings is aimed at, the median otherwise.
FINE_PERCENTILE = 10
# A patch that covers less of an image than this wants a configuration at lower resolution.
LOW_RESOLUTION_SHARE = 0.25
LOW_RESOLUTION_STEP = 1.03
# A lower resolution must save at least this factor of voxels to be worth its own network.
LOW_RESOLUTION_GAIN = 2
# Images that cropping makes smaller than this are normalised inside the body only.
MASK_BELOW_RELATIVE_SIZE = 0.75

# By the name of the channel, in lower case; every other name is normalised by its own image.
NORMALISATIONS: dict[str, Normalisation] = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "z-score",
    "rescale_to_0_1": "rescale-0-1",
    "rgb_to_0_1": "rgb-0-1",
}
NORMALISATION_REASONS: dict[Normalisation, str] = {
    "ct": "values are HU: clipped and scaled by the foreground of all training cases",
    "z-score": "units differ from scan to scan: each image by its own mean and deviation",
    "rescale-0-1": "asked for by the channel's name",
    "rgb-0-1": "asked for by the channel's name: 0 to 255",
    "none": "asked for by the channel's name",
}


@dataclass(frozen=True)
class _DataSet:
    """The fingerprint at the target spacing, axes in their new order."""

    axes: tuple[int, int, int]
    spacing_mm: tuple[float, ...]
    median_size_vox: tuple[float, ...]
    cases: int
    normalisation: tuple[Normalisation, ...]
    masked: tuple[bool, ...]

    @property
    def voxels(self) -> float:
        return math.prod(self.median_size_vox) * self.cases


def make_plan(
    fingerprint: Fingerprint,
    *,
    channels: Sequence[str],
    label_count: int,
    planner: str = "default",
    memory_gb: float | None = None,
    budget: Budget = "gpu",
) -> Plan:
    """Plan all configurations of a data set.

    ``channels`` are their names ("CT" is normalised as such); ``label_count`` counts the entries of
    the data set's labels, background and ignored voxels included. ``memory_gb`` is that of a GPU
    (the planner's own where None); the budget ``cpu`` plans a narrower network and small patches
    for two cores. Raises UsageError, and InputError where CT has no foreground to learn from.
    """
    means = means_of(planner, label_count=label_count, memory_gb=memory_gb, budget=budget)
    target, why_target = target_spacing(fingerprint)
    axes, why_axes = axes_order(fingerprint, target)
    normalisation, masked, why_normalisation = _normalisation(fingerprint, channels)
    data = _DataSet(
        axes=axes,
        spacing_mm=tuple(target[axis] for axis in axes),
        median_size_vox=_in_order(_median_resampled_size(fingerprint, target), axes),
        cases=len(fingerprint.sizes_vox),
        normalisation=normalisation,
        masked=masked,
    )
    return Plan(
        planner=planner,
        axes_forward=axes,
        original_median_spacing_mm=_in_order(
            np.median(fingerprint.spacings_mm, axis=0).tolist(), axes
        ),
        original_median_size_vox=_whole(
            _in_order(np.median(fingerprint.sizes_vox, axis=0).tolist(), axes),
        ),
        intensities=fingerprint.intensities,
        configurations=_configurations(data, means),
        decisions=(why_target, why_axes, *why_normalisation, _why_budget(means, budget)),
    )


def resampled_size(
    size_vox: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """Voxels along each axis at another spacing, at least one; halves are rounded to even."""
    return tuple(
        max(1, round(spacing / target * size))
        for size, spacing, target in zip(size_vox, spacing_mm, target_mm, strict=True)
    )


def target_spacing(fingerprint: Fingerprint) -> tuple[tuple[float, ...], Decision]:
    """The spacing in mm that images are resampled to, in the order of the input's axes."""
    spacings = np.asarray(fingerprint.spacings_mm, dtype=np.float64)
    target = np.median(spacings, axis=0)
    size = np.median(np.asarray(fingerprint.sizes_vox), axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    coarsest_other = float(target[others].max())
    why = "the median of the training cases"
    if (
        target[coarse] > ANISOTROPY * coarsest_other
        and size[coarse] * ANISOTROPY < size[others].min()
    ):
        wanted = float(np.percentile(spacings[:, coarse], FINE_PERCENTILE))
        # The coarse axis never becomes finer than the others.
        target[coarse] = wanted if wanted >= coarsest_other else coarsest_other + 1e-5
        why += f", but the {FINE_PERCENTILE}th percentile along axis {coarse}, which is over "
        why += f"{ANISOTROPY} times coarser than the others: few slices are not made fewer"
    spacing = tuple(float(value) for value in target)
    return spacing, Decision("target spacing", f"{by_text(spacing)} mm", why)


def axes_order(
    fingerprint: Fingerprint, target_mm: Sequence[float]
) -> tuple[tuple[int, int, int], Decision]:
    """The axis with the largest target spacing first; the slices' where there is only one slice."""
    flat = all(size[0] == 1 for size in fingerprint.sizes_vox)
    first = 0 if flat else int(np.argmax(target_mm))
    second, third = (axis for axis in range(3) if axis != first)
    why = "images have one slice" if flat else "2D networks see the planes across the coarsest axis"
    return (first, second, third), Decision("axes", f"{first}, {second}, {third}", why)


def _median_resampled_size(fingerprint: Fingerprint, target: Sequence[float]) -> Sequence[float]:
    sizes = [
        resampled_size(size, spacing, target)
        for size, spacing in zip(fingerprint.sizes_vox, fingerprint.spacings_mm, strict=True)
    ]
    median: list[float] = np.median(sizes, axis=0).tolist()
    return median


def _in_order(values: Sequence[float], axes: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(values[axis]) for axis in axes)


def _whole(size_vox: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(size) for size in size_vox)


def _normalisation(
    fingerprint: Fingerprint, channels: Sequence[str]
) -> tuple[tuple[Normalisation, ...], tuple[bool, ...], list[Decision]]:
    known = tuple(NORMALISATIONS.get(name.casefold(), "z-score") for name in plain_names(channels))
    if "ct" in known and len(fingerprint.intensities) != len(channels):
        raise InputError(
            "CT is normalised by the values inside the labels, and there are none.",
            met=f"{len(fingerprint.intensities)} of {len(channels)} channels with foreground",
            wanted="at least one training case with a label over 0",
        )
    if not channels:
        raise UsageError("An image needs at least one channel.")
    masked = fingerprint.median_relative_size < MASK_BELOW_RELATIVE_SIZE
    decisions = [
        Decision(f"normalisation of {name}", kind, NORMALISATION_REASONS[kind])
        for name, kind in zip(channels, known, strict=True)
    ]
    if masked and "z-score" in known:
        why = f"cropping leaves {fingerprint.median_relative_size:.0%} of the images: outside the "
        decisions.append(Decision("normalised inside", "the body only", why + "body is zero"))
    return known, tuple(masked and kind == "z-score" for kind in known), decisions


def _why_budget(means: Means, budget: Budget) -> Decision:
    if budget == "cpu":
        why = f"two cores: {means.first_features} features at first instead of 32, and patch times "
        why += "batch so small that a step takes seconds"
        return Decision("budget", f"cpu, as {means.memory_gb:g} GB of a GPU", why)
    own = means.memory_gb == means.planner.memory_gb
    return Decision(
        "budget", f"{means.memory_gb:g} GB of a GPU", "the planner's" if own else "given"
    )


def _configurations(data: _DataSet, means: Means) -> dict[str, Configuration]:
    flat = plan_patch(data.spacing_mm[1:], data.median_size_vox[1:], data.voxels, means)
    configurations = {
        "2d": _configuration(
            "2d", data, data.spacing_mm, data.median_size_vox, flat, batch_dice=True
        )
    }
    if data.median_size_vox[0] == 1:
        return configurations
    patch = plan_patch(data.spacing_mm, data.median_size_vox, data.voxels, means)
    low = _low_resolution(data, patch, means)
    full = _configuration(
        "3d_fullres",
        data,
        data.spacing_mm,
        data.median_size_vox,
        patch,
        batch_dice=low is not None,
    )
    configurations["3d_fullres"] = full
    if low is not None:
        configurations["3d_lowres"] = low
        configurations["3d_cascade_fullres"] = replace(
            full, name="3d_cascade_fullres", previous="3d_lowres"
        )
    return configurations


def _low_resolution(data: _DataSet, full: PatchPlan, means: Means) -> Configuration | None:
    """Coarser until the patch covers a quarter of an image; None where that is not needed."""
    spacing = np.asarray(data.spacing_mm)
    voxels = math.prod(data.median_size_vox)
    patch, size = full, data.median_size_vox
    covered = math.prod(full.patch_size_vox) / voxels
    while math.prod(patch.patch_size_vox) / voxels < LOW_RESOLUTION_SHARE:
        fine = spacing.max() / spacing > 2
        # What is finer than half of the coarsest axis is made coarser first.
        spacing = np.where(fine | ~fine.any(), spacing * LOW_RESOLUTION_STEP, spacing)
        exact = np.asarray(data.spacing_mm) / spacing * np.asarray(data.median_size_vox)
        voxels = float(np.prod(exact))
        size = tuple(round(float(n)) for n in exact)
        patch = plan_patch(spacing.tolist(), size, voxels * data.cases, means)
    if patch is full or math.prod(data.median_size_vox) / voxels < LOW_RESOLUTION_GAIN:
        return None
    low = _configuration("3d_lowres", data, tuple(spacing.tolist()), size, patch, batch_dice=False)
    why = f"the full-resolution patch covers {covered:.0%} of a usual image: too little to see "
    why += "where it is; here a patch covers a quarter"
    decision = Decision("low resolution", f"{by_text(spacing.round(4).tolist())} mm", why)
    return replace(low, decisions=(decision, *low.decisions))


def _configuration(
    name: str,
    data: _DataSet,
    spacing_mm: tuple[float, ...],
    size_vox: Sequence[float],
    patch: PatchPlan,
    *,
    batch_dice: bool,
) -> Configuration:
    why = "patches see little of an image, or slices of it: Dice over the whole batch is steadier"
    alone = "a patch sees most of an image: Dice of each sample"
    decision = Decision(
        "Dice", "of the batch" if batch_dice else "of a sample", why if batch_dice else alone
    )
    return Configuration(
        name=name,
        spacing_mm=spacing_mm,
        median_size_vox=_whole(size_vox),
        patch_size_vox=patch.patch_size_vox,
        batch_size=patch.batch_size,
        normalisation=data.normalisation,
        mask_for_normalisation=data.masked,
        batch_dice=batch_dice,
        network=patch.network,
        decisions=(*patch.decisions, decision),
    )
