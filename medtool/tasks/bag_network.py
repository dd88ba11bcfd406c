"""The network of the bag family: a backbone for slices, a head, a pooling for the study.

A bag larger than memory passes the backbone in chunks. Leading frozen parts run without a
gradient; of the parts that learn only the chunk's input is kept and the chunk runs again in the
backward pass (torch.utils.checkpoint). Where batch norms use stored statistics, result and
gradients are those of the whole bag in one go.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medtool.nets.backbones import (
    Step,
    backbone_features,
    backbone_parts,
    backbone_steps,
    create_backbone,
    frozen_steps,
    run_steps,
)
from medtool.nets.dropout import KeyedDropout
from medtool.nets.freezing import batch_norms, statistics_kept
from medtool.nets.pooling import AttentionWeights, attend, create_pooling, pad_bags
from medtool.tasks.bag_settings import BagModelSection


class SliceHead(nn.Module):
    """Features (n, D) to logits (n): D -> hidden -> ReLU -> dropout -> 1."""

    def __init__(self, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.activation = nn.ReLU()
        self.dropout = KeyedDropout(dropout)
        self.output = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Logits (n); ``keys`` (n) are needed while training."""
        rows = self.dropout(self.activation(self.hidden(features)), keys)
        logits: Tensor = self.output(rows).squeeze(1)
        return logits


class BagNetwork(nn.Module):
    """Slices of one or several studies to a logit for each study and each slice."""

    def __init__(self, backbone: nn.Module, model: BagModelSection) -> None:
        super().__init__()
        features = backbone_features(backbone)
        self.backbone = backbone
        self.head = SliceHead(features, model.hidden_features, model.dropout)
        self.chunk_slices = model.chunk_slices
        self.batch_norm_frozen = model.batch_norm_frozen
        self.attention: AttentionWeights | None = None
        if model.pooling == "attention":
            self.attention = AttentionWeights(features, model.attention_features)
            self.pool = None
        else:
            self.pool = create_pooling(
                model.pooling, top_share=model.top_share, lse_sharpness=model.lse_sharpness
            )

    def train(self, mode: bool = True) -> BagNetwork:  # noqa: FBT001, FBT002 - torch's signature
        """As in torch, but batch norms keep their statistics where the preset says so."""
        super().train(mode)
        if mode and self.batch_norm_frozen:
            for norm in batch_norms(self.backbone):
                norm.eval()
        return self

    def forward(
        self,
        inputs: Tensor,
        sizes: Tensor | None = None,
        keys: Tensor | None = None,
        bag_keys: Tensor | None = None,
        *,
        first_step: int = 0,
    ) -> dict[str, Tensor]:
        """``slice_logits`` (n) and, with the bags' ``sizes`` (bags), ``logits`` (bags).

        ``inputs`` are slices (n, channels, rows, columns), or what the backbone's first
        ``first_step`` steps gave for them; slices of a bag follow one another. ``keys`` (n) and
        ``bag_keys`` (bags) decide what dropout drops. With the pooling attention ``attention``
        (n) is each slice's share in its bag.
        """
        return self.answer(self.features(inputs, first_step=first_step), sizes, keys, bag_keys)

    def channel_paths(self, slices: Tensor) -> list[Tensor]:
        """Ends of all ways from slices (n, channels, rows, columns): logits, scores of attention.

        For tracing which channels belong together (``medtool.optimize.prune``).
        """
        features = run_steps(backbone_steps(self.backbone), slices)
        scores = [] if self.attention is None else [self.attention.scores(features)]
        return [self.head(features), *scores]

    def answer(
        self,
        features: Tensor,
        sizes: Tensor | None = None,
        keys: Tensor | None = None,
        bag_keys: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What ``forward`` gives, from the backbone's features (n, D)."""
        found = {"slice_logits": self.head(features, keys).float()}
        if sizes is None:
            return found
        counts = [int(size) for size in sizes.tolist()]
        if self.attention is not None:
            padded, mask = pad_bags(features, counts)
            weights = self.attention(padded, mask)
            found["attention"] = weights[mask]
            found["logits"] = self.head(attend(padded.float(), weights), bag_keys).float()
        elif self.pool is not None:
            found["logits"] = self.pool(*pad_bags(found["slice_logits"], counts))
        return found

    def features(self, inputs: Tensor, *, first_step: int = 0, last_step: int = -1) -> Tensor:
        """What the backbone's steps from ``first_step`` on give for ``inputs``, in chunks.

        With ``last_step`` only up to and without that step.
        """
        steps = backbone_steps(self.backbone)
        steps = steps[first_step : len(steps) if last_step < 0 else last_step]
        frozen = frozen_steps(steps) if torch.is_grad_enabled() else len(steps)
        chunks = torch.split(inputs, self.chunk_slices)
        return torch.cat([self._chunk(steps, frozen, chunk, len(chunks)) for chunk in chunks])

    def _chunk(self, steps: list[Step], frozen: int, chunk: Tensor, chunks: int) -> Tensor:
        # Inputs never need a gradient here, so a frozen beginning needs no graph.
        with torch.no_grad():
            values = run_steps(steps[:frozen], chunk)
        learning = steps[frozen:]
        if chunks == 1 or not learning:
            return run_steps(learning, values)
        result: Tensor = checkpoint(
            run_steps,
            learning,
            values,
            use_reentrant=False,
            context_fn=self._chunk_contexts,
            preserve_rng_state=False,
        )
        return result

    def _chunk_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(self.backbone)


def build_network(model: BagModelSection, *, size_px: int | None = None) -> BagNetwork:
    """The network of a preset's ``[model]``, with random weights."""
    backbone = create_backbone(model.backbone, channels=model.channels, size_px=size_px)
    return BagNetwork(backbone, model)


def network_groups(network: nn.Module) -> dict[str, list[nn.Module]]:
    """Named parts that stages freeze: the backbone's from the stem on, then ``head``."""
    groups = dict(backbone_parts(network.backbone))  # type: ignore[arg-type]
    head = [network.head, network.attention]
    groups["head"] = [module for module in head if isinstance(module, nn.Module)]
    return groups
