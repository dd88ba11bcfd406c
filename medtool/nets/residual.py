"""The residual encoder of nnU-Net's ResEnc networks (Isensee 2024), with its names of tensors.

A block follows ResNet-D (He 2019, "Bag of tricks"): where resolution falls, the short way averages
before its 1 x 1 convolution, so that no value is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from medtool.core.plan import NetworkPlan
from medtool.nets.convolutions import (
    AVERAGE_POOLS,
    ConvolutionStack,
    ConvolutionStyle,
    ConvolutionUnit,
)
from medtool.nets.encoders import Encoder


class ResidualBlock(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        style: ConvolutionStyle,
    ) -> None:
        super().__init__()
        self.conv1 = ConvolutionUnit(channels, features, kernel=kernel, style=style, stride=stride)
        self.conv2 = ConvolutionUnit(
            features, features, kernel=kernel, style=style, activated=False
        )
        self.skip = _short_way(channels, features, stride, style)
        self.activation = style.activate()
        # A new block passes on what came in: deep networks then learn from the first step.
        nn.init.zeros_(self.conv2.norm.get_parameter("weight"))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, channels, ...) to maps (n, features, ...)."""
        summed: Tensor = self.activation(self.conv2(self.conv1(maps)) + self.skip(maps))
        return summed


def _short_way(
    channels: int, features: int, stride: tuple[int, ...], style: ConvolutionStyle
) -> nn.Module:
    parts: list[nn.Module] = []
    if max(stride) > 1:
        parts.append(AVERAGE_POOLS[len(stride)](stride, stride))
    if channels != features:
        parts.append(
            ConvolutionUnit(
                channels,
                features,
                kernel=(1,) * len(stride),
                style=style,
                bias=False,
                activated=False,
            )
        )
    return nn.Sequential(*parts)


class ResidualStage(nn.Module):
    """The blocks of one level; the first has the stride."""

    def __init__(
        self, plan: NetworkPlan, level: int, channels: int, style: ConvolutionStyle
    ) -> None:
        super().__init__()
        features, kernel = plan.features[level], plan.kernel_sizes[level]
        blocks = [
            ResidualBlock(
                features if number else channels,
                features,
                kernel=kernel,
                stride=(1,) * plan.dimensions if number else plan.strides[level],
                style=style,
            )
            for number in range(plan.encoder_blocks[level])
        ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the level above to maps of this one."""
        passed: Tensor = self.blocks(maps)
        return passed


class ResidualEncoder(Encoder):
    """A convolution at full resolution, then residual blocks; ``encoder_blocks`` counts them."""

    def __init__(
        self, plan: NetworkPlan, channels: int, style: ConvolutionStyle, dropout: float = 0.0
    ) -> None:
        super().__init__(plan.features, plan.strides, dropout)
        first = plan.features[0]
        self.stem = ConvolutionStack(
            channels, first, count=1, kernel=plan.kernel_sizes[0], style=style
        )
        incoming = (first, *plan.features[:-1])
        self.stages = nn.Sequential(
            *(ResidualStage(plan, level, incoming[level], style) for level in range(len(incoming)))
        )

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        """The stages; the stem belongs to the first."""
        first, *others = self.stages
        return [lambda images: first(self.stem(images)), *others]
