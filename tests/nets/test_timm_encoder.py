"""timm's models as encoders: sizes, gradients, and models that cannot be one."""

from __future__ import annotations

import pytest
import torch

from medtool.core.errors import UnknownNameError, UsageError
from medtool.nets.timm_encoder import build_timm_unet


@pytest.mark.parametrize(
    ("name", "features", "multiple"),
    [
        # From the papers: a stem of 64 at half the size, then the stages.
        ("resnet18", (8, 64, 64, 128, 256, 512), 32),
        # Patches of 4 x 4 first, so one step of 4.
        ("convnext_atto", (8, 40, 80, 160, 320), 32),
    ],
)
def test_a_model_becomes_an_encoder(name: str, features: tuple[int, ...], multiple: int) -> None:
    network = build_timm_unet(name, 1, 2, first_features=8, deep_supervision=True)
    assert network.encoder.features == features
    assert network.size_multiple == (multiple, multiple)
    logits = network.train()(torch.rand(2, 1, 64, 96))
    assert logits[0].shape == (2, 2, 64, 96)
    assert len(logits) == len(features) - 1
    sum(part.square().mean() for part in logits).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.eval()(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_gates_on_a_timm_encoder() -> None:
    network = build_timm_unet("resnet18", 3, 1, first_features=4, attention_gates=True).eval()
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_an_unknown_model() -> None:
    with pytest.raises(UnknownNameError, match="resnet") as caught:
        build_timm_unet("resnet1818", 1, 1)
    assert caught.value.where == "model.encoder"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vgg11"])
def test_a_model_without_falling_maps_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="encoder of a U-Net"):
        build_timm_unet(name, 1, 1)
