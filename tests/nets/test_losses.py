"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from medtool.nets.losses import bce, focal, positive_weight


def logit(p: float) -> torch.Tensor:
    return torch.logit(torch.tensor([p], dtype=torch.float64))


ONE, ZERO = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)


# p_t, gamma, alpha -> value; the factor 0.25 is that of a positive.
@pytest.mark.parametrize(
    ("p", "alpha", "wanted"),
    [(0.9, 0.25, 2.634013e-4), (0.1, 0.25, 0.466273), (0.5, None, 0.173287)],
)
def test_focal_golden_values(p: float, alpha: float | None, wanted: float) -> None:
    assert focal(logit(p), ONE, gamma=2, alpha=alpha).item() == pytest.approx(wanted, rel=1e-5)


def test_focal_of_a_negative_has_the_other_weight() -> None:
    positive = focal(logit(0.9), ONE, gamma=2, alpha=0.25).item()
    negative = focal(logit(0.1), ZERO, gamma=2, alpha=0.25).item()
    assert negative == pytest.approx(3 * positive)


def test_focal_without_focus_is_cross_entropy() -> None:
    values = torch.tensor([-3.0, 0.5, 4.0])
    labels = torch.tensor([0.0, 1.0, 1.0])
    torch.testing.assert_close(focal(values, labels, gamma=0), bce(values, labels))


def test_bce_by_hand() -> None:
    assert bce(logit(0.2), ONE).item() == pytest.approx(-math.log(0.2))
    assert bce(logit(0.2), ZERO).item() == pytest.approx(-math.log(0.8))


@pytest.mark.parametrize("value", [-80.0, -20.0, 20.0, 80.0, 200.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [2.0, 1.0, 0.5, 0.0])
def test_certainty_keeps_finite_values_and_gradients(
    value: float, label: float, gamma: float
) -> None:
    """From a fault: with a power below 1 the slope at a certain voxel was infinite times 0."""
    logits = torch.tensor([value], requires_grad=True)
    focal(logits, torch.tensor([label]), gamma=gamma, alpha=0.25).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_class_weight_balances_sums() -> None:
    assert positive_weight(torch.tensor([1.0, 0.0, 0.0, 0.0])) == 3.0
    assert positive_weight(torch.tensor([1.0, 1.0])) == 1.0
    assert positive_weight(torch.tensor([0.0])) == 1.0
