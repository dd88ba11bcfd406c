"""Monte Carlo dropout on a U-Net: many passes for little more than the price of what differs.

Dropout that sits late in the decoder leaves all before it the same in every pass (Gal and
Ghahramani 2016 need the passes, not their repetition). That part is run once, and of the later
levels what their convolutions make of the encoder's maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn

from medtool.nets.convolutions import ConvolutionStack, ConvolutionUnit, convolved_part
from medtool.nets.decoders import SegmentationDecoder
from medtool.nets.dropout import KeyedDropout, slice_keys
from medtool.nets.encoders import Encoder

# Stands where training has its epochs, so that no pass repeats the masks of a training step.
_PASS_EPOCH = -1


class EncoderDecoder(Protocol):
    """A network that is a U-Net, or has one among its parts."""

    @property
    def encoder(self) -> Encoder:
        """Images to maps of falling resolution."""

    @property
    def decoder(self) -> SegmentationDecoder:
        """These maps to logits."""


def pass_keys(seed: int, case_id: str, slices: list[int], number: int) -> Tensor:
    """The keys (n), int64, of slices of one case in pass ``number`` from 0."""
    return slice_keys(seed, _PASS_EPOCH, case_id, slices, copy=number)


@contextmanager
def dropout_at_work(network: nn.Module) -> Iterator[None]:
    """Within it the network is in evaluation but for its keyed dropout, which drops.

    Batch norms keep their statistics. What was training before is training again afterwards.
    """
    before = {module: module.training for module in network.modules()}
    network.eval()
    for module in network.modules():
        if isinstance(module, KeyedDropout):
            module.train()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


class SharedPass:
    """What all passes over the same images have in common: the maps up to the first dropout.

    ``skips`` are the encoder's maps, the bottleneck last, for other heads of the network. To be
    made and used within ``dropout_at_work``, or with ``drops`` that says which dropouts count;
    raises ValueError where the encoder drops something, so that nothing is shared, or where the
    decoder drops nothing, so that nothing differs.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        images: Tensor,
        *,
        drops: Callable[[nn.Module], bool] | None = None,
    ) -> None:
        self.first = first_dropping(network, drops or _drops)
        self.decoder = network.decoder
        self.skips: list[Tensor] = network.encoder(images)
        maps = self.skips[-1]
        for level in range(self.first + 1):
            maps = self.decoder.rise(level, maps, self.skips)
        self.maps = maps
        # Gates weigh the encoder's maps by those from below: then nothing of a later level is
        # shared.
        later = [] if self.decoder.gates else range(self.first + 1, len(self.decoder.stages))
        self.of_skips = {level: self._of_skip(level) for level in later}

    def logits(self, keys: Tensor) -> Tensor:
        """Logits (n, outputs, ...) at full resolution of the pass with ``keys`` (n).

        Equal, but for rounding, to a whole pass of the network with the same keys.
        """
        maps = self.decoder.dropouts[self.first](self.maps, keys)
        for level in range(self.first + 1, len(self.decoder.stages)):
            maps = self.decoder.dropouts[level](self._rise(level, maps), keys)
        return self._last(maps)

    def logits_of_all(self, masks: Tensor) -> Tensor:
        """Logits (n * passes, outputs, ...), all passes of an image behind one another.

        ``masks`` (passes, features) are factors on the maps of the first dropout, the same for all
        images of a pass; nothing else of the decoder may drop.
        """
        passes = masks.shape[0]
        shape = (1, *masks.shape, *(1,) * (self.maps.ndim - 2))
        maps = (self.maps[:, None] * masks.reshape(shape)).flatten(0, 1)
        self.skips = [spread(skip, passes) for skip in self.skips]
        self.of_skips = {level: spread(part, passes) for level, part in self.of_skips.items()}
        for level in range(self.first + 1, len(self.decoder.stages)):
            maps = self._rise(level, maps)
        return self._last(maps)

    def _last(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.decoder.seg_layers[str(len(self.decoder.stages) - 1)](maps)
        return logits

    def _of_skip(self, level: int) -> Tensor:
        """What the first convolution of a level makes of the encoder's maps, with its bias."""
        skip = self.skips[-2 - level]
        conv = self._units(level)[0].conv
        return convolved_part(conv, skip, slice(-skip.shape[1], None), biased=True)

    def _rise(self, level: int, maps: Tensor) -> Tensor:
        if level not in self.of_skips:
            return self.decoder.rise(level, maps, self.skips)
        enlarged = self.decoder.transpconvs[level](maps)
        first, *others = self._units(level)
        below = convolved_part(first.conv, enlarged, slice(enlarged.shape[1]), biased=False)
        maps = first.activation(first.norm(below + self.of_skips[level]))
        for unit in others:
            maps = unit(maps)
        return maps

    def _units(self, level: int) -> list[ConvolutionUnit]:
        stack = self.decoder.stages[level]
        units = list(stack.convs) if isinstance(stack, ConvolutionStack) else []
        return [unit for unit in units if isinstance(unit, ConvolutionUnit)]


def first_dropping(network: EncoderDecoder, drops: Callable[[nn.Module], bool]) -> int:
    """The first level of the decoder that drops something.

    Raises ValueError where the encoder does, so that nothing is shared by passes, or where the
    decoder does not, so that nothing differs.
    """
    if any(map(drops, network.encoder.dropouts)):
        raise ValueError("the encoder drops maps: its part of the passes cannot be shared")
    at_work = [level for level, drop in enumerate(network.decoder.dropouts) if drops(drop)]
    if not at_work:
        raise ValueError("no dropout of the decoder is at work: every pass would be the same")
    return at_work[0]


def spread(values: Tensor, passes: int) -> Tensor:
    """Each image of (n, ...) for every pass, those of one behind one another: (n * passes, ...)."""
    return values[:, None].expand(-1, passes, *values.shape[1:]).flatten(0, 1)


def may_drop(module: nn.Module) -> bool:
    """Whether a dropout would drop something in training."""
    return isinstance(module, KeyedDropout) and module.share > 0


def _drops(module: nn.Module) -> bool:
    return may_drop(module) and module.training
