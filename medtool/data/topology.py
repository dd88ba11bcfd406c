"""Where a U-Net halves its grid, and how many feature values it holds.

The rules are those of nnU-Net (Isensee 2021, version 2.8.1: network_topology.py and the
compute_conv_feature_map_size of its networks): axes are halved while they are long enough and their
spacing is not yet coarser than that of the others; kernels are flat along an axis that is much
coarser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medtool.core.plan import NetworkPlan

# A feature map is never shorter than this along an axis that was halved.
SMALLEST_EDGE_VOX = 4
# Spacings within this factor count as equally fine.
EQUALLY_FINE = 2.0


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of each stage (full resolution first), and the patch that suits them.

    ``patch_size_vox`` is the patch that was asked for, padded so that every halving is exact;
    ``divisor_vox`` is what each of its axes is a multiple of.
    """

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    patch_size_vox: tuple[int, ...]
    divisor_vox: tuple[int, ...]


def topology(spacing_mm: Sequence[float], patch_size_vox: Sequence[float]) -> Topology:
    """The deepest network that suits a patch; as many entries as the network has dimensions.

    A patch may be given in parts of voxels, as the median of an even number of sizes.
    """
    spacing, size = list(spacing_mm), list(patch_size_vox)
    axes = range(len(spacing))
    kernel = [1] * len(spacing)
    strides = [(1,) * len(spacing)]
    kernels: list[tuple[int, ...]] = []
    while halved := _axes_to_halve(spacing, size):
        finest = min(spacing)
        kernel = [
            3 if k == 3 or spacing[a] / finest < EQUALLY_FINE else 1
            for a, k in zip(axes, kernel, strict=True)
        ]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            spacing[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
    # The bottleneck's kernel is never flat.
    kernels.append((3,) * len(spacing))
    divisor = tuple(math.prod(stride[axis] for stride in strides) for axis in axes)
    padded = tuple(math.ceil(n / d) * d for n, d in zip(patch_size_vox, divisor, strict=True))
    return Topology(tuple(strides), tuple(kernels), padded, divisor)


def _axes_to_halve(spacing_mm: Sequence[float], size_vox: Sequence[float]) -> list[int]:
    long_enough = [a for a, size in enumerate(size_vox) if size >= 2 * SMALLEST_EDGE_VOX]
    if not long_enough:
        return []
    finest = min(spacing_mm[axis] for axis in long_enough)
    axes = [axis for axis in long_enough if spacing_mm[axis] / finest < EQUALLY_FINE]
    # One axis alone is worth a further stage only where it is longer still.
    if len(axes) == 1 and size_vox[axes[0]] < 3 * SMALLEST_EDGE_VOX:
        return []
    return axes


def feature_values(network: NetworkPlan, patch_size_vox: Sequence[int], label_count: int) -> int:
    """Values of all feature maps that one patch leaves, with ``label_count`` maps of scores.

    What nnU-Net takes for the need of memory: outputs of convolutions and transposed convolutions;
    the number of input channels does not enter.
    """
    grids = _voxels(network, patch_size_vox)
    if network.kind == "plain":
        encoder = sum(
            blocks * features * grid
            for blocks, features, grid in zip(
                network.encoder_blocks, network.features, grids, strict=True
            )
        )
    else:
        encoder = _residual_encoder_values(network, grids)
    decoder = sum(
        # The one more is the transposed convolution that leads to this stage.
        (convolutions + 1) * features * grid
        for convolutions, features, grid in zip(
            reversed(network.decoder_convolutions), network.features[:-1], grids[:-1], strict=True
        )
    )
    return encoder + decoder + label_count * grids[0]


def _voxels(network: NetworkPlan, patch_size_vox: Sequence[int]) -> list[int]:
    size, grids = list(patch_size_vox), []
    for stride in network.strides:
        size = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
        grids.append(math.prod(size))
    return grids


def _residual_encoder_values(network: NetworkPlan, grids: Sequence[int]) -> int:
    # The stem, then two convolutions a block, and a skip convolution where channels change.
    values, before = network.features[0] * grids[0], network.features[0]
    stages = zip(network.encoder_blocks, network.features, grids, network.strides, strict=True)
    for blocks, features, grid, stride in stages:
        skip = int(features != before or max(stride) > 1)
        values += (2 * blocks + skip) * features * grid
        before = features
    return values
