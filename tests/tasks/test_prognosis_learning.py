"""What a prognosis learns from: places, losses, risk sets; and that a step moves the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_prognosis import TinyStudies, tiny_settings, tiny_studies

from medtool.core.records import Batch, ExampleKey
from medtool.tasks.prognosis_examples import StudyExamples
from medtool.tasks.prognosis_learning import study_facts, study_losses, summarise_studies
from medtool.tasks.prognosis_network import build_prognosis_network
from medtool.tasks.prognosis_settings import PrognosisSettings


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
