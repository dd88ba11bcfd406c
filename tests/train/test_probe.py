"""The probe: a stored answer that other machines must reproduce."""

from pathlib import Path

import pytest
import torch
from torch import nn

from medtool.core.checkpoint import write_checkpoint
from medtool.core.records import DeploymentSpec
from medtool.train.probe import (
    TOLERANCE_FLOAT32,
    TOLERANCE_REDUCED,
    ProbeResult,
    answer,
    check_probe,
    has_probe,
    make_probe,
    probe_inputs,
)

SPEC = DeploymentSpec({"image": (2, 3)}, ("score",))


def linear(bias: float = 0.0) -> nn.Linear:
    network = nn.Linear(3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[100.0, -200.0, 50.0]]))
        network.bias.fill_(bias)
    return network


def checkpoint(folder: Path, network: nn.Module) -> Path:
    path = folder / "probe.safetensors"
    write_checkpoint(path, {}, list(make_probe(network, SPEC)))
    return path


def test_inputs_are_the_same_everywhere_and_differ_by_name() -> None:
    first, again = probe_inputs(SPEC)["image"], probe_inputs(SPEC)["image"]
    other = probe_inputs(DeploymentSpec({"mask": (2, 3)}, ("score",)))["mask"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == ((2, 3), torch.float32)


def test_the_network_that_wrote_it_reproduces_it(tmp_path: Path) -> None:
    result = check_probe(checkpoint(tmp_path, linear()), linear(), SPEC)
    assert (result.largest_difference, result.passed) == (0.0, True)
    assert result.tolerance == TOLERANCE_FLOAT32 == 1e-4


def test_the_difference_is_a_share_of_the_range_of_the_answer(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, linear())
    stored = answer(linear(), probe_inputs(SPEC), SPEC)["score"]
    size = max(float(stored.max() - stored.min()), float(stored.abs().max()), 1.0)
    for bias, tolerated, reduced in (
        (0.5e-4 * size, True, False),
        (3e-4 * size, False, False),
        (0.5e-2 * size, True, True),
        (3e-2 * size, False, True),
    ):
        result = check_probe(path, linear(bias), SPEC, reduced=reduced)
        assert result.share == pytest.approx(bias / size, rel=0.1)
        assert result.passed is tolerated, (bias, reduced)


def test_tolerances_are_those_of_the_promise() -> None:
    assert (TOLERANCE_FLOAT32, TOLERANCE_REDUCED) == (1e-4, 1e-2)
    assert ProbeResult(1e-4, 1.0, 1e-4).passed
    assert not ProbeResult(1.1e-4, 1.0, 1e-4).passed
    # What is no number is never a pass.
    assert not ProbeResult(float("nan"), 1.0, 1e-2).passed


def test_dropout_is_off_and_the_mode_comes_back(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Dropout(0.5), linear())
    network.train()
    network[0].eval()
    first, again = (answer(network, probe_inputs(SPEC), SPEC)["score"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, answer(linear(), probe_inputs(SPEC), SPEC)["score"])
    assert (network.training, network[0].training, network[1].training) == (True, False, True)


class TwoAnswers(nn.Module):
    """Answers with a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.part = linear()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The answer and its negative."""
        return self.part(image), -self.part(image)


def test_outputs_are_told_apart_by_name(tmp_path: Path) -> None:
    spec = DeploymentSpec({"image": (2, 3)}, ("up", "down"))
    found = answer(TwoAnswers(), probe_inputs(spec), spec)
    assert torch.equal(found["up"], -found["down"])
    assert {tensor.name for tensor in make_probe(TwoAnswers(), spec)} == {
        "probe.input.image",
        "probe.output.up",
        "probe.output.down",
    }


def test_a_checkpoint_without_a_probe_is_known() -> None:
    assert has_probe({"model.w": 0, "probe.output.score": 0})
    assert not has_probe({"model.w": 0, "probe.input.image": 0})
