"""The partial likelihood as a loss: golden values, the definition, gradients, what has no event."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from survival_fixture import EVENTS, LIKELIHOODS, RISKS, TIMES
from torch import Tensor

from medtool.core.errors import UnknownNameError
from medtool.nets.segmentation_losses import (
    Meaning,
    Overlap,
    OverlapSettings,
    create_segmentation_loss,
    tversky_of,
)
from medtool.nets.survival_losses import TIES, Outcomes, cox_loss
from medtool.score.survival import survival_sample
from medtool.score.survival_regression import cox_log_likelihood

X = torch.tensor(RISKS, dtype=torch.float64)
TINY = Outcomes(torch.tensor(TIMES), torch.tensor(EVENTS))

TABLES = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 1), st.floats(-4, 4)), min_size=2, max_size=15
)


def columns(rows) -> tuple[Tensor, Outcomes]:
    times, events, risks = (torch.tensor(column) for column in zip(*rows, strict=True))
    return risks.double(), Outcomes(times, events)


def defined(risks: Tensor, outcomes: Outcomes, ties: str) -> Tensor:
    """The loss, event by event, with sums of exponentials as they stand in the papers."""
    total, count = risks.new_zeros(()), 0
    for time in outcomes.times[outcomes.events > 0].unique():
        own = risks[(outcomes.times == time) & (outcomes.events > 0)]
        at_risk = risks[outcomes.times >= time]
        top = at_risk.max().detach()
        for number in range(own.numel()):
            gone = number / own.numel() if ties == "efron" else 0.0
            left = (at_risk - top).exp().sum() - gone * (own - top).exp().sum()
            total = total + own[number] - top - left.log()
        count += own.numel()
    return -total / count


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_the_tiny_table_has_the_golden_values(ties, b) -> None:
    loss = cox_loss(b * X, TINY, ties=ties)
    assert -loss.item() * sum(EVENTS) == pytest.approx(LIKELIHOODS[ties][b], abs=5e-7)


@pytest.mark.parametrize("ties", TIES)
@settings(max_examples=40)
@given(rows=TABLES)
def test_value_and_gradient_are_those_of_the_definition(ties, rows) -> None:
    risks, outcomes = columns(rows)
    if not outcomes.events.any():
        return
    mine, theirs = risks.clone().requires_grad_(), risks.clone().requires_grad_()
    loss, wanted = cox_loss(mine, outcomes, ties=ties), defined(theirs, outcomes, ties)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    sample = survival_sample(outcomes.times, outcomes.events)
    value = cox_log_likelihood(sample, risks.numpy(), ties=ties)
    assert loss.item() == pytest.approx(-value / sample.event_count)


@pytest.mark.parametrize("ties", TIES)
def test_gradients_are_those_of_finite_differences(ties) -> None:
    strata = torch.tensor([0, 1] * 5)
    known = torch.tensor([True] * 9 + [False])
    outcomes = Outcomes(TINY.times, TINY.events, strata, known)
    risks = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: cox_loss(r, TINY, ties=ties), risks)
    assert torch.autograd.gradcheck(lambda r: cox_loss(r, outcomes, ties=ties), risks)


@pytest.mark.parametrize("ties", TIES)
def test_order_of_patients_and_a_constant_change_nothing(ties) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    wanted = cox_loss(X, TINY, ties=ties)
    torch.testing.assert_close(cox_loss(X[order], TINY.take(order), ties=ties), wanted)
    torch.testing.assert_close(cox_loss(X + 500, TINY, ties=ties), wanted)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_risks_overflow_nowhere(ties, dtype) -> None:
    """exp(89) is more than float32 can hold."""
    risks = (X * 400).to(dtype).requires_grad_()
    loss = cox_loss(risks, TINY, ties=ties)
    assert loss.dtype == torch.float32
    loss.backward()
    wanted = defined(risks.detach().double(), TINY, ties)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert risks.grad is not None
    assert torch.isfinite(risks.grad).all()


def test_one_risk_for_all_ties_does_not_break_efron() -> None:
    """All of three patients die at once: 3 * 2 * 1 orders, equally likely."""
    outcomes = Outcomes(torch.ones(3), torch.ones(3))
    for value in (0.0, 100.0, -100.0):
        loss = cox_loss(torch.full((3,), value), outcomes)
        assert loss.item() == pytest.approx(math.log(6) / 3, abs=1e-5)


@pytest.mark.parametrize("ties", TIES)
def test_strata_are_compared_within(ties) -> None:
    strata = torch.tensor([0, 0, 1, 1, 0, 1, 1, 0, 0, 1])
    loss = cox_loss(X, Outcomes(TINY.times, TINY.events, strata), ties=ties)
    wanted = 0.0
    for stratum in (0, 1):
        part = TINY.take(strata == stratum)
        wanted += cox_loss(X[strata == stratum], part, ties=ties) * part.events.sum()
    torch.testing.assert_close(loss, wanted / sum(EVENTS))


@pytest.mark.parametrize("ties", TIES)
def test_patients_without_outcome_count_nowhere(ties) -> None:
    times = torch.tensor([*TIMES, math.nan, 3.0])
    events = torch.tensor([*EVENTS, math.nan, 1.0])
    known = torch.tensor([True] * 10 + [False] * 2)
    risks = torch.cat([X, X.new_tensor([9.0, -9.0])]).requires_grad_()
    loss = cox_loss(risks, Outcomes(times, events, known=known), ties=ties)
    torch.testing.assert_close(loss, cox_loss(X, TINY, ties=ties))
    loss.backward()
    assert risks.grad is not None
    assert risks.grad[10:].tolist() == [0, 0]


@pytest.mark.parametrize(
    "outcomes",
    [
        Outcomes(torch.tensor([1.0, 2.0]), torch.zeros(2)),
        Outcomes(torch.tensor([1.0, 2.0]), torch.ones(2), known=torch.zeros(2, dtype=torch.bool)),
        Outcomes(torch.tensor([1.0, 2.0]), torch.zeros(2), torch.tensor([0, 1])),
    ],
)
def test_a_batch_without_events_has_no_loss_but_a_gradient(outcomes) -> None:
    risks = torch.tensor([0.3, -0.2], requires_grad=True)
    loss = cox_loss(risks, outcomes)
    assert loss.item() == 0
    loss.backward()
    assert risks.grad is not None
    assert risks.grad.tolist() == [0, 0]


def test_descent_finds_the_coefficient_of_the_regression() -> None:
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [b], line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-14
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = cox_loss(b * X, TINY)
        loss.backward()
        return loss

    search.step(closure)
    assert b.item() == pytest.approx(1.172632, abs=1e-6)


def test_ties_of_another_name_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="ties") as refusal:
        cox_loss(X, TINY, ties="effron")  # type: ignore[arg-type]
    assert refusal.value.nearest == "efron"


def test_the_focal_tversky_loss_weighs_missing_more_than_inventing() -> None:
    """TP 8, FP 4, FN 2 with 0.3, 0.7 and the power 0.75, by hand: TI = 8 / (8 + 1.2 + 1.4)."""
    counts = Overlap(*(torch.tensor(float(count)) for count in (8, 4, 2)))
    found = tversky_of(counts, fp_weight=0.3, fn_weight=0.7, exponent=0.75, smooth=0.0)
    assert found.item() == pytest.approx((2.6 / 10.6) ** 0.75)
    assert found.item() == pytest.approx(0.348538, abs=5e-7)


def test_the_focal_tversky_loss_has_these_weights_by_default() -> None:
    """Two voxels of three found for sure, one invented: TP 2, FP 1, FN 1."""
    logits = torch.tensor([50.0, 50.0, -50.0, 50.0, -50.0]).reshape(1, 1, 5)
    labels = torch.tensor([[1, 1, 1, 0, 0]])
    loss = create_segmentation_loss(
        "focal-tversky", Meaning(regions=((1,),)), counting=OverlapSettings(smooth=0.0)
    )
    assert loss(logits, labels).item() == pytest.approx((1.0 / 3.0) ** 0.75)
    assert np.isfinite(loss(logits, labels).item())
