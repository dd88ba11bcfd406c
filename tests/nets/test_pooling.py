"""Poolings against values worked out by hand and against their formulas in 64-bit NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medtool.core.errors import UnknownNameError
from medtool.nets import pooling

P = (0.1, 0.2, 0.9, 0.4)
NAMES = ("max", "mean", "top-k", "lse", "noisy-or")


def pool(name: str, *, share: float = 0.5, sharpness: float = 4.0) -> pooling.Pooling:
    return pooling.create_pooling(name, top_share=share, lse_sharpness=sharpness)


def bag(probabilities: tuple[float, ...] = P) -> tuple[Tensor, Tensor]:
    logits = torch.logit(torch.tensor([probabilities], dtype=torch.float64))
    return logits, torch.ones_like(logits, dtype=torch.bool)


# Golden values for the bag P.
@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (pool("max"), 0.9),
        (pool("mean"), 0.4),
        (pool("top-k"), 0.65),
        (pool("noisy-or"), 0.956800),
        (pool("lse", sharpness=1), 0.450757),
        (pool("lse", sharpness=4), 0.606580),
        (pool("lse", sharpness=10), 0.762166),
    ],
)
def test_golden_probabilities(chosen: pooling.Pooling, wanted: float) -> None:
    assert torch.sigmoid(chosen(*bag())).item() == pytest.approx(wanted, abs=5e-7)


def reference(name: str, p: np.ndarray) -> float:
    """The formulas on probabilities, in 64 bits."""
    formulas: dict[str, Callable[[], float]] = {
        "max": lambda: p.max(),
        "mean": lambda: p.mean(),
        "top-k": lambda: np.sort(p)[::-1][: max(1, math.ceil(len(p) / 2))].mean(),
        "lse": lambda: np.log(np.mean(np.exp(4 * p))) / 4,
        "noisy-or": lambda: 1 - np.prod(1 - p),
    }
    return float(formulas[name]())


@pytest.mark.parametrize("name", NAMES)
@given(logits=st.lists(st.floats(-8, 8), min_size=1, max_size=12))
def test_the_formulas(name: str, logits: list[float]) -> None:
    values = torch.tensor([logits], dtype=torch.float64)
    found = torch.sigmoid(pool(name)(values, torch.ones_like(values, dtype=torch.bool))).item()
    wanted = reference(name, 1 / (1 + np.exp(-np.asarray(logits))))
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(
    logits=st.lists(st.floats(-20, 20), min_size=1, max_size=10),
    padding=st.lists(st.floats(-1e4, 1e4), max_size=5),
    seed=st.integers(0, 1000),
)
def test_padding_and_order_change_nothing(
    name: str, logits: list[float], padding: list[float], seed: int
) -> None:
    plain = torch.tensor([logits], dtype=torch.float64)
    order = np.random.default_rng(seed).permutation(len(logits))
    padded = torch.tensor([[logits[k] for k in order] + padding], dtype=torch.float64)
    mask = torch.tensor([[True] * len(logits) + [False] * len(padding)])
    alone = pool(name)(plain, torch.ones_like(plain, dtype=torch.bool))
    torch.testing.assert_close(pool(name)(padded, mask), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logit", [-60.0, -20.0, 20.0, 60.0])
def test_certainty_keeps_finite_logits_and_gradients(name: str, logit: float) -> None:
    values = torch.tensor([[logit, logit, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    found = pool(name)(values, mask)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
    assert values.grad[0, 2] == 0, "no gradient reaches padding"


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3)])
def test_top_k_counts_slices_without_padding(count: int, wanted: int) -> None:
    # The first ``wanted`` slices are certain, the others impossible: only they may be averaged.
    logits = torch.full((1, 40), -5.0, dtype=torch.float64)
    logits[0, :wanted] = 5.0
    mask = torch.arange(40)[None] < count
    found = torch.sigmoid(pool("top-k", share=0.1)(logits, mask)).item()
    assert found == pytest.approx(1 / (1 + math.exp(-5)))


def test_attention_with_equal_scores_is_the_mean() -> None:
    mask = torch.tensor([[True, True, True, False]])
    weights = pooling.attention_weights(torch.tensor([[0.3, 0.3, 0.3, 9.0]]), mask)
    torch.testing.assert_close(weights, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0]]))


def test_attention_fixture() -> None:
    # h = (1, 3), scores (0, ln 3): weights 1/4 and 3/4, z = 2.5.
    scores = torch.tensor([[0.0, math.log(3.0)]])
    weights = pooling.attention_weights(scores, torch.ones(1, 2, dtype=torch.bool))
    z = pooling.attend(torch.tensor([[[1.0], [3.0]]]), weights)
    assert z.item() == pytest.approx(2.5)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    layer = pooling.AttentionWeights(5, 3)
    h = torch.randn(1, 4, 5)
    v, b = layer.project.weight.detach().numpy(), layer.project.bias.detach().numpy()
    w = layer.score.weight.detach().numpy()[0]
    scores = np.tanh(h[0].numpy() @ v.T + b) @ w
    wanted = np.exp(scores) / np.exp(scores).sum()
    found = layer(h, torch.ones(1, 4, dtype=torch.bool)).detach().numpy()[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_bags_are_padded_to_the_longest() -> None:
    padded, mask = pooling.pad_bags(torch.arange(5.0), [2, 3])
    assert padded.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert mask.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("sizes", [[], [0, 5], [2, 2], [-1, 6]])
def test_sizes_that_make_no_bags(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="slices"):
        pooling.pad_bags(torch.zeros(5), sizes)


def test_an_unknown_pooling_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        pool("noisy_or_")
    assert caught.value.nearest == "noisy-or"
