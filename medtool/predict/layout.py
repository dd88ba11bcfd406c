"""The order of a network's weights in memory in which it answers fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

# Processors by their widest vectors, as torch calls them, on which channels last was faster.
FASTER_WITH_CHANNELS_LAST = ("AVX512",)


def use_fast_layout(network: nn.Module, device: torch.device) -> None:
    """Put channels last where that is faster: 3D convolutions on a processor with wide vectors.

    Measured there: up to 1.4 times as fast in float32; 0.9 times with narrower vectors, and no
    gain in 2D. Answers differ by rounding alone.
    """
    volumes = any(isinstance(module, torch.nn.Conv3d) for module in network.modules())
    wide = torch.backends.cpu.get_cpu_capability() in FASTER_WITH_CHANNELS_LAST
    if volumes and wide and device.type == "cpu":
        for parameter in network.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
