"""The loss of a classification beside a segmentation: weights of rare classes, and its share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def class_weights(counts: Sequence[int], *, power: float = 0.5, added: float = 0.0) -> Tensor:
    """Smoothed inverse frequency (classes): (N / n_c) ** power, of mean 1 over the N cases.

    ``added`` is added to each count first. They are normalised once, over the training cases; a
    class without cases has weight 0.
    """
    found = torch.tensor(counts, dtype=torch.float64)
    seen = found > 0
    raw = torch.where(seen, (found + added).clamp(min=1) ** -power, 0)
    return (raw * found.sum() / (raw * found).sum()).float()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Sum of w_y times the cross-entropy over the NUMBER of cases: logits (n, classes), labels (n).

    Torch's own mean divides by the batch's sum of weights: in a batch of one, and between equal
    cases of any batch, the weights then cancel.
    """
    values = F.cross_entropy(logits.float(), labels, reduction="none")
    return (weights.to(values.device)[labels] * values).sum() / len(labels)


def classification_share(
    epoch: float,
    *,
    hold_epochs: int = 20,
    ramp_epochs: int = 40,
    first: float = 0.1,
    last: float = 0.5,
) -> float:
    """Share of the classification in the loss of two tasks, from the epoch (0-based) alone.

    ``first`` for ``hold_epochs``, then a straight line to ``last`` over ``ramp_epochs``.
    """
    if epoch < hold_epochs:
        return first
    climbed = min(1.0, (epoch - hold_epochs) / ramp_epochs) if ramp_epochs else 1.0
    return first + (last - first) * climbed
