"""A segmentation as it is exported, and what stands for its network where another engine answers.

The image goes in as it was resampled. A normalisation by numbers of the training data (``ct``,
``rgb-0-1``) is linear, so it may stand behind the resampling, and is inside the file; one by the
image itself (``z-score``, ``rescale-0-1``) is not, for windows do not know the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medtool.core.records import DeploymentSpec
from medtool.data.normalising import RGB_MOST, SMALLEST_SCALE
from medtool.nets.scaling import ChannelScale

if TYPE_CHECKING:
    from medtool.predict.engines.contract import Engine
    from medtool.tasks.segmentation_settings import SegmentationPreparationSection

IMAGE, LOGITS, CHANCES = "image", "logits", "probabilities"
# The axis of the images, in the file.
IMAGES = "images"


def fixed_scale(preparation: SegmentationPreparationSection) -> ChannelScale:
    """What the file does of the normalisation of each channel."""
    shifts, widths = [], []
    for number, scheme in enumerate(preparation.normalisation):
        shift, width = 0.0, 1.0
        if scheme == "ct":
            pooled = preparation.intensities[number]
            shift, width = pooled.mean, max(pooled.std, SMALLEST_SCALE)
        elif scheme == "rgb-0-1":
            width = RGB_MOST
        shifts.append(shift)
        widths.append(width)
    return ChannelScale(shifts, widths)


def segmentation_deployment(
    shape: tuple[int, ...], scale: ChannelScale, *, regions: bool
) -> DeploymentSpec:
    """Images of ``shape`` (1, channels, ...), any number of them."""
    return DeploymentSpec(
        inputs={IMAGE: shape},
        outputs=(LOGITS, CHANCES),
        inside=(*(("normalisation",) if scale.changes else ()), "encoder", "decoder", "activation"),
        free_axes={IMAGE: {0: IMAGES}},
        typical={IMAGE: scale.typical},
        has_background=not regions,
    )


def chances_of(logits: Tensor, *, regions: bool) -> Tensor:
    """Probabilities (n, outputs, ...) of logits."""
    return torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)


class ExportedSegmentation(nn.Module):
    """Images (n, channels, ...) in units to logits and probabilities (n, outputs, ...)."""

    def __init__(self, network: nn.Module, scale: ChannelScale, *, regions: bool) -> None:
        super().__init__()
        self.scale = scale
        self.network = network
        self.regions = regions

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits and probabilities."""
        logits: Tensor = self.network(self.scale(image))
        return logits, chances_of(logits, regions=self.regions)


class AnsweredSegmentation(nn.Module):
    """In the place of the network: logits of images as they are prepared, by an engine."""

    def __init__(self, engine: Engine, scale: ChannelScale) -> None:
        super().__init__()
        self.engine = engine
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, outputs, ...) of images (n, channels, ...)."""
        found = self.engine.run({IMAGE: self.scale.back(images).cpu().numpy()}, [LOGITS])
        return torch.from_numpy(found[LOGITS]).to(images.device)
