"""A bag classification as it is exported, and what stands for its network where another engine
answers.

The file takes the slices of a study at once and gives the logit of each and that of the study. Of
more slices than memory allows the caller passes some at a time. Poolings of logits are then made
anew of all of them; with attention the answer is read from a weighted sum of features, which goes
from call to call: ``after`` of one is ``before`` of the next, zeros stand before the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from medtool.core.records import DeploymentSpec
from medtool.nets.backbones import (
    backbone_features,
    backbone_steps,
    create_backbone,
    run_steps,
)
from medtool.nets.pooling import attention_weights, create_pooling
from medtool.nets.precise import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.predict.engines.contract import Engine
    from medtool.tasks.bag import BagTask
    from medtool.tasks.bag_network import BagNetwork
    from medtool.tasks.bag_settings import BagModelSection

SLICES, MASK, BEFORE, AFTER = "slices", "mask", "before", "after"
SLICE_LOGITS, LOGIT, CHANCE, SCORES = "slice_logits", "logit", "probability", "attention_scores"
# Beside the weighted features: the sum of the weights, and the largest score.
_BESIDE = 2


def bag_deployment(task: BagTask) -> DeploymentSpec:
    """Slices of a study in, any number of them; logits of each and of the study out."""
    model, size = task.settings.model, task.input_size_px()
    inside: tuple[str, ...] = ("backbone", "head", "pooling")
    inputs: dict[str, tuple[int, ...]] = {SLICES: (1, model.channels, size, size)}
    if task.normalisation() is not None:
        inputs = {SLICES: (1, size, size), MASK: (1, size, size)}
        inside = ("normalisation", *inside)
    free = {name: {0: SLICES} for name in inputs}
    outputs: tuple[str, ...] = (SLICE_LOGITS, LOGIT, CHANCE)
    if model.pooling == "attention":
        inputs[BEFORE] = (1, _features(model, size) + _BESIDE)
        outputs = (*outputs, SCORES, AFTER)
    return DeploymentSpec(
        inputs=inputs,
        outputs=outputs,
        inside=inside,
        free_axes=free,
        # Masks of ones; before the first call there is nothing.
        typical={MASK: ((1.0,), (0.0,)), BEFORE: ((0.0,), (0.0,))},
    )


def _features(model: BagModelSection, size_px: int) -> int:
    # The shape of the network is asked for, not its weights.
    with torch.device("meta"):
        return backbone_features(
            create_backbone(model.backbone, channels=model.channels, size_px=size_px)
        )


class ExportedBag(nn.Module):
    """Slices of one study to their logits, and to the logit and probability of the study."""

    def __init__(self, network: BagNetwork, normalisation: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.normalisation = normalisation

    def forward(self, slices: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """``others`` are masks, where the normalisation is inside, and ``before``."""
        if self.normalisation is not None:
            slices, others = self.normalisation(slices, others[0]), others[1:]
        network = self.network
        features = run_steps(backbone_steps(network.backbone), slices)
        logits = network.head(features).float()
        if network.attention is None:
            pool: Any = network.pool
            whole = pool(logits[None], torch.ones_like(logits[None], dtype=torch.bool))
            return logits, whole, sigmoid(whole)
        scores = network.attention.scores(features)
        after = attended_with(others[0], features, scores)
        whole = network.head(after[:, :-_BESIDE] / after[:, -_BESIDE, None]).float()
        return logits, whole, sigmoid(whole), scores, after


def attended_with(before: Tensor, features: Tensor, scores: Tensor) -> Tensor:
    """``before`` (1, D + 2) with slices of ``features`` (n, D) and ``scores`` (n) added.

    It holds the sum of features weighted by exp(score - largest), the sum of these weights, and the
    largest score, or 0 where all are less.
    """
    earlier, total, largest = before[0, :-_BESIDE], before[0, -_BESIDE], before[0, -1]
    highest = torch.maximum(largest, scores.amax(dim=0))
    weights, kept = torch.exp(scores - highest), torch.exp(largest - highest)
    attended = earlier * kept + weights @ features
    beside = torch.stack([total * kept + weights.sum(), highest])
    return torch.cat([attended, beside])[None]


class AnsweredBag(nn.Module):
    """In the place of the network: a study's slices, some at a time, by an engine."""

    def __init__(self, engine: Engine, task: BagTask) -> None:
        super().__init__()
        self.engine = engine
        self.task = task
        self.attends = BEFORE in engine.input_names

    def study(self, images: NDArray[Any], masks: NDArray[np.bool_] | None) -> dict[str, Tensor]:
        """As ``BagNetwork.answer`` of one bag, from slices (n, rows, columns) as prepared."""
        model, spec = self.task.settings.model, self.task.exported_deployment()
        before = np.zeros(spec.inputs[BEFORE], np.float32) if self.attends else None
        parts: list[dict[str, NDArray[Any]]] = []
        for start in range(0, len(images), model.chunk_slices):
            part = slice(start, start + model.chunk_slices)
            fed = self._inputs(images[part], None if masks is None else masks[part])
            if before is not None:
                fed[BEFORE] = before
            parts.append(self.engine.run(fed))
            before = parts[-1].get(AFTER)
        logits = _joined(parts, SLICE_LOGITS)
        everywhere = torch.ones(1, len(logits), dtype=torch.bool)
        if self.attends:
            return {
                SLICE_LOGITS: logits,
                "attention": attention_weights(_joined(parts, SCORES)[None], everywhere)[0],
                "logits": torch.from_numpy(parts[-1][LOGIT]),
            }
        pool = create_pooling(
            model.pooling, top_share=model.top_share, lse_sharpness=model.lse_sharpness
        )
        return {SLICE_LOGITS: logits, "logits": pool(logits[None], everywhere)}

    def _inputs(
        self, images: NDArray[Any], masks: NDArray[np.bool_] | None
    ) -> dict[str, NDArray[Any]]:
        if MASK not in self.engine.input_names:
            return {SLICES: self.task.normalise(images, masks)}
        inside = np.ones(images.shape, bool) if masks is None else masks
        return {SLICES: images.astype(np.float32), MASK: inside.astype(np.float32)}


def _joined(parts: list[dict[str, NDArray[Any]]], name: str) -> Tensor:
    return torch.from_numpy(np.concatenate([part[name] for part in parts]))
