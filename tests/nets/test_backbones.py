"""Backbones by name: parts that cover them, steps that are them, the stem for one channel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medtool.core.errors import UnknownNameError
from medtool.nets.backbones import (
    backbone_features,
    backbone_parts,
    backbone_steps,
    create_backbone,
    frozen_steps,
    run_steps,
    summed_stem,
)
from medtool.nets.freezing import (
    batch_norms,
    keep_frozen_statistics,
    parameter_count,
    set_learning,
)

STAGES_4 = ["stem", "layer1", "layer2", "layer3", "layer4"]
FAMILIES = [
    ("resnet10t", STAGES_4),
    ("resnet18", STAGES_4),
    ("convnext_atto", [*STAGES_4, "neck"]),
    ("densenet121", [*STAGES_4, "neck"]),
    ("regnetx_002", STAGES_4),
    ("mobilenetv3_small_050", ["stem", *(f"layer{n}" for n in range(1, 7)), "neck"]),
    ("efficientnet_b0", ["stem", *(f"layer{n}" for n in range(1, 8)), "neck"]),
    ("vit_tiny_patch16_224", ["stem", *(f"layer{n}" for n in range(1, 13)), "neck"]),
]


@pytest.mark.parametrize(("name", "parts"), FAMILIES)
def test_parts_cover_the_backbone_once_and_steps_are_it(name: str, parts: list[str]) -> None:
    model = create_backbone(name, channels=1, size_px=64).eval()
    named = backbone_parts(model)
    assert list(named) == parts
    counted = [id(p) for modules in named.values() for m in modules for p in m.parameters()]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        features = model(image)
        assert torch.equal(run_steps(backbone_steps(model), image), features)
    assert features.shape == (2, backbone_features(model))


def test_the_parameters_of_a_resnet_50_part_by_part() -> None:
    parts = backbone_parts(create_backbone("resnet50", channels=1))
    assert {name: parameter_count(modules) for name, modules in parts.items()} == {
        "stem": 9_536 - 6_272,
        "layer1": 215_808,
        "layer2": 1_219_584,
        "layer3": 7_098_368,
        "layer4": 14_964_736,
    }
    three = create_backbone("resnet50", channels=3)
    assert parameter_count(three) == 23_508_032


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_backbone("resnet_50", channels=1)
    assert "resnet" in caught.value.nearest


def test_a_summed_stem_sees_grey_as_the_three_channels_did() -> None:
    torch.manual_seed(0)
    three = create_backbone("resnet18", channels=3).eval()
    one = create_backbone("resnet18", channels=1).eval()
    state = dict(three.state_dict())
    state["conv1.weight"] = summed_stem(state["conv1.weight"], 1)
    one.load_state_dict(state)
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        assert (three(image.repeat(1, 3, 1, 1)) - one(image)).abs().max() < 1e-4


def tiny() -> tuple[nn.Module, dict[str, list[nn.Module]]]:
    model = create_backbone("resnet10t", channels=1)
    return model, backbone_parts(model)


@pytest.mark.parametrize(
    ("learning", "frozen"), [([], 6), (["layer4"], 4), (["layer3"], 3), (["stem"], 0)]
)
def test_the_frozen_beginning(learning: list[str], frozen: int) -> None:
    model, parts = tiny()
    set_learning(parts, learning)
    assert frozen_steps(backbone_steps(model)) == frozen


def test_frozen_parts_keep_their_batch_norm_statistics() -> None:
    torch.manual_seed(0)
    model, parts = tiny()
    set_learning(parts, ["layer4"])
    model.train()
    keep_frozen_statistics(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model(torch.randn(4, 1, 32, 32) + 3).sum().backward()
        optimiser.step()
    changed = {
        n.split(".")[0] for n, t in model.state_dict().items() if not torch.equal(t, before[n])
    }
    assert changed == {"layer4"}
    norms = [name for name, _ in model.named_modules() if name.startswith("layer4")]
    assert norms
    moved = [n for n in before if n.startswith("layer4") and n.endswith("running_mean")]
    assert all(not torch.equal(model.state_dict()[n], before[n]) for n in moved)


def test_without_it_statistics_would_move() -> None:
    # What the test above guards against: frozen parameters, but averages that go on.
    model, parts = tiny()
    set_learning(parts, [])
    model.train()
    before = model.bn1.running_mean.clone()
    model(torch.randn(4, 1, 32, 32) + 3)
    assert not torch.equal(model.bn1.running_mean, before)
    assert len(batch_norms(model)) > 10
