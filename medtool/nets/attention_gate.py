"""Attention gates on the skips of a U-Net (Oktay 2018, equations 1 and 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medtool.nets.convolutions import CONVOLUTIONS

# How a share on the coarser grid is brought onto the finer one.
_ENLARGEMENTS = {2: "bilinear", 3: "trilinear"}


class AttentionGate(nn.Module):
    """Weights each place of a skip by how much the coarser maps below it ask for it.

    The additive gate: shares are sigmoid(psi(relu(W_x skip + W_g gating))), computed on the
    coarser grid and enlarged linearly; half as many inner features as the skip has.
    """

    def __init__(self, skip_features: int, gating_features: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[len(stride)]
        inner = max(1, skip_features // 2)
        # W_x has no bias: that of W_g stands for both.
        self.skip = convolution(
            skip_features,
            inner,
            stride,
            stride,
            bias=False,
        )
        self.gating = convolution(gating_features, inner, 1)
        self.score = convolution(inner, 1, 1)

    def shares(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The weights (n, 1, ...) of 0 to 1 on the skip's grid."""
        shares = torch.sigmoid(self.scores(skip, gating))
        size = skip.shape[2:]
        return F.interpolate(shares, size=size, mode=_ENLARGEMENTS[len(size)])

    def scores(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Logits of the weights (n, 1, ...) on the coarser grid."""
        scores: Tensor = self.score(F.relu(self.skip(skip) + self.gating(gating)))
        return scores

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """``skip`` (n, features, ...) weighted by the maps one level below."""
        return skip * self.shares(skip, gating)
