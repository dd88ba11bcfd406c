"""The head of a U-Net that says a patient's risk, from what the bottleneck holds.

A patient is many slices or patches. Of each, sums are made that can be averaged (``rows``): so any
number of them stands for the patient, weighted by how many others each stands for, and only then is
the risk read. Lesions are pooled by the probability of tumour that the same network gives, without
gradient: the outlines learn from masks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medtool.nets.area_pool import averaged_onto
from medtool.nets.dropout import KeyedDropout

Pooling = Literal["global", "lesion", "both"]

# Share of an image under which nothing is taken for tumour: means over it stay finite.
_LEAST_SHARE = 1e-6
# Beside the features of lesions: their share of the image, and the uptake in them.
_AMOUNTS = 2


class SurvivalHead(nn.Module):
    """From rows of pooled features to a risk (higher is worse) for each patient.

    ``features`` are those of the bottleneck, ``covariates`` how many numbers stand beside them;
    dropout, before every layer, is drawn by keys, its modules numbered from ``first_layer``.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int],
        *,
        pooling: Pooling = "global",
        covariates: int = 0,
        dropout: float = 0.0,
        first_layer: int = 0,
    ) -> None:
        super().__init__()
        self.features = features
        self.pooling: Pooling = pooling
        # What ``forward`` takes of each patient.
        self.width = self.embedded + covariates
        # Numbers that mean something by themselves stand last, and have a short way as well.
        self.direct = covariates + (0 if pooling == "global" else _AMOUNTS)
        self.short = nn.Linear(self.direct, 1, bias=False) if self.direct else None
        widths = [self.width, *hidden]
        self.dropouts = nn.ModuleList(
            KeyedDropout(dropout, layer=first_layer + number) for number in range(len(widths))
        )
        self.layers = nn.ModuleList(
            nn.Linear(width, wide) for width, wide in zip(widths, [*hidden, 1], strict=True)
        )

    @property
    def embedded(self) -> int:
        """Numbers of an embedding, without covariates."""
        lesion = self.features + _AMOUNTS
        return {"global": self.features, "lesion": lesion, "both": self.features + lesion}[
            self.pooling
        ]

    def rows(self, maps: Tensor, chances: Tensor, uptake: Tensor) -> Tensor:
        """(n, ...) sums of each image that may be averaged over the images of a patient.

        ``maps`` (n, features, ...) are the bottleneck's, ``chances`` and ``uptake`` (n, 1, ...) the
        probability of tumour and the SUV at full resolution; only lesions need them.
        """
        axes = tuple(range(2, maps.ndim))
        everywhere = maps.mean(axes)
        if self.pooling == "global":
            return everywhere
        chances = chances.detach().to(maps.dtype)
        coarse = averaged_onto(chances, maps.shape[2:])
        amounts = torch.cat([chances, chances * uptake], dim=1).mean(axes)
        lesion = torch.cat([(maps * coarse).mean(axes), amounts], dim=1)
        return lesion if self.pooling == "lesion" else torch.cat([everywhere, lesion], dim=1)

    def embedding(self, rows: Tensor, field_ml: Tensor) -> Tensor:
        """(n, embedded) what is known of patients from their mean ``rows`` (n, ...).

        ``field_ml`` (n) is the volume of the whole image of each, by which shares become mL.
        """
        if self.pooling == "global":
            return rows
        sums, amounts = rows[:, :-_AMOUNTS], rows[:, -_AMOUNTS:]
        everywhere, lesion = sums[:, : -self.features], sums[:, -self.features :]
        within = lesion / (amounts[:, :1] + _LEAST_SHARE)
        sizes = torch.log1p(amounts.clamp(min=0) * field_ml.clamp(min=0)[:, None])
        return torch.cat([everywhere, within, sizes.to(within.dtype)], dim=1)

    def forward(self, embeddings: Tensor, keys: Tensor | None = None) -> Tensor:
        """Risks (n) of embeddings (n, embedded + covariates); ``keys`` (n) are needed where
        dropout is at work.
        """
        return self._risks(embeddings, lambda number, rows: self.dropouts[number](rows, keys))

    def with_masks(self, embeddings: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """As ``forward``; ``masks`` (n, width) of each layer are factors on what goes into it."""
        return self._risks(embeddings, lambda number, rows: rows * masks[number])

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that go into each layer."""
        return tuple(int(layer.in_features) for layer in self.layers)  # type: ignore[arg-type]

    def _risks(self, embeddings: Tensor, drop: Callable[[int, Tensor], Tensor]) -> Tensor:
        values = embeddings
        for number, layer in enumerate(self.layers):
            values = layer(drop(number, values))
            if number + 1 < len(self.layers):
                values = F.relu(values)
        if self.short is not None:
            values = values + self.short(embeddings[:, -self.direct :])
        return values[:, 0]
