"""Unstructured pruning: single weights become 0. For study: it makes nothing faster.

Convolutions multiply zeros as they multiply everything else, and a file of zeros is as large as
any other until it is packed.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


@torch.no_grad()
def zero_smallest(network: nn.Module, share: float, *, keep: Collection[str] = ()) -> int:
    """Set ``share`` of the weights of every layer, the smallest, to 0, in place; how many.

    Layers named in ``keep``, biases and norms stay as they are.
    """
    zeros = 0
    for name, module in network.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear) or name in keep:
            continue
        count = int(module.weight.numel() * share)
        if count:
            # A copy where the weights lie in another order in memory.
            flat = module.weight.flatten()
            flat[flat.abs().argsort(stable=True)[:count]] = 0
            module.weight.copy_(flat.reshape(module.weight.shape))
            zeros += count
    return zeros


def zero_share(network: nn.Module) -> float:
    """Share of the weights of convolutions and linear layers that are 0."""
    weights = [m.weight for m in network.modules() if isinstance(m, _ConvNd | nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights))
