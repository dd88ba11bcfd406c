"""What a prognosis learns from: places, losses, risk sets; and that a step moves the weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prognosis import TinyStudies, tiny_settings, tiny_studies
from torch import Tensor

from medtool.core.checkpoint import read_header, rewrite_checkpoint, write_checkpoint
from medtool.core.records import Batch, ExampleKey
from medtool.nets.freezing import batch_norms, parameter_count
from medtool.tasks.prognosis_examples import StudyExamples
from medtool.tasks.prognosis_learning import study_facts, study_losses, summarise_studies
from medtool.tasks.prognosis_network import build_prognosis_network, network_groups
from medtool.tasks.prognosis_settings import PrognosisSettings
from medtool.train.devices import make_fabric
from medtool.train.live import Live
from medtool.train.loop import Job, StepDone, training_loop
from medtool.train.plan import make_plan
from medtool.train.state import restore, training_document, training_tensors


def batch_of(
    settings: PrognosisSettings, studies: TinyStudies, *, training: bool = True, epoch: int = 0
) -> Batch:
    examples = StudyExamples(settings, studies.cases, studies.paths, training=training)
    samples = [examples[ExampleKey(0, epoch, n)] for n in range(len(studies.cases))]
    return examples.collate(samples, studies.cases, 0, epoch)


def network_of(settings: PrognosisSettings) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_prognosis_network(settings)


def test_two_steps_learn_both_outlines_and_risks(tmp_path: Path) -> None:
    settings, studies = tiny_settings(), tiny_studies(tmp_path, 3)
    network = network_of(settings).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for epoch in range(2):
        found = study_losses(settings, network, batch_of(settings, studies, epoch=epoch))
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        losses.append({name: float(value.detach()) for name, value in found.items()})
    assert set(losses[0]) == {"loss", "loss_segmentation", "loss_survival"}
    assert losses[0]["loss"] == pytest.approx(
        0.6 * losses[0]["loss_segmentation"] + 0.4 * losses[0]["loss_survival"], rel=1e-5
    )
    assert losses[0] != losses[1]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    network.eval()
    with torch.no_grad():
        facts = [study_facts(settings, network, batch_of(settings, studies, training=False))]
    found = summarise_studies(settings, facts)
    assert found["dice_and_c_index"] == pytest.approx((found["dice"] + found["harrell_c"]) / 2)


def gradients(settings: PrognosisSettings, batch: Batch) -> dict[str, Any]:
    """In double precision, with dropout at work and batch norms in evaluation."""
    network = network_of(settings).double().train()
    for number, norm in enumerate(batch_norms(network)):
        norm.eval()
        norm.running_mean.fill_(0.01 * number)
        norm.running_var.fill_(1 + 0.05 * number)
    tensors = {
        name: value.double() if value.is_floating_point() else value
        for name, value in batch.tensors.items()
    }
    study_losses(settings, network, replace(batch, tensors=tensors))["loss"].backward()
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("pooling", ["global", "both"])
def test_one_patient_at_a_time_gives_the_gradient_of_all_at_once(
    tmp_path: Path, pooling: str
) -> None:
    studies = tiny_studies(tmp_path, 6, mask=[2], outcome=[4])
    model = {"pooling": pooling}
    batch = batch_of(tiny_settings(model=model), studies)
    cached, whole = (
        gradients(tiny_settings(model=model, train={"risk_sets": kind}), batch)
        for kind in ("cached", "batch")
    )
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    assert largest > 1e-3, "there is something to compare"
    for name, wanted in whole.items():
        torch.testing.assert_close(cached[name], wanted, rtol=0, atol=1e-5 * largest)


def test_one_patient_at_a_time_stands_in_memory(tmp_path: Path) -> None:
    """What autograd keeps of the first look are the images; the maps of one patient come back."""
    studies = tiny_studies(tmp_path, 6)
    kept = {}
    for kind in ("cached", "batch"):
        settings = tiny_settings(train={"risk_sets": kind})
        network, batch = network_of(settings).train(), batch_of(settings, studies)
        held: list[int] = []

        def pack(tensor: Tensor, held: list[int] = held) -> Tensor:
            held.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            study_losses(settings, network, batch)
        kept[kind] = sum(held)
    assert kept["cached"] < kept["batch"] / 20


def test_a_second_look_moves_no_statistics(tmp_path: Path) -> None:
    settings = tiny_settings(train={"risk_sets": "cached"})
    studies = tiny_studies(tmp_path, 3)
    network, batch = network_of(settings).train(), batch_of(settings, studies)
    loss = study_losses(settings, network, batch)["loss"]
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    loss.backward()
    for name, tensor in network.named_buffers():
        assert torch.equal(tensor, before[name]), name
    assert all(norm.momentum == 0.1 for norm in batch_norms(network))
    assert int(next(iter(batch_norms(network))).num_batches_tracked) == 3


def test_without_mask_survival_alone_without_outcome_outlines_alone(tmp_path: Path) -> None:
    settings = tiny_settings()
    studies = tiny_studies(tmp_path, 4, mask=[0], outcome=[1])
    network = network_of(settings).train()
    batch = batch_of(settings, studies)
    found = {k: float(v.detach()) for k, v in study_losses(settings, network, batch).items()}

    def only(*numbers: int) -> dict[str, float]:
        some = TinyStudies(tuple(studies.cases[n] for n in numbers), studies.paths, {})
        losses = study_losses(settings, network_of(settings).train(), batch_of(settings, some))
        return {name: float(value.detach()) for name, value in losses.items()}

    # Keys of dropout and places are those of the case, whoever stands beside it.
    assert found["loss_segmentation"] == pytest.approx(only(1, 2, 3)["loss_segmentation"], rel=1e-4)
    assert found["loss_survival"] == pytest.approx(only(0, 2, 3)["loss_survival"], rel=1e-4)


def test_a_step_without_any_event_learns_outlines_alone(tmp_path: Path) -> None:
    settings, studies = tiny_settings(), tiny_studies(tmp_path, 2)
    censored = [replace(c, outcome=replace(c.outcome, event=False)) for c in studies.cases]
    network = network_of(settings).train()
    batch = batch_of(settings, replace(studies, cases=tuple(censored)))
    found = study_losses(settings, network, batch)
    assert float(found["loss_survival"]) == 0
    found["loss"].backward()
    assert all(float(p.grad.abs().max()) == 0 for p in network.head.parameters())
    assert float(next(network.decoder.parameters()).grad.abs().max()) > 0


def test_nobody_known_gives_a_loss_of_nothing(tmp_path: Path) -> None:
    for weighting in ("fixed", "learned"):
        settings = tiny_settings(train={"weighting": weighting})
        studies = tiny_studies(tmp_path, 2, mask=[0, 1], outcome=[0, 1])
        found = study_losses(settings, network_of(settings).train(), batch_of(settings, studies))
        assert float(found["loss"].detach()) == 0


def test_strata_keep_risk_sets_apart(tmp_path: Path) -> None:
    settings, studies = tiny_settings(train={"risk_sets": "batch"}), tiny_studies(tmp_path, 4)
    named = [
        replace(case, outcome=replace(case.outcome, stratum="ab"[number // 2]))
        for number, case in enumerate(studies.cases)
    ]
    network, found = network_of(settings).eval(), []
    for cases in (named, named[:2], named[2:]):
        batch = batch_of(settings, replace(studies, cases=tuple(cases)))
        with torch.no_grad():
            found.append(float(study_losses(settings, network, batch)["loss_survival"]))
    # One event in each stratum: the loss of both is the mean of theirs.
    assert found[0] == pytest.approx((found[1] + found[2]) / 2, rel=1e-5)


def test_learned_weights_move_and_are_a_group_of_their_own(tmp_path: Path) -> None:
    settings = tiny_settings(train={"weighting": "learned"})
    network, studies = network_of(settings).train(), tiny_studies(tmp_path, 3)
    found = study_losses(settings, network, batch_of(settings, studies))
    # All begin at weight 1.
    assert float(found["loss"].detach()) == pytest.approx(
        float(found["loss_segmentation"] + found["loss_survival"]), rel=1e-5
    )
    found["loss"].backward()
    wanted = [0.5 - float(found[f"loss_{name}"]) for name in ("segmentation", "survival")]
    assert network.weights.log_variances.grad.tolist() == pytest.approx(wanted, rel=1e-4)
    groups = network_groups(network)
    assert list(groups) == ["encoder", "decoder", "survival", "weighting"]
    assert sum(parameter_count(group) for group in groups.values()) == parameter_count(network)


def test_objectives_alone_leave_the_rest_of_the_network(tmp_path: Path) -> None:
    studies = tiny_studies(tmp_path, 3)
    for objectives, silent in (("segmentation", "head"), ("survival", "decoder")):
        settings = tiny_settings(train={"objectives": objectives})
        network = network_of(settings).train()
        found = study_losses(settings, network, batch_of(settings, studies))
        assert set(found) == {"loss", f"loss_{objectives}"}
        found["loss"].backward()
        untouched = getattr(network, silent).parameters()
        assert all(p.grad is None or not p.grad.any() for p in untouched)
        assert next(network.encoder.parameters()).grad.any()


def test_the_memory_lengthens_risk_sets_and_is_called_approximate(tmp_path: Path) -> None:
    settings = tiny_settings(train={"risk_sets": "memory"})
    network, studies = network_of(settings).train(), tiny_studies(tmp_path, 4)
    pairs = [replace(studies, cases=studies.cases[n : n + 2]) for n in (0, 2)]
    numbers = [batch_of(settings, studies).tensors["patients"][n : n + 2] for n in (0, 2)]
    losses = []
    for pair, own in zip(pairs, numbers, strict=True):
        batch = batch_of(settings, pair)
        batch = replace(batch, tensors={**batch.tensors, "patients": own})
        losses.append(float(study_losses(settings, network, batch)["loss_survival"]))
    remembered = network.memory.recall(torch.tensor([-1]), 0)
    assert sorted(remembered.outcomes.times.tolist()) == [700, 800, 900, 1000]
    assert "approximate" in network.memory.label
    alone = study_losses(settings, network_of(settings).train(), batch_of(settings, pairs[1]))
    # Of the second pair nobody outlives the event: without those before there is nothing to learn.
    assert float(alone["loss_survival"]) == 0 and losses[1] > 0.1


def test_a_training_with_memory_resumes_and_gives_no_patient_away(tmp_path: Path) -> None:
    """The slim checkpoint holds no time of anybody; the whole one goes on as if never stopped."""
    settings = tiny_settings(train={"risk_sets": "memory", "batch_cases": 2, "epochs": 2})
    studies = tiny_studies(tmp_path, 4)
    task: Any = StudyTask(settings)
    fabric = make_fabric("cpu", precision="32")
    job = Job(task, fabric, studies.cases, studies.cases[:2], studies.paths)

    def live() -> Live:
        network = network_of(settings)
        groups = network_groups(network)
        plan = make_plan(settings.train, list(groups), cases=len(studies.cases))
        return Live(network, groups, settings.train, plan)

    whole, half = live(), live()
    for _ in training_loop(job, whole):
        pass
    for fact in training_loop(job, half):
        if isinstance(fact, StepDone) and fact.epoch == 0:
            break
    path = tmp_path / "half.safetensors"
    write_checkpoint(path, training_document(half), training_tensors(half))
    again = live()
    restore(path, again)
    for _ in training_loop(job, again):
        pass
    for (name, one), (_, other) in zip(
        whole.network.named_buffers(), again.network.named_buffers(), strict=True
    ):
        assert torch.equal(one, other), name
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert any("memory.times" in name for name in read_header(path).tensors)
    slim = tmp_path / "slim.safetensors"
    rewrite_checkpoint(path, slim, {}, slim=True)
    assert not any("memory" in name for name in read_header(slim).tensors)


class StudyTask:
    """What the loop asks of a task."""

    def __init__(self, settings: PrognosisSettings) -> None:
        self.settings = settings

    def examples(self, cases: Any, prepared: Any, *, training: bool) -> StudyExamples:
        return StudyExamples(self.settings, cases, prepared, training=training)

    def losses(self, network: Any, batch: Batch) -> dict[str, Tensor]:
        return study_losses(self.settings, network, batch)

    def validate(self, network: Any, batch: Batch) -> dict[str, Any]:
        return study_facts(self.settings, network, batch)

    def summarise(self, facts: Any) -> dict[str, float]:
        return summarise_studies(self.settings, facts)


def test_what_an_epoch_says(tmp_path: Path) -> None:
    """Counted by hand: pooled Dice over cases with mask, C over first cases with outcome."""
    settings = tiny_settings()
    facts = [
        {
            "case": ["a", "b", "c", "d"],
            "patient": ["p", "q", "r", "p"],
            "loss": [0.5, math.nan, 0.7, 0.6],
            "right": [[3], [0], [1], [0]],
            "false": [[1], [0], [2], [0]],
            "missed": [[0], [0], [1], [4]],
            "risk": [2.0, 1.0, 0.0, 9.0],
            "time_days": [10.0, 20.0, 30.0, 1.0],
            "event": [1.0, 1.0, math.nan, 0.0],
        }
    ]
    found = summarise_studies(settings, facts)
    assert found["dice"] == pytest.approx(2 * 4 / (2 * 4 + 3 + 5))
    # The second case of p says nothing, r has no outcome: p before q, and at the higher risk.
    assert found["harrell_c"] == 1.0
    assert found["dice_and_c_index"] == pytest.approx((0.5 + 1) / 2)
    cox = -(2 - np.log(np.exp(2) + np.exp(1))) / 2
    assert found["loss_survival"] == pytest.approx(cox)
    assert found["loss"] == pytest.approx(0.6 * 0.6 + 0.4 * cox)
    blind = [{**facts[0], "loss": [math.nan] * 4}]
    assert summarise_studies(settings, blind)["dice_and_c_index"] == 1.0
    unfollowed = [{**facts[0], "event": [math.nan] * 4}]
    assert summarise_studies(settings, unfollowed)["dice_and_c_index"] == pytest.approx(0.5)
