"""The order of a network's weights in memory in which it answers fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def use_fast_layout(network: nn.Module, device: torch.device) -> None:
    """Put channels last where that is faster: 3D convolutions on a processor.

    Measured there: 1.4 times as fast in float32, up to 3 times in bfloat16; no gain in 2D. Answers
    differ by rounding alone.
    """
    volumes = any(isinstance(module, torch.nn.Conv3d) for module in network.modules())
    if volumes and device.type == "cpu":
        for parameter in network.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
