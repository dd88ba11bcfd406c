"""What the logits of one pass say of each voxel."""

from __future__ import annotations

import torch
from torch import Tensor

# Probability over which a pass takes a voxel for tumour, for its volume.
TUMOUR = 0.5


def chances_of(logits: Tensor, *, exclusive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (n, outputs, ...), of any tumour, and the entropy in nats, both (n, 1, ...)."""
    if exclusive:
        logs = logits.log_softmax(1)
        chances = logs.exp()
        return chances, 1 - chances[:, :1], -(chances * logs).sum(1, keepdim=True)
    chances = logits.sigmoid()
    # Each structure is a yes or no; of several the least sure one counts.
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, chances, reduction="none"
    )
    return chances, chances.amax(1, keepdim=True), entropy.amax(1, keepdim=True)
