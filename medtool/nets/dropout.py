"""Dropout whose masks belong to a slice of a case, not to a position in a batch.

The mask of a slice comes from a 64-bit key that stands for (seed, epoch, case, slice); chunking,
order, device and number of processes do not change it. The bits are made on the device by integer
arithmetic alone (the finaliser of SplitMix64: Steele, Lea and Flood 2014), so they are equal
everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medtool.core.randomness import key64

# Constants of SplitMix64, as signed 64-bit integers.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND_MULTIPLIER = 0x94D049BB133111EB - (1 << 64)

# Bits that decide on one feature: few enough to be compared exactly on devices without float64.
_DECISION_BITS = 24


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Right shift that fills with zeros; torch's own fills with the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def keyed_bits(keys: Tensor, features: int) -> Tensor:
    """Uniform 24-bit integers (n, features) from int64 ``keys`` (n)."""
    counter = torch.arange(1, features + 1, dtype=torch.int64, device=keys.device)
    state = keys[:, None] + counter[None, :] * _GOLDEN_GAMMA
    state = (state ^ _shifted(state, 30)) * _FIRST_MULTIPLIER
    state = (state ^ _shifted(state, 27)) * _SECOND_MULTIPLIER
    state = state ^ _shifted(state, 31)
    return _shifted(state, 64 - _DECISION_BITS)


def slice_keys(seed: int, epoch: int, case_id: str, slices: list[int], copy: int = 0) -> Tensor:
    """The keys (n), int64, of slices of one case in one epoch."""
    return torch.tensor(
        [key64("dropout", seed, epoch, case_id, index, copy) for index in slices],
        dtype=torch.int64,
    )


class KeyedDropout(nn.Module):
    """Drops a share of the features of each row and scales the others, while training.

    ``forward`` takes rows (n, features) and their keys (n); ``layer`` tells apart several such
    modules in one network. In evaluation rows pass unchanged and keys are not needed.
    """

    def __init__(self, share: float, *, layer: int = 0) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"the share to drop must be in [0, 1), not {share}")
        self.share = share
        self.layer = layer

    def forward(self, rows: Tensor, keys: Tensor | None = None) -> Tensor:
        """Rows with some features dropped; raises ValueError without keys while training."""
        if not self.training or self.share == 0:
            return rows
        return rows * self.kept(keys, rows.shape[1]).to(rows.dtype) / (1 - self.share)

    def factors(self, keys: Tensor, features: int) -> Tensor:
        """What rows with ``keys`` (n) are multiplied by (n, features): 0, or 1 / (1 - share)."""
        return self.kept(keys, features).float() / (1 - self.share)

    def kept(self, keys: Tensor | None, features: int) -> Tensor:
        """Which features (n, features) of the rows with ``keys`` are kept."""
        if keys is None:
            raise ValueError("dropout in training needs the keys of the rows")
        bits = keyed_bits(keys ^ key64("dropout-layer", self.layer), features)
        return bits >= round(self.share * (1 << _DECISION_BITS))

    def extra_repr(self) -> str:
        """What print shows of it."""
        return f"share={self.share}, layer={self.layer}"


class KeyedMapDropout(KeyedDropout):
    """Drops whole feature maps (n, features, ...): neighbouring values of a map know each other,
    so that dropping single ones would hide little (Tompson 2015).
    """

    def forward(self, maps: Tensor, keys: Tensor | None = None) -> Tensor:
        """Maps with some of them zero; raises ValueError without keys while training."""
        if not self.training or self.share == 0:
            return maps
        kept = self.kept(keys, maps.shape[1]).to(maps.dtype) / (1 - self.share)
        return maps * kept.reshape(kept.shape + (1,) * (maps.ndim - 2))
