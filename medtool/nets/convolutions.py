"""The smallest parts of a U-Net: convolution, normalisation and activation, alone and stacked.

The names of the parts (``conv``, ``norm``, ``convs``) are those of nnU-Net's networks (Isensee
2021), so that tensors trained there fit here one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from medtool.nets.exporting import takes_plain_way

# Slope of the leaky rectifier for negative values, and what instance norm adds to a variance:
# nnU-Net's own values.
LEAK = 0.01
NORM_EPSILON = 1e-5


class Convolution3d(nn.Conv3d):
    """As torch's own, and several times as fast where a small lone volume is answered."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, channels, z, y, x) to maps (n, features, z, y, x)."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(maps)
        shape = (self.stride, self.padding, self.dilation, self.groups)
        return convolved_volumes(maps, self.weight, self.bias, *shape)


def convolved_volumes(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1, 1),
    groups: int = 1,
) -> Tensor:
    """As torch's ``conv3d``, but oneDNN always convolves a lone volume that is answered.

    Where all its planes but those along the last axis hold no more than 20480 values, torch leaves
    it to a general routine: windows of 32 voxels, and the deep levels of any network. On two cores
    with AVX2, 12 maps of 32 x 32 x 32 took 30 ms there and 3.4 ms here.
    """
    if not answers_by_onednn(maps):
        return F.conv3d(maps, weight, bias, stride, padding, dilation, groups)
    convolved: Tensor = torch.mkldnn_convolution(
        maps, weight, bias, padding, stride, dilation, groups
    )
    return convolved


def answers_by_onednn(maps: Tensor) -> bool:
    """Whether this is a lone volume in float32 on a CPU, answered as it is: nothing is learned,
    traced or cast on the way.
    """
    # Before the size is asked for: what traces a network would take it for fixed.
    # A compiled network keeps torch's routine too: this one's operator has no form for its graphs.
    if takes_plain_way() or torch.is_grad_enabled():
        return False
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or torch.is_autocast_enabled("cpu"):
        return False
    return len(maps) == 1 and maps.dtype == torch.float32 and maps.device.type == "cpu"


# What a layer is called in 2 and in 3 dimensions.
CONVOLUTIONS: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: Convolution3d}
TRANSPOSED: Mapping[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOLS: Mapping[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOLS: Mapping[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORMS: Mapping[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


# Values that are summed at a time: as many as stay in the cache of a core.
VALUES_AT_A_TIME = 1 << 19


class InstanceNorm(nn.Module):
    """Each map of each image with mean 0 and variance 1, then scaled and shifted (Ulyanov 2016).

    As torch's own, but when a lone image with channels last is answered its maps keep their order:
    torch copies them into another one, a quarter of the time that a network takes.
    """

    def __init__(self, features: int, *, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, features, ...) to maps of the same shape."""
        if takes_plain_way() or torch.is_grad_enabled() or len(maps) > 1:
            return self._plain(maps)
        rows = maps[0].movedim(0, -1)
        if not rows.is_contiguous():
            return self._plain(maps)
        if maps.dtype not in (torch.float32, torch.float64):
            return F.batch_norm(
                maps, None, None, self.weight, self.bias, training=True, eps=self.epsilon
            )
        mean, variance = mean_and_variance(rows.flatten(0, -2))
        scale = self.weight.double() * torch.rsqrt(variance + self.epsilon)
        shift = self.bias.double() - mean * scale
        shape = (1, -1, *(1,) * (maps.ndim - 2))
        scale, shift = (part.to(maps.dtype).reshape(shape) for part in (scale, shift))
        return torch.addcmul(shift, maps, scale)

    def _plain(self, maps: Tensor) -> Tensor:
        return F.instance_norm(maps, weight=self.weight, bias=self.bias, eps=self.epsilon)

    def extra_repr(self) -> str:
        """What print shows of it."""
        return f"{len(self.weight)}, epsilon={self.epsilon:g}"


def mean_and_variance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (features), float64, of rows (n, features).

    Part by part, each around its own mean, and joined as by Chan, Golub and LeVeque (1983): as
    exact as two passes over all of it. torch's batch norm of channels last sums naively; in a
    U-Net its logits were off by a hundred times as much.
    """
    means, squares, counts = [], [], []
    for part in torch.split(rows, max(1, VALUES_AT_A_TIME // rows.shape[1])):
        mean = part.mean(0)
        around = part - mean
        means.append(mean)
        squares.append(around.mul_(around).sum(0))
        counts.append(len(part))
    weights = torch.tensor(counts, dtype=torch.float64, device=rows.device)[:, None]
    parts = torch.stack(means).double()
    whole = (parts * weights).sum(0) / len(rows)
    between = weights * (parts - whole) ** 2
    return whole, (torch.stack(squares).double() + between).sum(0) / len(rows)


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
        return InstanceNorm(features, epsilon=NORM_EPSILON)

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

    def of_both(self, first: Tensor, second: Tensor) -> Tensor:
        """As ``forward`` of both maps (n, ..., ...) behind one another, but for rounding.

        They are never brought together in memory: nothing is larger at full resolution.
        """
        units: list[Any] = list(self.convs)
        unit, others = units[0], units[1:]
        border = first.shape[1]
        summed = convolved_part(unit.conv, first, slice(border), biased=True)
        del first
        summed += convolved_part(unit.conv, second, slice(border, None), biased=False)
        maps: Tensor = unit.activation(unit.norm(summed))
        del summed
        for other in others:
            maps = other(maps)
        return maps


def convolved_part(conv: nn.Module, maps: Tensor, channels: slice, *, biased: bool) -> Tensor:
    """What a convolution that keeps the size makes of those ``channels`` of its input alone."""
    weight = conv.get_parameter("weight")[:, channels]
    bias = conv.get_parameter("bias") if biased else None
    padding = tuple(size // 2 for size in weight.shape[2:])
    if maps.ndim == 4:
        return F.conv2d(maps, weight, bias, padding=padding)
    return convolved_volumes(maps, weight, bias, (1, 1, 1), padding)


def initialise(network: nn.Module) -> None:
    """He's initialisation (2015) of all convolutions for a leaky rectifier, biases 0.

    Draws from torch's own stream, as every layer that is made does: callers seed it.
    """
    for module in network.modules():
        if isinstance(module, _ConvNd):
            nn.init.kaiming_normal_(module.weight, a=LEAK)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
