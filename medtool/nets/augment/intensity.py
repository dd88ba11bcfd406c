"""Changes of intensity of one channel (*size) of a patch, as nnU-Net makes them.

Each takes what was drawn and has no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Blurring kernels are cut off this many standard deviations apart, from end to end.
_KERNEL_WIDTH = 6
# Keeps divisions by a range or a deviation finite where a channel is constant.
_LEAST_RANGE = 1e-7
_ENLARGEMENTS = {2: "bilinear", 3: "trilinear"}


def with_noise(image: Tensor, std: float, key: int) -> Tensor:
    """All channels (channels, *size) with Gaussian noise; ``key`` decides on each value."""
    numbers = np.random.Generator(np.random.PCG64(key))
    noise = numbers.standard_normal(tuple(image.shape), dtype=np.float32)
    return image + torch.from_numpy(noise).to(image.dtype) * std


def blurred(values: Tensor, sigmas_vox: Sequence[float]) -> Tensor:
    """Convolved with a Gaussian along each axis; what lies outside is mirrored in."""
    for axis, sigma in enumerate(sigmas_vox):
        values = _blurred_along(values, axis, sigma)
    return values


def _blurred_along(values: Tensor, axis: int, sigma: float) -> Tensor:
    size = values.shape[axis]
    radius = min(kernel_radius_vox(sigma), size - 1)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    inside = np.abs(np.arange(-radius, size + radius))
    inside = np.minimum(inside, 2 * (size - 1) - inside)
    padded = values.index_select(axis, torch.from_numpy(inside))
    total = padded.narrow(axis, 0, size) * float(weights[0])
    for start in range(1, len(weights)):
        total.add_(padded.narrow(axis, start, size), alpha=float(weights[start]))
    return total


def kernel_radius_vox(sigma_vox: float) -> int:
    """Half of the odd number of voxels nearest to the kernel's width."""
    return round((_KERNEL_WIDTH * sigma_vox + 0.5 - 1) / 2)


def with_contrast(values: Tensor, factor: float) -> Tensor:
    """Stretched about the mean, within the range there was."""
    least, most = torch.aminmax(values)
    mean = values.mean()
    return ((values - mean) * factor + mean).clamp_(least, most)


def with_less_resolution(values: Tensor, scale: float, axes: Sequence[int]) -> Tensor:
    """Sampled on a grid ``scale`` times as fine along ``axes``, and linearly enlarged again."""
    size = values.shape
    coarse = [
        max(1, round(length * scale)) if axis in axes else length
        for axis, length in enumerate(size)
    ]
    small = F.interpolate(values[None, None], coarse, mode="nearest-exact")
    return F.interpolate(small, size, mode=_ENLARGEMENTS[values.ndim])[0, 0]


def with_gamma(values: Tensor, gamma: float, *, inverted: bool) -> Tensor:
    """Values raised to ``gamma`` within their range, mean and deviation kept as they were.

    Inverted, dark becomes bright before and dark again after.
    """
    sign = -1.0 if inverted else 1.0
    values = values * sign
    mean, std = values.mean(), values.std()
    least, most = torch.aminmax(values)
    reach = most - least
    curved = ((values - least) / reach.clamp(min=_LEAST_RANGE)).pow_(gamma) * reach + least
    scale = std / curved.std().clamp(min=_LEAST_RANGE)
    return ((curved - curved.mean()) * scale + mean) * sign
