"""From the logits of the slices of a study to the logit of the study.

All functions take logits (bags, K) and a mask (bags, K), true where a slice is real: padding and
the order of slices change nothing. They work on logits throughout, so that probabilities near 0
and 1 keep their precision, and give log(P / (1 - P)) of the pooled probability P, (bags).
Formulas: the usual ones of multiple-instance learning; attention as in Ilse et al. 2018
(arXiv 1802.04712).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from medtool.core.errors import UnknownNameError
from medtool.core.names import nearest_name
from medtool.nets.exporting import takes_plain_way
from medtool.nets.precise import expm1, log1p, log_sigmoid, sigmoid, softplus

# ceil(r K) must not become one more because r K is not exact in binary (0.1 * 30).
_ROUNDING_SLACK = 1e-9


class Pooling(Protocol):
    """A pooling of logits (bags, K) under a mask (bags, K)."""

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor: ...


def pad_bags(values: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Values (n, ...) of bags that follow one another as (bags, K, ...), and the mask (bags, K).

    Raises ValueError where a bag is empty or the sizes do not add up to n.
    """
    if not sizes or min(sizes) < 1 or sum(sizes) != len(values):
        raise ValueError(f"bags of {sizes} slices do not make {len(values)} slices")
    padded = nn.utils.rnn.pad_sequence(list(torch.split(values, sizes)), batch_first=True)
    counts = torch.tensor(sizes, device=values.device)
    mask = torch.arange(padded.shape[1], device=values.device)[None, :] < counts[:, None]
    return padded, mask


def _only(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, -math.inf)


def _mean_logit(log_p: Tensor, log_q: Tensor, mask: Tensor) -> Tensor:
    """logit of the mean probability from log p and log (1 - p); the count cancels."""
    return torch.logsumexp(_only(log_p, mask), dim=1) - torch.logsumexp(_only(log_q, mask), dim=1)


def max_pool(logits: Tensor, mask: Tensor) -> Tensor:
    """P is the largest p."""
    return _only(logits, mask).amax(dim=1)


def mean_pool(logits: Tensor, mask: Tensor) -> Tensor:
    """P is the mean of p."""
    return _mean_logit(log_sigmoid(logits), log_sigmoid(-logits), mask)


def top_k_pool(logits: Tensor, mask: Tensor, *, share: float) -> Tensor:
    """P is the mean of the max(1, ceil(share K)) largest p, K without padding."""
    counts = torch.ceil(mask.sum(dim=1).double() * share - _ROUNDING_SLACK).clamp(min=1)
    # Padding sorts to the end; its -inf is replaced so that no gradient is undefined.
    order = _falling_order(_only(logits, mask))
    ranked = logits.gather(1, order)
    rank = torch.arange(logits.shape[1], device=logits.device)[None, :]
    return mean_pool(ranked, rank < counts[:, None])


def _falling_order(values: Tensor) -> Tensor:
    """Where the largest, the next, ... of each row (bags, K) stand; of equal ones the first."""
    if takes_plain_way():
        # The operator of other engines keeps no order among equal values, which are one value here.
        return values.topk(values.shape[1], dim=1).indices
    return values.argsort(dim=1, descending=True, stable=True)


def lse_pool(logits: Tensor, mask: Tensor, *, sharpness: float) -> Tensor:
    """P is (1 / r) log(mean exp(r p)).

    With expm1 and log1p both P and 1 - P keep their precision; 1 - P is the same formula in
    q = 1 - p and -r.
    """
    count = mask.sum(dim=1)

    def smooth(shares: Tensor, r: float) -> Tensor:
        terms = expm1(r * shares).masked_fill(~mask, 0)
        return log1p(terms.sum(dim=1) / count) / r

    # Below the smallest normal number of the type a logarithm would be that of zero.
    smallest = torch.finfo(logits.dtype).tiny
    positive = smooth(sigmoid(logits), sharpness).clamp(min=smallest)
    negative = smooth(sigmoid(-logits), -sharpness).clamp(min=smallest)
    return positive.log() - negative.log()


def noisy_or_pool(logits: Tensor, mask: Tensor) -> Tensor:
    """P is 1 - prod(1 - p): log(1 - P) is minus the sum of softplus(logit)."""
    total = softplus(logits).masked_fill(~mask, 0).sum(dim=1)
    total = total.clamp(min=torch.finfo(logits.dtype).tiny)
    return total + torch.log(-expm1(-total))


class AttentionWeights(nn.Module):
    """Weights a_k = softmax_k(w . tanh(V h_k)) of the slices of a bag.

    Takes features (bags, K, D) and the mask (bags, K); gives (bags, K), zero on padding. They say
    what the answer relied on, not how probable a finding is.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """The weights (bags, K)."""
        return attention_weights(self.scores(features).float(), mask)

    def scores(self, features: Tensor) -> Tensor:
        """Logits (...) of the weights, from features (..., D)."""
        scores: Tensor = self.score(torch.tanh(self.project(features))).squeeze(-1)
        return scores


def attention_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of scores (bags, K) over the real slices of each bag."""
    return torch.softmax(_only(scores, mask), dim=1)


def attend(features: Tensor, weights: Tensor) -> Tensor:
    """Features of bags (bags, D): the sum of a_k h_k."""
    return (weights[..., None] * features).sum(dim=1)


def create_pooling(name: str, *, top_share: float, lse_sharpness: float) -> Pooling:
    """The pooling of logits called ``name``; raises UnknownNameError.

    ``attention`` pools features, not logits: see AttentionWeights and attend.
    """
    known: dict[str, Pooling] = {
        "max": max_pool,
        "mean": mean_pool,
        "top-k": lambda logits, mask: top_k_pool(logits, mask, share=top_share),
        "lse": lambda logits, mask: lse_pool(logits, mask, sharpness=lse_sharpness),
        "noisy-or": noisy_or_pool,
    }
    if name not in known:
        raise UnknownNameError(
            f"There is no pooling of logits named '{name}'.",
            met=name,
            wanted="one of: " + ", ".join(known),
            nearest=nearest_name(name, known),
        )
    return known[name]
