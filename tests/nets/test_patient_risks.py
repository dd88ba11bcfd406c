"""Gradient caching equals one large batch; the memory keeps what it says and nothing more."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from medtool.core.plan import NetworkPlan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.dropout import KeyedDropout, KeyedMapDropout, slice_keys
from medtool.nets.encoders import PlainEncoder
from medtool.nets.patient_risks import Embedded, EmbeddingMemory, cached_backward, join_outcomes
from medtool.nets.survival_losses import Outcomes, cox_loss

PLAN = NetworkPlan(
    kind="plain",
    features=(4, 6, 8),
    kernel_sizes=((3, 3),) * 3,
    strides=((1, 1), (2, 2), (2, 2)),
    encoder_blocks=(1, 1, 1),
    decoder_convolutions=(1, 1),
)
TIMES = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])
EVENTS = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1])
OUTCOMES = Outcomes(TIMES, EVENTS)


class RiskNetwork(nn.Module):
    """Slices to features, and the mean feature of a patient to a risk; dropout in both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = PlainEncoder(PLAN, 2, CLASSIC_STYLE, dropout=0.3)
        self.dropout = KeyedDropout(0.4, layer=9)
        self.head = nn.Linear(8, 1)

    def features(self, slices: Tensor, keys: Tensor) -> Tensor:
        return self.encoder(slices, keys)[-1].mean((2, 3))

    def risk(self, features: Tensor, keys: Tensor) -> Tensor:
        return self.head(self.dropout(features, keys))[:, 0]


def network() -> RiskNetwork:
    """In double precision, dropout at work, batch norms in evaluation with statistics of theirs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = RiskNetwork().double().eval()
    for number, module in enumerate(made.modules()):
        if isinstance(module, KeyedDropout | KeyedMapDropout):
            module.train()
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(0.005 * number)
            module.running_var.fill_(1 + 0.02 * number)
    return made


def patients() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Slices, their keys and the patient's key; patients have one to three slices."""
    drawn = torch.Generator().manual_seed(1)
    found = []
    for number in range(8):
        slices = torch.randn(1 + number % 3, 2, 8, 8, generator=drawn, dtype=torch.float64)
        keys = slice_keys(0, 0, f"case{number}", list(range(len(slices))))
        found.append((slices, keys, slice_keys(0, 0, f"patient{number}", [0])))
    return found


def gradients(made: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


def in_one_batch(made: RiskNetwork, *, backward: bool = True) -> Tensor:
    risks = []
    for slices, keys, own in patients():
        features = made.features(slices, keys).mean(0, keepdim=True)
        risks.append(made.risk(features, own))
    loss = cox_loss(torch.cat(risks), OUTCOMES)
    if backward:
        loss.backward()
    return loss


def assert_same_gradients(one: nn.Module, other: nn.Module) -> None:
    found, wanted = gradients(one), gradients(other)
    assert found.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 1e-3, "there is something to compare"
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-5 * largest)


def test_patient_by_patient_the_gradient_is_that_of_all_at_once() -> None:
    cached, whole = network(), network()

    def risk(patient: tuple[Tensor, Tensor, Tensor]) -> Embedded:
        slices, keys, own = patient
        return Embedded(cached.risk(cached.features(slices, keys).mean(0, keepdim=True), own))

    found = cached_backward(patients(), risk, lambda risks: cox_loss(risks, OUTCOMES))
    torch.testing.assert_close(found.joint, in_one_batch(whole).detach())
    assert not found.joint.requires_grad
    assert found.own.item() == 0
    assert_same_gradients(cached, whole)


def test_what_a_patient_costs_alone_is_learned_in_the_same_pass() -> None:
    cached, whole = network(), network()

    def risk(patient: tuple[Tensor, Tensor, Tensor]) -> Embedded:
        slices, keys, own = patient
        features = cached.features(slices, keys)
        return Embedded(
            cached.risk(features.mean(0, keepdim=True), own), features.square().mean() / 8
        )

    found = cached_backward(patients(), risk, lambda risks: 0.4 * cox_loss(risks, OUTCOMES))
    (0.4 * in_one_batch(whole, backward=False)).backward()
    costs = [whole.features(slices, keys).square().mean() / 8 for slices, keys, _ in patients()]
    torch.stack(costs).sum().backward()
    torch.testing.assert_close(found.own, torch.stack(costs).sum().detach())
    assert_same_gradients(cached, whole)


def test_slice_by_slice_with_pooling_and_head_in_the_loss() -> None:
    """A patient's slices need not fit into memory either."""
    cached, whole = network(), network()
    slices = torch.cat([patient[0] for patient in patients()])
    keys = torch.cat([patient[1] for patient in patients()])
    own = torch.cat([patient[2] for patient in patients()])
    whose = torch.repeat_interleave(
        torch.arange(8), torch.tensor([len(patient[0]) for patient in patients()])
    )
    mean = torch.zeros(8, len(whose), dtype=torch.float64)
    mean[whose, torch.arange(len(whose))] = 1.0
    mean = mean / mean.sum(1, keepdim=True)
    parts = list(zip(slices.split(4), keys.split(4), strict=True))
    cached_backward(
        parts,
        lambda part: Embedded(cached.features(*part)),
        lambda features: cox_loss(cached.risk(mean @ features, own), OUTCOMES),
    )
    in_one_batch(whole)
    assert_same_gradients(cached, whole)


def test_one_part_alone_stands_in_memory() -> None:
    """Graphs of the first pass are not kept: only one is alive at a time in the second."""
    made, alive, most = network(), 0, 0

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            nonlocal alive
            alive -= 1
            return gradient

    def risk(patient):
        nonlocal alive, most
        slices, keys, own = patient
        if torch.is_grad_enabled():
            alive += 1
            most = max(most, alive)
        rows = made.risk(made.features(slices, keys).mean(0, keepdim=True), own)
        return Embedded(Counted.apply(rows))

    cached_backward(patients(), risk, lambda risks: cox_loss(risks, OUTCOMES))
    assert (alive, most) == (0, 1)


def test_passes_that_differ_are_refused() -> None:
    made = nn.Linear(3, 1)
    shift = iter(range(100))
    with pytest.raises(ValueError, match="keys"):
        cached_backward(
            list(torch.randn(2, 4, 3)),
            lambda rows: Embedded(made(rows)[:, 0] + next(shift)),
            lambda risks: cox_loss(risks, OUTCOMES),
        )


def test_without_events_there_is_nothing_to_learn() -> None:
    made = nn.Linear(3, 1)
    none = Outcomes(TIMES, torch.zeros(8))
    found = cached_backward(
        list(torch.randn(2, 4, 3)),
        lambda rows: Embedded(made(rows)[:, 0]),
        lambda risks: cox_loss(risks, none),
    )
    assert found.joint.item() == 0
    assert made.weight.grad is not None
    assert (made.weight.grad == 0).all()


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


def test_a_memory_resumes_where_it_was() -> None:
    one, other = EmbeddingMemory(3, 2), EmbeddingMemory(3, 2)
    remembered(one, [5, 6], epoch=4, value=0.25)
    other.load_state_dict(one.state_dict())
    for memory in (one, other):
        remembered(memory, [7, 5], epoch=5, value=0.5)
    assert one.recall(torch.tensor([0]), 5).outcomes.times.tolist() == [6, 7, 5]
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


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
