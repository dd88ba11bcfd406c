"""Several models that answer as one: the mean of their logits, as nnU-Net joins its folds.

Equal to nnU-Net (2.8.1, predict_from_raw_data.py: ``predict_logits_from_preprocessed_data`` sums
the logits of all folds and divides by their number): windows are weighted alike for all of them, so
that the mean may be taken window by window, or plane by plane where models see other windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from medtool.predict.planes import Planes


class MeanNetwork(nn.Module):
    """Networks that take the same input and give the same outputs, as one network."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the logits (n, outputs, ...) for images (n, channels, ...)."""
        first, *others = self.networks
        total: Tensor = first(images)
        for network in others:
            total = total + network(images)
        return total / len(self.networks)


def mean_planes(several: Sequence[Planes], counts: Sequence[int]) -> Planes:
    """Planes (channels, y, x) that are the mean of ``several``, each for ``counts`` models."""
    shares = [np.float32(count / sum(counts)) for count in counts]
    for planes in zip(*several, strict=True):
        total = planes[0] * shares[0]
        for plane, share in zip(planes[1:], shares[1:], strict=True):
            total += plane * share
        yield total
