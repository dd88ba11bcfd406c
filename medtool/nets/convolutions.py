"""The smallest parts of a U-Net: convolution, normalisation and activation, alone and stacked.

The names of the parts (``conv``, ``norm``, ``convs``) are those of nnU-Net's networks (Isensee
2021), so that tensors trained there fit here one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

# Slope of the leaky rectifier for negative values, and what instance norm adds to a variance:
# nnU-Net's own values.
LEAK = 0.01
NORM_EPSILON = 1e-5

# What a layer is called in 2 and in 3 dimensions.
CONVOLUTIONS: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: Mapping[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOLS: Mapping[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOLS: Mapping[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
INSTANCE_NORMS: Mapping[int, Callable[..., nn.Module]] = {
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}
BATCH_NORMS: Mapping[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True)
class ConvolutionStyle:
    """What stands around each convolution of a network, and how resolution is halved."""

    normalisation: Literal["instance", "batch"]
    activation: Literal["leaky-relu", "relu"]
    downsampling: Literal["stride", "max-pool"]

    def norm(self, features: int, dimensions: int) -> nn.Module:
        """The normalisation of ``features`` maps, with a learned scale and shift."""
        if self.normalisation == "batch":
            return BATCH_NORMS[dimensions](features)
        return INSTANCE_NORMS[dimensions](features, eps=NORM_EPSILON, affine=True)

    def activate(self) -> nn.Module:
        """The activation; it overwrites its input to save memory."""
        return nn.ReLU(inplace=True) if self.activation == "relu" else nn.LeakyReLU(LEAK, True)


NNUNET_STYLE = ConvolutionStyle("instance", "leaky-relu", "stride")
# Ronneberger 2015 with the batch norm that later versions of it have.
CLASSIC_STYLE = ConvolutionStyle("batch", "relu", "max-pool")


class ConvolutionUnit(nn.Module):
    """Convolution that keeps the size (but for its stride), normalisation, activation."""

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel: tuple[int, ...],
        style: ConvolutionStyle,
        stride: tuple[int, ...] | None = None,
        bias: bool = True,
        activated: bool = True,
    ) -> None:
        super().__init__()
        dimensions = len(kernel)
        self.conv = CONVOLUTIONS[dimensions](
            channels,
            features,
            kernel,
            stride or (1,) * dimensions,
            padding=tuple((size - 1) // 2 for size in kernel),
            bias=bias,
        )
        self.norm = style.norm(features, dimensions)
        self.activation = style.activate() if activated else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, channels, ...) to maps (n, features, ...)."""
        changed: Tensor = self.activation(self.norm(self.conv(maps)))
        return changed


class ConvolutionStack(nn.Module):
    """``count`` units one after the other; the first one has the stride."""

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        count: int,
        kernel: tuple[int, ...],
        style: ConvolutionStyle,
        stride: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        first = ConvolutionUnit(channels, features, kernel=kernel, style=style, stride=stride)
        others = [
            ConvolutionUnit(features, features, kernel=kernel, style=style) for _ in range(1, count)
        ]
        self.convs = nn.Sequential(first, *others)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, channels, ...) to maps (n, features, ...)."""
        stacked: Tensor = self.convs(maps)
        return stacked


def initialise(network: nn.Module) -> None:
    """He's initialisation (2015) of all convolutions for a leaky rectifier, biases 0.

    Draws from torch's own stream, as every layer that is made does: callers seed it.
    """
    for module in network.modules():
        if isinstance(module, _ConvNd):
            nn.init.kaiming_normal_(module.weight, a=LEAK)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
