"""Patch, network and batch of one configuration, out of spacing, size and the memory there is.

The rules and reference values are those of nnU-Net's planners (Isensee 2021; Isensee 2024 for the
residual encoders; version 2.8.1). The patch is as large as memory allows at a batch of two, in
the shape of the images; what memory is left goes into the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medtool.core.errors import UsageError
from medtool.core.names import nearest_name
from medtool.core.plan import Decision, NetworkPlan
from medtool.data.topology import Topology, feature_values, topology

Budget = Literal["gpu", "cpu"]

SMALLEST_BATCH = 2
# Features of the first stage; each stage has twice as many, up to the most.
FIRST_FEATURES = 32
MOST_FEATURES = {2: 512, 3: 320}
# The patch that is begun with, before images and memory bound it: this many voxels.
FIRST_PATCH_VOX = {2: 2048**2, 3: 256**3}
# The batch that the reference values of feature maps were measured with.
REFERENCE_BATCH = {2: 12, 3: 2}
RESIDUAL_BLOCKS = (1, 3, 4)
DEEP_RESIDUAL_BLOCKS = 6
PLAIN_CONVOLUTIONS = 2

# On two cores time is short, not memory. A step holds what a quarter GB of a GPU would, so that it
# takes seconds and ten minutes are hundreds of steps; 16 features instead of 32 need a quarter of
# the products. Small images (36 x 50 x 35 voxels) still fit whole. On one fold of the hippocampus
# ten minutes gave a Dice of 0.889 with 16 features and of 0.879 with 24.
CPU_MEMORY_GB = 0.25
CPU_FIRST_FEATURES = 16


@dataclass(frozen=True)
class Planner:
    """A kind of network and the memory that it is made for.

    ``values_3d`` and ``values_2d`` are the feature values (``topology.feature_values``) of a patch
    that fill ``memory_gb``; a batch covers at most ``dataset_share`` of all voxels.
    """

    kind: Literal["plain", "residual"]
    memory_gb: float
    values_3d: float
    values_2d: float
    dataset_share: float

    def values(self, dimensions: int, memory_gb: float) -> float:
        """Feature values of a reference batch's patch that ``memory_gb`` can hold."""
        reference = self.values_2d if dimensions == 2 else self.values_3d
        return reference * (memory_gb / self.memory_gb)


PLANNERS = {
    "default": Planner("plain", 8, 560e6, 85e6, 0.05),
    "residual-m": Planner("residual", 8, 680e6, 135e6, 1.0),
    "residual-l": Planner("residual", 24, 2.1e9, 380e6, 1.0),
    "residual-xl": Planner("residual", 40, 3.6e9, 560e6, 1.0),
}


@dataclass(frozen=True)
class Means:
    """What a network is planned with: the planner, the memory and the width."""

    planner: Planner
    memory_gb: float
    first_features: int
    label_count: int


@dataclass(frozen=True)
class PatchPlan:
    """Patch, batch and network, and why."""

    patch_size_vox: tuple[int, ...]
    batch_size: int
    network: NetworkPlan
    decisions: tuple[Decision, ...]


def means_of(name: str, *, label_count: int, memory_gb: float | None, budget: Budget) -> Means:
    """The means of a planner; ``memory_gb`` stands for the planner's own. Raises UsageError."""
    if name not in PLANNERS:
        raise UsageError(
            "There is no such planner.",
            met=name,
            wanted=", ".join(PLANNERS),
            nearest=nearest_name(name, PLANNERS),
        )
    planner = PLANNERS[name]
    cpu = budget == "cpu"
    own_gb = CPU_MEMORY_GB if cpu else planner.memory_gb
    memory = own_gb if memory_gb is None else memory_gb
    if not memory > 0:
        raise UsageError(
            "The memory to plan for is no amount.", met=f"{memory} GB", wanted="> 0 GB"
        )
    return Means(planner, memory, CPU_FIRST_FEATURES if cpu else FIRST_FEATURES, label_count)


def plan_patch(
    spacing_mm: Sequence[float],
    median_size_vox: Sequence[float],
    dataset_voxels: float,
    means: Means,
) -> PatchPlan:
    """Patch, batch and network for images of ``median_size_vox`` at ``spacing_mm``.

    Both have as many entries as the network has dimensions; ``dataset_voxels`` counts those of all
    training images after resampling.
    """
    dimensions = len(spacing_mm)
    capacity = means.planner.values(dimensions, means.memory_gb)
    shape = topology(spacing_mm, _first_patch(spacing_mm, median_size_vox))
    begun = shape.patch_size_vox
    network = _network(shape, means)
    values = feature_values(network, shape.patch_size_vox, means.label_count)
    while _too_large(values, capacity, means.planner, dimensions):
        shape = _shrunk(shape, spacing_mm, median_size_vox)
        network = _network(shape, means)
        values = feature_values(network, shape.patch_size_vox, means.label_count)
    by_memory = round(capacity / values * REFERENCE_BATCH[dimensions])
    patch_voxels = float(math.prod(shape.patch_size_vox))
    by_data = round(dataset_voxels * means.planner.dataset_share / patch_voxels)
    batch = max(min(by_memory, by_data), SMALLEST_BATCH)
    decisions = (
        _why_patch(begun, shape, values, means),
        _why_batch(batch, by_memory, by_data, means),
        _why_network(network),
    )
    return PatchPlan(shape.patch_size_vox, batch, network, decisions)


