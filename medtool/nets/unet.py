"""U-Nets in 2D and 3D, made from a plan: plain or residual, with nnU-Net's names of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor, nn

from medtool.core.plan import NetworkPlan
from medtool.nets.convolutions import NNUNET_STYLE, ConvolutionStyle, initialise
from medtool.nets.decoders import SegmentationDecoder
from medtool.nets.encoders import Encoder, PlainEncoder
from medtool.nets.residual import ResidualEncoder

ENCODERS: Mapping[str, type[PlainEncoder | ResidualEncoder]] = {
    "plain": PlainEncoder,
    "residual": ResidualEncoder,
}


class UNet(nn.Module):
    """An encoder and the decoder that belongs to it."""

    def __init__(self, encoder: Encoder, decoder: SegmentationDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @property
    def size_multiple(self) -> tuple[int, ...]:
        """What the size of an image must be a multiple of, along each axis."""
        return tuple(prod(steps) for steps in zip(*self.encoder.strides, strict=True))

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor | list[Tensor]:
        """Logits (n, outputs, ...) of images (n, channels, ...) at the images' resolution.

        In training with deep supervision a list, full resolution first. ``keys`` (n), from
        ``nets.dropout.slice_keys``, are needed where dropout is at work.
        """
        logits: list[Tensor] = self.decoder(self.encoder(images, keys), keys)
        return logits if self.decoder.deep_supervision and self.training else logits[0]

    def channel_paths(self, images: Tensor) -> list[Tensor]:
        """Ends of all ways through the network, those that only training uses among them.

        For tracing which channels belong together (``medtool.optimize.prune``).
        """
        return unet_channel_paths(self.decoder, self.encoder(images))


def unet_channel_paths(decoder: SegmentationDecoder, skips: list[Tensor]) -> list[Tensor]:
    """Logits of every level that has them, and scores of gates, from the encoder's maps."""
    climbed, scores = decoder.channel_paths(skips)
    return [*(layer(climbed[int(level)]) for level, layer in decoder.seg_layers.items()), *scores]


def build_unet(
    plan: NetworkPlan,
    input_channels: int,
    outputs: int,
    *,
    deep_supervision: bool = False,
    attention_gates: bool = False,
    encoder_dropout: float = 0.0,
    decoder_dropout: float | Sequence[float] = 0.0,
    style: ConvolutionStyle = NNUNET_STYLE,
) -> UNet:
    """The network of ``plan``, initialised from torch's stream.

    With deep supervision its tensors are exactly those of nnU-Net's network of the same plan
    (dynamic-network-architectures 0.4), each named once; without, the logits of the lower levels
    are left out. The dropouts are the shares of maps dropped after each level; the
    decoder's may be one a level, the deepest first.
    """
    encoder = ENCODERS[plan.kind](plan, input_channels, style, encoder_dropout)
    decoder = SegmentationDecoder(
        encoder,
        outputs,
        deep_supervision=deep_supervision,
        convolutions=plan.decoder_convolutions,
        kernels=plan.kernel_sizes[-2::-1],
        style=style,
        attention_gates=attention_gates,
        dropout=decoder_dropout,
    )
    network = UNet(encoder, decoder)
    initialise(network)
    return network
