"""Decoders of U-Nets: from the bottleneck back to the image's resolution, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, cat, nn

from medtool.nets.attention_gate import AttentionGate
from medtool.nets.convolutions import (
    CONVOLUTIONS,
    TRANSPOSED,
    ConvolutionStack,
    ConvolutionStyle,
)
from medtool.nets.dropout import KeyedMapDropout
from medtool.nets.encoders import Encoder
from medtool.nets.exporting import takes_plain_way


class Decoder(nn.Module):
    """Transposed convolution, the encoder's maps of that level beside it, convolutions.

    Levels are counted from the deepest: ``convolutions`` and ``kernels`` have one entry for each
    level that is climbed; with fewer than the encoder has, the way ends below full resolution.
    ``dropout`` is the share of maps dropped after each level, one for all or one a level;
    ``first_layer`` numbers its dropouts apart from those of other parts of a network.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        convolutions: tuple[int, ...],
        kernels: tuple[tuple[int, ...], ...],
        style: ConvolutionStyle,
        attention_gates: bool = False,
        dropout: float | Sequence[float] = 0.0,
        first_layer: int = 0,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.transpconvs = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.dropouts = nn.ModuleList()
        shares = dropout if isinstance(dropout, Sequence) else (dropout,) * len(convolutions)
        levels = zip(convolutions, kernels, shares, strict=True)
        for level, (count, kernel, share) in enumerate(levels):
            below, skip = encoder.features[-1 - level], encoder.features[-2 - level]
            stride = encoder.strides[-1 - level]
            enlarge = TRANSPOSED[len(stride)]
            self.transpconvs.append(enlarge(below, skip, stride, stride))
            self.stages.append(
                ConvolutionStack(2 * skip, skip, count=count, kernel=kernel, style=style)
            )
            self.dropouts.append(KeyedMapDropout(share, layer=first_layer + level))
            if attention_gates:
                self.gates.append(AttentionGate(skip, below, stride))

    def climb(self, skips: list[Tensor], keys: Tensor | None = None) -> list[Tensor]:
        """Maps of each level, the deepest first, from the encoder's maps."""
        maps, climbed = skips[-1], []
        for level in range(len(self.stages)):
            maps = self.dropouts[level](self.rise(level, maps, skips), keys)
            climbed.append(maps)
        return climbed

    def rise(self, level: int, maps: Tensor, skips: list[Tensor]) -> Tensor:
        """Maps of ``level``, before its dropout, from those below it."""
        skip = skips[-2 - level]
        if self.gates:
            skip = self.gates[level](skip, maps)
        enlarge: Any = self.transpconvs[level]
        stage: Any = self.stages[level]
        risen: Tensor
        if takes_plain_way() or torch.is_grad_enabled():
            risen = stage(cat((enlarge(maps), skip), 1))
        else:
            risen = stage.of_both(enlarge(maps), skip)
        return risen

    def channel_paths(self, skips: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of each level, the deepest first, and scores of the gates, which weigh nothing.

        For tracing which channels belong together: a weight of all channels ties none.
        """
        maps, climbed, scores = skips[-1], [], []
        for level, (enlarge, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            skip = skips[-2 - level]
            if self.gates:
                gate: Any = self.gates[level]
                scores.append(gate.scores(skip, maps))
            maps = stage(cat((enlarge(maps), skip), 1))
            climbed.append(maps)
        return climbed, scores


class SegmentationDecoder(Decoder):
    """A decoder with logits at full resolution and, for deep supervision, at each level.

    The layers of logits are named by their level, so that the last one is called the same with
    deep supervision and without.
    """

    def __init__(
        self,
        encoder: Encoder,
        outputs: int,
        *,
        deep_supervision: bool,
        convolutions: tuple[int, ...],
        kernels: tuple[tuple[int, ...], ...],
        style: ConvolutionStyle,
        attention_gates: bool = False,
        dropout: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__(
            encoder,
            convolutions=convolutions,
            kernels=kernels,
            style=style,
            attention_gates=attention_gates,
            dropout=dropout,
            first_layer=len(encoder.features),
        )
        self.deep_supervision = deep_supervision
        self.seg_layers = nn.ModuleDict()
        last = len(convolutions) - 1
        for level in range(last + 1):
            if deep_supervision or level == last:
                make = CONVOLUTIONS[len(encoder.strides[0])]
                self.seg_layers[str(level)] = make(encoder.features[-2 - level], outputs, 1)

    def forward(self, skips: list[Tensor], keys: Tensor | None = None) -> list[Tensor]:
        """Logits, full resolution first; only that one unless deep supervision trains."""
        climbed = self.climb(skips, keys)
        wanted = len(climbed) if self.deep_supervision and self.training else 1
        levels = range(len(climbed) - 1, len(climbed) - 1 - wanted, -1)
        return [self.seg_layers[str(level)](climbed[level]) for level in levels]
