"""The memory of patients keeps what it says and nothing more."""

from __future__ import annotations

import math

import pytest
import torch

from medtool.nets.patient_risks import EmbeddingMemory, join_outcomes
from medtool.nets.survival_losses import Outcomes, cox_loss

TIMES = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])
EVENTS = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1])
OUTCOMES = Outcomes(TIMES, EVENTS)


def remembered(memory: EmbeddingMemory, keys: list[int], epoch: int, value: float) -> None:
    rows = torch.full((len(keys), 2), value)
    outcomes = Outcomes(torch.tensor(keys).double(), torch.ones(len(keys)))
    memory.remember(torch.tensor(keys), rows, outcomes, epoch)


def test_the_memory_keeps_the_latest_and_forgets_the_old() -> None:
    memory = EmbeddingMemory(3, 2, oldest=1)
    nobody = torch.tensor([-1])
    assert len(memory.recall(nobody, 0).embeddings) == 0
    remembered(memory, [1, 2, 3, 4], epoch=0, value=0.5)
    assert memory.recall(nobody, 0).outcomes.times.tolist() == [2, 3, 4]
    # Who is in the batch is not remembered beside itself.
    assert memory.recall(torch.tensor([3]), 0).outcomes.times.tolist() == [2, 4]
    remembered(memory, [2], epoch=1, value=0.75)
    found = memory.recall(nobody, 1)
    assert found.outcomes.times.tolist() == [3, 4, 2]
    assert found.embeddings[:, 0].tolist() == [0.5, 0.5, 0.75]
    assert memory.recall(nobody, 2).outcomes.times.tolist() == [2]
    assert len(memory.recall(nobody, 3).embeddings) == 0
    assert memory.label.startswith("approximate")


def test_patients_without_outcome_are_not_remembered() -> None:
    memory = EmbeddingMemory(4, 1)
    outcomes = Outcomes(
        torch.tensor([math.nan, 2.0]),
        torch.tensor([math.nan, 0.0]),
        torch.tensor([7, 7]),
        torch.tensor([False, True]),
    )
    memory.remember(torch.tensor([10, 11]), torch.randn(2, 1, requires_grad=True), outcomes, 0)
    found = memory.recall(torch.tensor([-1]), 0)
    assert found.outcomes.times.tolist() == [2]
    assert found.outcomes.strata is not None
    assert found.outcomes.strata.tolist() == [7]
    assert not found.embeddings.requires_grad


def test_a_memory_is_no_part_of_the_network_s_state() -> None:
    memory = EmbeddingMemory(3, 2)
    remembered(memory, [5, 6], epoch=4, value=0.25)
    assert memory.state_dict() == {}
    assert not memory.train().training


def test_a_batch_of_one_has_a_risk_set_by_memory() -> None:
    """With unchanged weights the memory's loss of the batch's own events is that of all."""
    risks = torch.linspace(-1, 1, 8)
    memory = EmbeddingMemory(8, 1)
    memory.remember(torch.arange(1, 8), risks[1:, None], OUTCOMES.take(torch.arange(1, 8)), 0)
    own = risks[:1].clone().requires_grad_()
    before = memory.recall(torch.tensor([0]), 0)
    outcomes = join_outcomes(OUTCOMES.take(torch.tensor([0])), before.outcomes)
    loss = cox_loss(torch.cat((own, before.embeddings[:, 0])), outcomes)
    whole = risks.clone().requires_grad_()
    wanted = cox_loss(whole, OUTCOMES)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(own.grad, whole.grad[:1])


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        EmbeddingMemory(0, 3)