def _first_patch(spacing_mm: Sequence[float], median_size_vox: Sequence[float]) -> list[float]:
    """As wide in mm along every axis, but no larger than the images."""
    dimensions = len(spacing_mm)
    density = [1 / spacing for spacing in spacing_mm]
    scale = (FIRST_PATCH_VOX[dimensions] / math.prod(density)) ** (1 / dimensions)
    return [min(round(d * scale), size) for d, size in zip(density, median_size_vox, strict=True)]


def _too_large(values: int, capacity: float, planner: Planner, dimensions: int) -> bool:
    # The reference values of plain networks are those of a whole reference batch.
    batch = REFERENCE_BATCH[dimensions] if planner.kind == "plain" else SMALLEST_BATCH
    return values / batch * SMALLEST_BATCH > capacity


def _shrunk(
    shape: Topology, spacing_mm: Sequence[float], median_size_vox: Sequence[float]
) -> Topology:
    """One step less along the axis of the patch that is longest beside the images."""
    patch = list(shape.patch_size_vox)
    shares = [size / median for size, median in zip(patch, median_size_vox, strict=True)]
    axis = max(range(len(patch)), key=lambda a: (shares[a], a))
    # A shorter patch may be halved less often, so that a smaller step suffices: 224 after 256.
    tried = list(patch)
    tried[axis] -= shape.divisor_vox[axis]
    patch[axis] -= topology(spacing_mm, tried).divisor_vox[axis]
    return topology(spacing_mm, patch)


def _network(shape: Topology, means: Means) -> NetworkPlan:
    stages, dimensions = len(shape.strides), len(shape.patch_size_vox)
    most = MOST_FEATURES[dimensions]
    plain = means.planner.kind == "plain"
    deep = (*RESIDUAL_BLOCKS, *[DEEP_RESIDUAL_BLOCKS] * stages)[:stages]
    return NetworkPlan(
        kind=means.planner.kind,
        features=tuple(min(means.first_features * 2**stage, most) for stage in range(stages)),
        kernel_sizes=shape.kernel_sizes,
        strides=shape.strides,
        encoder_blocks=(PLAIN_CONVOLUTIONS,) * stages if plain else deep,
        decoder_convolutions=(PLAIN_CONVOLUTIONS if plain else 1,) * (stages - 1),
    )


def by_text(size: Sequence[float]) -> str:
    """``40 x 224 x 224``."""
    return " x ".join(f"{n:g}" for n in size)


def _why_patch(begun: Sequence[int], shape: Topology, values: int, means: Means) -> Decision:
    patch = shape.patch_size_vox
    fits = f"{values / 1e6:.0f} million feature values fit the {means.memory_gb:g} GB planned for"
    if tuple(begun) == patch:
        why = f"covers a usual image, or what its spacing makes of the largest patch; {fits}"
    else:
        why = f"{by_text(begun)} was too much for {means.memory_gb:g} GB; shortened along the axis "
        why += f"that is longest beside the images until {fits}"
    return Decision("patch", f"{by_text(patch)} voxels", why)


def _why_batch(batch: int, by_memory: int, by_data: int, means: Means) -> Decision:
    if batch == SMALLEST_BATCH and min(by_memory, by_data) <= batch:
        why = "the least there is: memory, or a small data set, allows no more"
    elif by_memory <= by_data:
        why = f"what the patch leaves of {means.memory_gb:g} GB"
    else:
        why = f"a batch sees at most {means.planner.dataset_share:.0%} of the data set's voxels"
    return Decision("batch", str(batch), why)


def _why_network(network: NetworkPlan) -> Decision:
    kind = "plain U-Net" if network.kind == "plain" else "U-Net with a residual encoder"
    value = f"{kind}, {len(network.features)} stages of {network.features[0]} to "
    value += f"{network.features[-1]} features"
    flat = sum(1 in kernel for kernel in network.kernel_sizes)
    why = "axes are halved while they have 8 voxels and are not twice as coarse as the finest"
    if flat:
        why += f"; kernels are flat in {flat} stages, where one axis is much coarser"
    return Decision("network", value, why)
