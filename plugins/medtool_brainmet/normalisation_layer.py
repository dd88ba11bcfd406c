"""Stage 6 as a layer, so that an exported file takes windowed slices as they are."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medtool_brainmet.normalisation import LEAST_DEVIATION


class SliceNormalisation(nn.Module):
    """``normalisation.normalise_slices`` of slices and masks (n, rows, columns; masks 0 or 1);
    gives (n, channels, rows, columns). Slices are numbers everywhere, outside the masks too.
    """

    def __init__(self, how: Literal["brain_zscore", "radimagenet"], channels: int) -> None:
        super().__init__()
        self.how = how
        self.channels = channels

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """The network's input."""
        # Ones and noughts to multiply by: ONNX Runtime takes three times as long to choose.
        inside = (mask > 0).to(slices.dtype)
        if self.how == "radimagenet":
            scaled = 2 * slices * inside - 1
        else:
            scaled = _zscore(slices, inside)
        wide: Tensor = scaled[:, None].expand(-1, self.channels, -1, -1)
        return wide


def _zscore(slices: Tensor, inside: Tensor) -> Tensor:
    axes = (1, 2)
    count = inside.sum(axes, keepdim=True).clamp(min=1)
    mean = (slices * inside).sum(axes, keepdim=True) / count
    centred = (slices - mean) * inside
    deviation = ((centred * centred).sum(axes, keepdim=True) / count).sqrt()
    return centred / deviation.clamp(min=LEAST_DEVIATION)
