"""A class beside a segmentation: a head on the bottleneck, or on a second decoder's maps.

What is pooled can be weighted by masks, for over a whole patch the average of a small lesion is
lost in what surrounds it. Masks give weights only: no gradient of the class runs through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medtool.core.plan import NetworkPlan
from medtool.nets.area_pool import averaged_onto
from medtool.nets.convolutions import NNUNET_STYLE, ConvolutionStyle, initialise
from medtool.nets.decoders import Decoder
from medtool.nets.dropout import KeyedDropout
from medtool.nets.unet import UNet, build_unet, unet_channel_paths

Pooling = Literal["average", "mask", "both"]

# Under this sum of a mask, in places of the pooled maps, the next mask is taken.
LEAST_MASS = 0.01


def average_pool(maps: Tensor) -> Tensor:
    """Mean of maps (n, features, ...) over all places: (n, features)."""
    return maps.flatten(2).mean(dim=2, dtype=None if maps.dtype == torch.float64 else torch.float32)


def mask_pool(maps: Tensor, masks: Tensor, *, least_mass: float = LEAST_MASS) -> Tensor:
    """Mean of maps (n, features, ...) weighted by the first mask that says enough: (n, features).

    ``masks`` (n, masks, ...) are shares of 0 to 1 on any finer grid, the most specific first; they
    are averaged onto the maps' grid, so that nothing small vanishes. Where all of them hold less
    than ``least_mass`` places, all places count alike.
    """
    # Sums of many small shares are lost in 16 bits.
    maps = maps if maps.dtype == torch.float64 else maps.float()
    weights = averaged_onto(masks.detach().to(maps.dtype), maps.shape[2:]).flatten(2)
    weights = torch.cat((weights, torch.ones_like(weights[:, :1])), dim=1)
    mass = weights.sum(dim=2)
    # The first that says enough; the last, of ones, always does.
    chosen = (mass >= least_mass).int().argmax(dim=1, keepdim=True)
    wide = chosen[..., None].expand(-1, -1, weights.shape[2])
    weight = weights.gather(1, wide)[:, 0] / mass.gather(1, chosen)
    return torch.einsum("nfv,nv->nf", maps.flatten(2), weight)


class ClassificationHead(nn.Module):
    """Pooling, layer norm, dropout, and one linear layer."""

    def __init__(
        self, features: int, classes: int, *, pooling: Pooling, dropout: float, layer: int
    ) -> None:
        super().__init__()
        self.pooling = pooling
        pooled = 2 * features if pooling == "both" else features
        self.norm = nn.LayerNorm(pooled)
        self.dropout = KeyedDropout(dropout, layer=layer)
        self.linear = nn.Linear(pooled, classes)

    def forward(self, maps: Tensor, masks: Tensor, keys: Tensor | None = None) -> Tensor:
        """Logits (n, classes) from maps (n, features, ...) and masks (n, masks, ...)."""
        parts = []
        if self.pooling != "average":
            parts.append(mask_pool(maps, masks))
        if self.pooling != "mask":
            parts.append(average_pool(maps))
        logits: Tensor = self.linear(self.dropout(self.norm(torch.cat(parts, dim=1)), keys))
        return logits


@dataclass(frozen=True)
class Classifier:
    """What is added to a U-Net for classes.

    ``masks`` names the outputs that make up each mask, the most specific first: ((2,), (1, 2)) is
    the lesion, else the whole organ. ``exclusive`` outputs share each voxel. With
    ``decoder_levels`` above 0 a second decoder climbs so far, and its last maps are pooled.
    """

    classes: int
    pooling: Pooling = "both"
    masks: tuple[tuple[int, ...], ...] = ()
    exclusive: bool = True
    dropout: float = 0.3
    decoder_levels: int = 0


class ClassifyingUNet(UNet):
    """A U-Net with a head for classes; without ``classifier.*`` its tensors are the U-Net's."""

    def __init__(
        self, network: UNet, plan: NetworkPlan, options: Classifier, style: ConvolutionStyle
    ) -> None:
        super().__init__(network.encoder, network.decoder)
        self.options = options
        levels, stages = options.decoder_levels, len(plan.features)
        parts: dict[str, nn.Module] = {}
        if levels:
            parts["decoder"] = Decoder(
                self.encoder,
                convolutions=plan.decoder_convolutions[:levels],
                kernels=plan.kernel_sizes[-2::-1][:levels],
                style=style,
            )
            initialise(parts["decoder"])
        parts["head"] = ClassificationHead(
            plan.features[-1 - levels],
            options.classes,
            pooling=options.pooling,
            dropout=options.dropout,
            # The layers before it are those of the encoder and of the first decoder.
            layer=2 * stages - 1,
        )
        self.classifier = nn.ModuleDict(parts)

    def channel_paths(self, images: Tensor) -> list[Tensor]:
        """As of the U-Net; what the head pools is an end, so that all of its features stay."""
        skips = self.encoder(images)
        pooled, scores = skips[-1], []
        if "decoder" in self.classifier:
            second: Any = self.classifier["decoder"]
            climbed, scores = second.channel_paths(skips)
            pooled = climbed[-1]
        return [*unet_channel_paths(self.decoder, skips), pooled, *scores]

    def masks(self, logits: Tensor) -> Tensor:
        """The masks (n, masks, ...) that logits (n, outputs, ...) of the segmentation stand for."""
        logits = logits.detach().float()
        exclusive = self.options.exclusive
        shares = torch.softmax(logits, dim=1) if exclusive else torch.sigmoid(logits)
        chosen = [shares[:, list(outputs)] for outputs in self.options.masks]
        # Labels of a voxel add up; of regions, which overlap, the union is at least the largest.
        joined = [some.sum(dim=1) if exclusive else some.amax(dim=1) for some in chosen]
        return torch.stack(joined, dim=1)

    def both(
        self,
        images: Tensor,
        keys: Tensor | None = None,
        masks: Tensor | None = None,
        given: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Logits of the segmentation, full resolution first, and of the classes (n, classes).

        ``masks`` (n, masks, ...) replace those that the segmentation itself gives, in all rows or,
        with ``given`` (n), in those where it is true: training can begin with true ones.
        """
        skips = self.encoder(images, keys)
        logits: list[Tensor] = self.decoder(skips, keys)
        if masks is None:
            masks = self.masks(logits[0]) if self.options.masks else images[:, :0]
        elif given is not None:
            rows = given.reshape(-1, *(1,) * (masks.ndim - 1))
            masks = torch.where(rows, masks.float(), self.masks(logits[0]))
        maps = skips[-1]
        if "decoder" in self.classifier:
            decoder = self.classifier["decoder"]
            maps = decoder.climb(skips)[-1]  # type: ignore[operator]
        return logits, self.classifier["head"](maps, masks, keys)


def build_classifying_unet(
    plan: NetworkPlan,
    input_channels: int,
    outputs: int,
    options: Classifier,
    *,
    style: ConvolutionStyle = NNUNET_STYLE,
    **others: Any,
) -> ClassifyingUNet:
    """The U-Net of ``plan`` with classes; ``others`` as for ``build_unet``."""
    network = build_unet(plan, input_channels, outputs, style=style, **others)
    return ClassifyingUNet(network, plan, options, style)
