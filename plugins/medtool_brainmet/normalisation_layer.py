"""Stage 6 as a layer, so that an exported file takes windowed slices as they are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from medtool_brainmet.normalisation import LEAST_DEVIATION


class SliceNormalisation(nn.Module):
    """``normalisation.normalise_slices`` of slices and masks (n, rows, columns; masks 0 or 1);
    gives (n, channels, rows, columns).
    """

    def __init__(self, how: Literal["brain_zscore", "radimagenet"], channels: int) -> None:
        super().__init__()
        self.how = how
        self.channels = channels

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """The network's input."""
        inside = mask > 0
        if self.how == "radimagenet":
            scaled = torch.where(inside, 2 * slices - 1, -torch.ones_like(slices))
        else:
            scaled = _zscore(slices, inside)
        wide: Tensor = scaled[:, None].expand(-1, self.channels, -1, -1)
        return wide


def _zscore(slices: Tensor, inside: Tensor) -> Tensor:
    axes, nothing = (1, 2), torch.zeros_like(slices)
    count = inside.to(slices.dtype).sum(axes, keepdim=True).clamp(min=1)
    mean = torch.where(inside, slices, nothing).sum(axes, keepdim=True) / count
    centred = torch.where(inside, slices - mean, nothing)
    deviation = ((centred**2).sum(axes, keepdim=True) / count).sqrt()
    return centred / deviation.clamp(min=LEAST_DEVIATION)
