"""Encoders of U-Nets: images to feature maps of falling resolution. Here the plain one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import Tensor, cat, nn

from medtool.core.plan import NetworkPlan
from medtool.nets.convolutions import MAX_POOLS, ConvolutionStack, ConvolutionStyle
from medtool.nets.dropout import KeyedMapDropout


class Encoder(nn.Module):
    """What decoders need to know of an encoder; ``features`` and ``strides`` have one entry a
    level, the full resolution first, the bottleneck last.
    """

    def __init__(
        self, features: tuple[int, ...], strides: tuple[tuple[int, ...], ...], dropout: float
    ) -> None:
        super().__init__()
        self.features = features
        self.strides = strides
        self.dropouts = nn.ModuleList(
            KeyedMapDropout(dropout, layer=level) for level in range(len(features))
        )

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        """What leads from one level to the next; the first takes the images."""
        raise NotImplementedError

    def forward(self, images: Tensor, keys: Tensor | None = None) -> list[Tensor]:
        """Maps of each level from images (n, channels, ...); the last are the bottleneck's.

        ``keys`` (n) are needed where dropout is at work.
        """
        maps, skips = images, []
        for level, dropout in zip(self.levels(), self.dropouts, strict=True):
            maps = dropout(level(maps), keys)
            skips.append(maps)
        return skips


class PlainEncoder(Encoder):
    """Stacks of convolutions; ``encoder_blocks`` counts those of a level."""

    def __init__(
        self, plan: NetworkPlan, channels: int, style: ConvolutionStyle, dropout: float = 0.0
    ) -> None:
        super().__init__(plan.features, plan.strides, dropout)
        stages = []
        for level, features in enumerate(plan.features):
            stages.append(_stage(plan, level, channels, style))
            channels = features
        self.stages = nn.Sequential(*stages)

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        """The stages."""
        return list(self.stages)


class Stems(nn.Module):
    """First levels side by side, each for its own share of the channels, in order."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> Tensor:
        """The maps of all, one after the other, from images (n, channels, ...)."""
        parts = images.chunk(len(self.stages), dim=1)
        return cat([stage(part) for stage, part in zip(self.stages, parts, strict=True)], dim=1)


def divide_first_level(
    encoder: PlainEncoder, plan: NetworkPlan, channels: int, style: ConvolutionStyle, stems: int
) -> None:
    """Give ``encoder`` so many stems in place of its first level: kinds of images meet after it.

    Raises ValueError where features or channels cannot be shared out evenly.
    """
    if plan.features[0] % stems or channels % stems:
        raise ValueError(
            f"{plan.features[0]} features and {channels} channels cannot be shared by {stems}"
        )
    narrow = replace(plan, features=(plan.features[0] // stems, *plan.features[1:]))
    encoder.stages[0] = Stems(_stage(narrow, 0, channels // stems, style) for _ in range(stems))


def _stage(plan: NetworkPlan, level: int, channels: int, style: ConvolutionStyle) -> nn.Sequential:
    """One stage; its stack is number 0 of it also where pooling stands before."""
    stride = plan.strides[level]
    pooled = style.downsampling == "max-pool" and max(stride) > 1
    stack = ConvolutionStack(
        channels,
        plan.features[level],
        count=plan.encoder_blocks[level],
        kernel=plan.kernel_sizes[level],
        style=style,
        stride=None if pooled else stride,
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if pooled:
        parts["pool"] = MAX_POOLS[plan.dimensions](stride)
    parts["0"] = stack
    return nn.Sequential(parts)
