"""Losses of one logit against one label, one value a case; callers weight and average them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# A power below 1 has no finite slope at 0, where a voxel is certain.
_LEAST_DOUBT = 1e-7


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy (n) of logits (n) and labels (n) of 0 or 1."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def focal(logits: Tensor, labels: Tensor, *, gamma: float, alpha: float | None = None) -> Tensor:
    """Binary focal loss (n), Lin et al. 2017; ``alpha`` weights positives, 1 - alpha negatives.

    p_t is exp(-ce), so nothing is lost where the probability is near 0 or 1.
    """
    values = focused(bce(logits, labels), gamma)
    if alpha is None:
        return values
    return values * (alpha * labels + (1 - alpha) * (1 - labels))


def focused(cross_entropy: Tensor, gamma: float) -> Tensor:
    """Cross-entropies times (1 - p_t) ** gamma, p_t being the probability of the true class."""
    # 1 - p_t by expm1: near certainty it would vanish in float32 otherwise.
    doubt = -torch.expm1(-cross_entropy)
    if 0 < gamma < 1:
        doubt = doubt.clamp(min=_LEAST_DOUBT)
    return doubt**gamma * cross_entropy


def positive_weight(labels: Tensor) -> float:
    """Negatives over positives of ``labels`` (n): with it both classes have one sum of weights.

    1 where a class is missing: no weight can balance that.
    """
    positives = int((labels > 0.5).sum())
    negatives = labels.numel() - positives
    return negatives / positives if positives and negatives else 1.0
