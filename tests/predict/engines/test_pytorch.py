"""PyTorch as an engine: the same network in float32, in bfloat16 and as others run it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from medtool.core.records import DeploymentSpec
from medtool.predict.engines.pytorch import PyTorchEngine

SPEC = DeploymentSpec(inputs={"image": (1, 1, 8, 8)}, outputs=("logits", "largest"))


class TwoLayers(nn.Module):
    """Two convolutions, and the largest of what they say."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.second(torch.relu(self.first(image)))
        return maps, maps.amax((1, 2, 3))


def rounded(values: torch.Tensor) -> np.ndarray:
    """Values as bfloat16 keeps them: the upper half of a float32, rounded to even."""
    bits = values.detach().numpy().view(np.uint32).astype(np.uint64)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return kept.astype(np.uint32).view(np.float32)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32() -> None:
    module = TwoLayers()
    image = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    exact = PyTorchEngine(module, SPEC).run({"image": image})
    engine = PyTorchEngine(module, SPEC, bfloat16=True)
    assert engine.arithmetic == "bfloat16"
    found = engine.run({"image": image})
    for name in SPEC.outputs:
        assert (found[name].dtype, found[name].shape) == (np.float32, exact[name].shape)
    # Every value is one that bfloat16 has, and within its rounding (2 ** -8) of the exact one.
    assert np.array_equal(found["logits"], rounded(torch.from_numpy(found["logits"])))
    size = np.abs(exact["logits"]).max()
    difference = np.abs(found["logits"] - exact["logits"]).max()
    assert 0 < difference < 4 * 2**-8 * size
    assert not np.array_equal(exact["logits"], rounded(torch.from_numpy(exact["logits"])))


def test_outputs_that_are_asked_for_come_alone() -> None:
    image = np.ones((2, 1, 8, 8), np.float32)
    module = TwoLayers()
    engine = PyTorchEngine(module, SPEC)
    (largest,) = engine.run({"image": image}, ["largest"]).items()
    with torch.no_grad():
        wanted = module.second(torch.relu(module.first(torch.ones(2, 1, 8, 8)))).amax((1, 2, 3))
    assert largest[0] == "largest"
    np.testing.assert_allclose(largest[1], wanted.numpy(), rtol=1e-6)
