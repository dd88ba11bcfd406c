"""A timm model as the encoder of a U-Net for flat images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medtool.core.errors import UsageError
from medtool.nets.backbones import require_model
from medtool.nets.convolutions import (
    CLASSIC_STYLE,
    ConvolutionStack,
    ConvolutionStyle,
    initialise,
)
from medtool.nets.decoders import SegmentationDecoder
from medtool.nets.encoders import Encoder
from medtool.nets.timm_models import timm
from medtool.nets.unet import UNet

KERNEL = (3, 3)


class TimmEncoder(Encoder):
    """Two convolutions at full resolution, where timm's models have no maps, then the model's.

    Raises UnknownNameError for a name timm does not have, UsageError for a model that gives no
    maps of falling resolution.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        *,
        first_features: int,
        style: ConvolutionStyle = CLASSIC_STYLE,
        dropout: float = 0.0,
    ) -> None:
        model = _feature_model(name, channels)
        reductions = (1, *model.feature_info.reduction())
        steps = [after // before for before, after in zip(reductions, reductions[1:], strict=False)]
        super().__init__(
            (first_features, *model.feature_info.channels()),
            ((1, 1), *((step, step) for step in steps)),
            dropout,
        )
        self.stem = ConvolutionStack(channels, first_features, count=2, kernel=KERNEL, style=style)
        initialise(self.stem)
        self.backbone = model

    def forward(self, images: Tensor, keys: Tensor | None = None) -> list[Tensor]:
        """Maps of each level; timm's models give theirs all at once."""
        skips = [self.stem(images), *self.backbone(images)]
        return [drop(maps, keys) for drop, maps in zip(self.dropouts, skips, strict=True)]


def _feature_model(name: str, channels: int) -> Any:
    """The model with random weights, tried on a small image: not every model can do it."""
    require_model(name, where="model.encoder")
    try:
        model: Any = timm.create_model(
            name, pretrained=False, in_chans=channels, features_only=True
        )
        side = 2 * max(model.feature_info.reduction())
        with torch.no_grad():
            maps = model.eval()(torch.zeros(1, channels, side, side))
        model.train()
        found = [(part.shape[1], side // part.shape[2]) for part in maps]
        told = list(zip(model.feature_info.channels(), model.feature_info.reduction(), strict=True))
        fits, met = found == told, f"maps of (features, reduction) {found}"
    except (TypeError, RuntimeError, ValueError, AssertionError, AttributeError) as error:
        raise _no_encoder(name, f"{type(error).__name__}: {error}") from error
    falling = all(a[1] < b[1] for a, b in zip(told, told[1:], strict=False))
    if not fits or not falling or told[0][1] < 2:
        raise _no_encoder(name, met)
    return model


def _no_encoder(name: str, met: str) -> UsageError:
    return UsageError(
        f"The timm model '{name}' cannot be the encoder of a U-Net.",
        where="model.encoder",
        met=met,
        wanted="a model with maps of falling resolution, for images of any size",
        how="choose another one, such as resnet34 or efficientnet_b0.",
    )


def build_timm_unet(
    name: str,
    input_channels: int,
    outputs: int,
    *,
    first_features: int = 32,
    decoder_convolutions: int = 2,
    deep_supervision: bool = False,
    attention_gates: bool = False,
    encoder_dropout: float = 0.0,
    decoder_dropout: float | Sequence[float] = 0.0,
    style: ConvolutionStyle = CLASSIC_STYLE,
) -> UNet:
    """A U-Net whose encoder is the timm model ``name``, with random weights."""
    encoder = TimmEncoder(
        name, input_channels, first_features=first_features, style=style, dropout=encoder_dropout
    )
    levels: int = len(encoder.features) - 1
    decoder = SegmentationDecoder(
        encoder,
        outputs,
        deep_supervision=deep_supervision,
        convolutions=(decoder_convolutions,) * levels,
        kernels=(KERNEL,) * levels,
        style=style,
        attention_gates=attention_gates,
        dropout=decoder_dropout,
    )
    initialise(decoder)
    return UNet(encoder, decoder)
