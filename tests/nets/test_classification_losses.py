"""Weights of classes and of tasks against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from medtool.nets.classification_losses import (
    class_weights,
    classification_share,
    weighted_cross_entropy,
)


def test_class_weights_by_hand() -> None:
    counts = (62, 106, 84)
    half = class_weights(counts).tolist()
    assert half == pytest.approx([1.170817, 0.895430, 1.005878], abs=1e-6)
    whole = class_weights(counts, power=1).tolist()
    assert whole == pytest.approx([1.354839, 0.792453, 1.0], abs=1e-6)
    assert class_weights(counts, power=0).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("added", [0.0, 10.0])
def test_the_mean_weight_of_a_case_is_one(added: float) -> None:
    counts = (5, 0, 50, 500)
    weights = class_weights(counts, added=added)
    total = sum(n * w for n, w in zip(counts, weights.tolist(), strict=True))
    assert total == pytest.approx(555)
    assert weights[1] == 0


def test_weights_do_not_cancel_in_a_batch_of_one() -> None:
    logits, weights = torch.zeros(1, 2), torch.tensor([3.0, 0.5])
    for label, weight in enumerate(weights.tolist()):
        found = weighted_cross_entropy(logits, torch.tensor([label]), weights)
        assert found.item() == pytest.approx(weight * math.log(2))


def test_parts_of_a_batch_add_up_to_it() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels, weights = torch.tensor([0, 2, 2, 1]), torch.tensor([1.5, 0.7, 0.9])
    whole = weighted_cross_entropy(logits, labels, weights)
    parts = [
        weighted_cross_entropy(logits[n : n + 1], labels[n : n + 1], weights) for n in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@pytest.mark.parametrize(
    ("epoch", "wanted"),
    [(0, 0.1), (19, 0.1), (20, 0.1), (30, 0.2), (40, 0.3), (59, 0.49), (60, 0.5), (500, 0.5)],
)
def test_the_share_of_the_classification(epoch: int, wanted: float) -> None:
    assert classification_share(epoch) == pytest.approx(wanted)


def test_a_share_without_a_ramp_is_a_step() -> None:
    assert [classification_share(e, ramp_epochs=0) for e in (19, 20)] == [0.1, 0.5]
