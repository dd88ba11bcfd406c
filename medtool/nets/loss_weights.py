"""Weights of several losses, learned with the network (Kendall, Gal and Cipolla 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LossWeights(nn.Module):
    """Sum of exp(-s_k) L_k + s_k / 2, with one learned s_k, the logarithm of a variance, a loss.

    A loss must not fall below 0, or its s_k would sink for ever. All begin at 0.
    """

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(losses))

    def forward(self, losses: Mapping[int, Tensor]) -> Tensor:
        """The sum over the ``losses`` that are there, by their number."""
        weighed = [
            torch.exp(-self.log_variances[number]) * loss + self.log_variances[number] / 2
            for number, loss in losses.items()
        ]
        return torch.stack(weighed).sum()
