"""The last step of a preparation as a layer: from units that people know to a network's numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelScale(nn.Module):
    """(value - shift) / width for each channel of images (n, channels, ...).

    A linear change, so that it may stand behind a resampling as well as before it. ``unit_range``
    then limits the values to 0 to 1.
    """

    shift: Tensor
    width: Tensor

    def __init__(
        self, shift: Sequence[float], width: Sequence[float], *, unit_range: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))
        self.register_buffer("width", torch.tensor(width, dtype=torch.float32))
        self.unit_range = unit_range
        # Means and deviations of what becomes 0 and 1.
        self.typical = (tuple(map(float, shift)), tuple(map(float, width)))
        # Whether any value is changed at all.
        self.changes = any(shift) or any(one != 1 for one in width)

    def onward(self, other: ChannelScale) -> ChannelScale:
        """From images that this one scaled to what ``other`` would have made of them."""
        shift = ((other.shift - self.shift) / self.width).tolist()
        return ChannelScale(shift, (other.width / self.width).tolist())

    def _shaped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, *(1,) * (images.ndim - 2))
        return self.shift.reshape(shape), self.width.reshape(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Images in units as the network wants them."""
        if not self.changes:
            return images
        shift, width = self._shaped(images)
        scaled = (images - shift) / width
        return scaled.clamp(0, 1) if self.unit_range else scaled

    def back(self, images: Tensor) -> Tensor:
        """Images as the network wants them in units."""
        if not self.changes:
            return images
        shift, width = self._shaped(images)
        return images * width + shift
