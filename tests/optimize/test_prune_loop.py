"""Rounds of pruning, each followed by learning with the loop of the task."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import SIDE_PX, TinyTask
from tiny_training import tiny_job, tiny_task
from torch import Tensor, nn
from torch.nn import functional as F

from medtool.config.prune_section import PruneSection
from medtool.core.errors import Interrupted
from medtool.core.randomness import key64
from medtool.core.records import ExampleKey
from medtool.data.cache import read_prepared
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.unet import build_unet
from medtool.nets.widths import narrow
from medtool.optimize.batch_norms import estimate_batch_norms
from medtool.optimize.distil import DistilledTask, as_teacher, disagreement, said_by
from medtool.optimize.prune_loop import Learners, Pruned, learning_plan, prune_in_rounds
from medtool.optimize.weights import zero_share, zero_smallest
from medtool.train.loop import Job


class NormedTask(TinyTask):
    """The tiny task with a batch norm behind its trunk."""

    def network(self) -> nn.Module:
        plain: Any = super().network()

        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.trunk = nn.Sequential(plain.trunk, nn.BatchNorm1d(8))
                self.head = plain.head

            def forward(self, slices: Tensor) -> Tensor:
                logit: Tensor = self.head(self.trunk(slices.flatten(1)).tanh()).max()
                return logit

        return Normed()


class FarTask(TinyTask):
    """The tiny task with a network that, as on a GPU, meets no slices before it is moved."""

    def network(self) -> nn.Module:
        plain: Any = super().network()

        class Far(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.trunk, self.head = plain.trunk, plain.head
                self.moved = False

            def _apply(self, *words: Any, **named: Any) -> Any:
                self.moved = True
                return super()._apply(*words, **named)

            def forward(self, slices: Tensor) -> Tensor:
                if not self.moved:
                    raise RuntimeError("Expected all tensors to be on the same device")
                logit: Tensor = self.head(self.trunk(slices.flatten(1)).tanh()).max()
                return logit

        return Far()


def learners(job: Job, **changes: Any) -> Learners:
    return Learners(job.training, job.selection, job.prepared, **changes)


def fresh(task: TinyTask) -> nn.Module:
    torch.manual_seed(key64("weights", 0))
    return task.network()


def pruned(folder: Path, task: TinyTask, **settings: Any) -> Pruned:
    chosen = PruneSection(**{"share": 0.5, "round_to": 1, "steps": 2, "epochs": 2, **settings})
    job = tiny_job(folder, task)
    return prune_in_rounds(task, fresh(task), chosen, learners(job))


def test_each_round_takes_its_part_and_the_network_learns_after_it(tmp_path: Path) -> None:
    task = NormedTask(tiny_task(learning_rate=0.01).settings)
    found = pruned(tmp_path, task, last_epochs=6)
    assert found.widths == {
        "trunk.0": {"in": 256, "out": 4},
        "trunk.1": {"out": 4},
        "head": {"in": 4, "out": 1},
    }
    weights = 256 * 8 + 8 + 2 * 8 + 8 + 1
    assert found.parameters_before == weights
    assert [(one.share, one.epochs) for one in found.rounds] == [(0.25, 2), (0.5, 6)]
    assert [one.parameters for one in found.rounds] == [
        256 * wide + wide + 2 * wide + wide + 1 for wide in (6, 4)
    ]
    assert found.rounds[-1].best_value >= found.rounds[-1].first_value  # type: ignore[operator]
    assert found.kept_whole == {"head": "reaches an output"}


def test_the_network_that_is_given_stays_as_it_is(tmp_path: Path) -> None:
    task = tiny_task(learning_rate=0.01)
    network = fresh(task)
    before = copy.deepcopy(network.state_dict())
    job = tiny_job(tmp_path, task)
    settings = PruneSection(share=0.5, round_to=1, steps=1, last_epochs=1)
    prune_in_rounds(task, network, settings, learners(job))
    assert all(torch.equal(before[n], tensor) for n, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_network_on_a_gpu_is_traced_and_taught_by_copies(tmp_path: Path) -> None:
    """From a fault: the copy that teaches was traced on the GPU with inputs of the CPU."""
    task = FarTask(tiny_task(learning_rate=0.01).settings)
    network: Any = fresh(task)
    settings = PruneSection(share=0.5, round_to=1, steps=1, last_epochs=1)
    found = prune_in_rounds(task, network, settings, learners(tiny_job(tmp_path, task)))
    assert found.rounds[0].best_value is not None
    assert not network.moved


def test_the_same_rounds_give_the_same_weights(tmp_path: Path) -> None:
    task = tiny_task(learning_rate=0.01)
    first, second = (pruned(tmp_path, task, last_epochs=2) for _ in range(2))
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)
    again = fresh(task)
    narrow(again, first.widths)
    again.load_state_dict(first.network.state_dict())


def test_without_epochs_nothing_is_learned(tmp_path: Path) -> None:
    found = pruned(tmp_path, tiny_task(), epochs=0, last_epochs=0)
    assert [(one.first_value, one.best_value, one.epochs) for one in found.rounds] == [
        (None, None, 0)
    ] * 2


def test_single_weights_are_for_study_and_make_nothing_smaller(tmp_path: Path) -> None:
    found = pruned(tmp_path, tiny_task(), kind="weights", steps=1)
    assert not found.widths
    assert found.rounds[0].parameters == found.parameters_before
    trunk: Any = found.network.get_submodule("trunk")
    assert int((trunk.weight == 0).sum()) == 256 * 8 // 2
    assert found.rounds[0].epochs == 0


def test_who_asks_to_stop_is_heard(tmp_path: Path) -> None:
    task = tiny_task()
    job = tiny_job(tmp_path, task)
    settings = PruneSection(share=0.5, round_to=1, steps=1, last_epochs=3)
    with pytest.raises(Interrupted):
        prune_in_rounds(task, fresh(task), settings, learners(job, should_stop=lambda: True))


def test_every_part_learns_at_the_last_rate_of_its_stages() -> None:
    stages = [
        {"from_epoch": 0, "rates": {"head": 1e-3}},
        {"from_epoch": 2, "rates": {"head": 1e-4, "layer4": 1e-5}},
    ]
    train = type(tiny_task().settings.train).model_validate({"epochs": 4, "stages": stages})
    plan = learning_plan(
        train, ["stem", "layer4", "head"], PruneSection(rate_factor=0.5), 7, cases=9
    )
    assert plan.epochs == 7
    (stage,) = plan.stages
    assert stage.rates == {"stem": 5e-6, "layer4": 5e-6, "head": 5e-5}


# --- batch norms ---------------------------------------------------------------------------


def test_batch_norms_get_the_means_over_the_training_cases(tmp_path: Path) -> None:
    task = NormedTask(tiny_task(batch_cases=2).settings)
    job = tiny_job(tmp_path, task)
    network: Any = fresh(task)
    network.train()
    network.head.eval()
    norm = network.trunk[1]
    momentum = norm.momentum
    seen = estimate_batch_norms(task, network, job.training, job.prepared)
    # A bag is a call of its own here: the mean over bags of each bag's mean and variance.
    means, variances = [], []
    for case in job.training:
        slices = np.array(read_prepared(job.prepared[case.case_id]).arrays["slices"], np.float32)
        flat = slices.reshape(-1, SIDE_PX**2).astype(np.float64)
        rows = flat @ network.trunk[0].weight.detach().double().numpy().T
        rows += network.trunk[0].bias.detach().double().numpy()
        means.append(rows.mean(0))
        variances.append(rows.var(0, ddof=1))
    assert seen == len(job.training) == 8
    np.testing.assert_allclose(norm.running_mean.numpy(), np.mean(means, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var.numpy(), np.mean(variances, 0), rtol=1e-4)
    assert norm.momentum == momentum
    assert norm.training
    assert not network.head.training
    assert all(p.grad is None for p in network.parameters())


def test_without_batch_norms_there_is_nothing_to_estimate(tmp_path: Path) -> None:
    task = tiny_task()
    job = tiny_job(tmp_path, task)
    assert estimate_batch_norms(task, fresh(task), job.training, job.prepared) == 0


# --- distillation --------------------------------------------------------------------------


def test_networks_that_say_the_same_do_not_disagree() -> None:
    logits = torch.randn(3, 2, 5, 5)
    assert float(disagreement(logits, logits.clone(), temperature=2.0)) == pytest.approx(
        0, abs=1e-6
    )


def test_disagreement_is_the_divergence_of_chances() -> None:
    """By hand at temperature 1: chances 0.8 wanted, 0.5 said."""
    wanted = torch.tensor([[math.log(4.0)]])
    found = float(disagreement(torch.zeros(1, 1), wanted, temperature=1.0))
    assert found == pytest.approx(0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5), rel=1e-5)


def test_a_small_lesion_counts_as_much_as_all_the_rest() -> None:
    wanted = torch.full((1, 1, 10, 10), -8.0)
    wanted[0, 0, 0, 0] = 8.0
    missed, false = wanted.clone(), wanted.clone()
    missed[0, 0, 0, 0] = -8.0
    false[0, 0, 1:] = 8.0
    ratio = float(disagreement(missed, wanted, temperature=1.0)) / float(
        disagreement(false, wanted, temperature=1.0)
    )
    # 90 of the 99 other places are wrong, the one place of the lesion wholly.
    assert ratio == pytest.approx(99 / 90, rel=1e-3)


def test_the_loss_is_mixed_and_the_teacher_stands_still(tmp_path: Path) -> None:
    task = NormedTask(tiny_task().settings)
    job = tiny_job(tmp_path, task)
    teacher, student = fresh(task), task.network()
    before = copy.deepcopy(teacher.state_dict())
    taught: Any = DistilledTask(task, teacher, ["head"], weight=0.25, temperature=1.0)
    examples: Any = task.examples(job.training, job.prepared, training=False)
    samples = [examples[ExampleKey(0, 0, index)] for index in range(2)]
    batch = examples.collate(samples, job.training[:2], 0, 0)
    student.eval()
    found = taught.losses(student, batch)
    own = task.losses(student, batch)["loss"].detach()
    with torch.no_grad(), said_by(student, ["head"]) as ours, said_by(teacher, ["head"]) as theirs:
        task.losses(student, batch)
        task.losses(teacher, batch)
    parts = []
    for said, wanted in zip(ours, theirs, strict=True):
        p, q = torch.sigmoid(wanted), torch.sigmoid(said)
        parts.append(float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()))
    assert float(found["distillation"].detach()) == pytest.approx(np.mean(parts), rel=1e-4)
    assert float(found["loss"].detach()) == pytest.approx(
        0.75 * float(own) + 0.25 * float(np.mean(parts)), rel=1e-4
    )
    found["loss"].backward()
    assert all(torch.equal(before[n], tensor) for n, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert taught.settings is task.settings


def test_a_teacher_answers_as_in_evaluation_but_at_all_resolutions() -> None:
    network = build_unet(
        classic_plan(4, 3), 1, 1, style=CLASSIC_STYLE, deep_supervision=True, decoder_dropout=0.5
    )
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        wanted: Any = network.eval()(images)
        found = as_teacher(network)(images, torch.arange(2))
    assert [tuple(one.shape[2:]) for one in found] == [(16, 16), (8, 8)]
    torch.testing.assert_close(found[0], wanted)


# --- single weights ------------------------------------------------------------------------


def test_the_smallest_weights_of_each_layer_become_zero() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -2.0], [-0.5, 4.0]]))
        network[1].weight.copy_(torch.tensor([[0.1, 0.2]]))
    assert zero_smallest(network, 0.5, keep=["1"]) == 2
    assert network[0].weight.tolist() == [[0.0, -2.0], [0.0, 4.0]]
    assert network[1].weight.tolist() == [[pytest.approx(0.1), pytest.approx(0.2)]]
    assert zero_share(network) == pytest.approx(2 / 6)
    assert F.linear(torch.ones(1, 2), network[0].weight).shape == (1, 2)


def test_single_weights_are_found_in_any_order_in_memory():
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 3, 3)
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    assert zero_smallest(turned, 0.5) == zero_smallest(plain, 0.5) == 54
    assert torch.equal(turned.weight, plain.weight)
