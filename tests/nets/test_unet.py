"""U-Nets made from plans: beside dynamic-network-architectures, and against counts by hand.

``unet_golden.json`` comes from dynamic-network-architectures 0.4.4 (PlainConvUNet with these
plans in 3D, ResidualEncoderUNet in 2D; double precision, deep supervision on): names and shapes of
its tensors, each named once, and what it answers when tensors and images are ``waves``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medtool.core.plan import NetworkPlan
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.dropout import slice_keys
from medtool.nets.freezing import parameter_count
from medtool.nets.unet import UNet, build_unet

GOLDEN = json.loads(Path(__file__).with_name("unet_golden.json").read_text(encoding="utf-8"))

PLAIN = NetworkPlan(
    kind="plain",
    features=(4, 6, 8),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    encoder_blocks=(2, 1, 2),
    decoder_convolutions=(1, 2),
)
RESIDUAL = NetworkPlan(
    kind="residual",
    features=(4, 6, 6),
    kernel_sizes=((3, 3),) * 3,
    strides=((1, 1), (2, 2), (2, 1)),
    encoder_blocks=(1, 2, 2),
    decoder_convolutions=(1, 1),
)
PEERS = {"plain": (PLAIN, (1, 2, 4, 8, 8), 3), "residual": (RESIDUAL, (2, 1, 8, 8), 2)}


def waves(shape: tuple[int, ...], frequency: float, shift: float = 0.0) -> torch.Tensor:
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (count * frequency + shift).sin().reshape(shape)


def filled(network: UNet) -> UNet:
    """The network with every tensor a wave; scales of normalisations around 1."""
    network = network.double()
    for number, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        around = 1.0 if name.endswith("norm.weight") else 0.0
        tensor.copy_(0.5 * waves(tuple(tensor.shape), 0.7, number) + around)
    return network


@pytest.mark.parametrize("kind", PEERS)
def test_the_tensors_are_those_of_the_peer(kind: str) -> None:
    plan, shape, outputs = PEERS[kind]
    network = build_unet(plan, shape[1], outputs, deep_supervision=True)
    own = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert own == GOLDEN[kind]["shapes"]


@pytest.mark.parametrize("kind", PEERS)
def test_the_answers_are_those_of_the_peer(kind: str) -> None:
    plan, shape, outputs = PEERS[kind]
    network = filled(build_unet(plan, shape[1], outputs, deep_supervision=True))
    logits = network(waves(shape, 0.37))
    assert len(logits) == len(GOLDEN[kind]["outputs"])
    for found, wanted in zip(logits, GOLDEN[kind]["outputs"], strict=True):
        assert list(found.shape) == wanted["shape"]
        some = found.flatten()[:: found.numel() // 6][:6].tolist()
        assert some == pytest.approx(wanted["values"], abs=1e-7)
        assert found.abs().sum().item() == pytest.approx(wanted["sum_of_sizes"], rel=1e-8)


# nnU-Net's plans for CT of 40 x 224 x 224, one channel and three classes.
CT_PLAN = NetworkPlan(
    kind="plain",
    features=(32, 64, 128, 256, 320, 320),
    kernel_sizes=((1, 3, 3), *((3, 3, 3),) * 5),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    encoder_blocks=(2,) * 6,
    decoder_convolutions=(2,) * 5,
)
CT_RESIDUAL_PLAN = replace(
    CT_PLAN, kind="residual", encoder_blocks=(1, 3, 4, 6, 6, 6), decoder_convolutions=(1,) * 5
)


@pytest.mark.parametrize(
    ("plan", "wanted"), [(CT_PLAN, 30_704_303), (CT_RESIDUAL_PLAN, 101_858_479)]
)
def test_parameters_of_nnunets_networks(plan: NetworkPlan, wanted: int) -> None:
    with torch.device("meta"):
        network = build_unet(plan, 1, 3, deep_supervision=True)
    assert parameter_count(network) == wanted


def by_hand(channels: int, outputs: int) -> int:
    """Weights and biases of convolutions, scale and shift of batch norms, level by level."""
    widths = [channels, 64, 128, 256, 512, 1024]
    total = 0
    for incoming, width in zip(widths[:-1], widths[1:], strict=True):
        total += 9 * incoming * width + width + 9 * width * width + width + 4 * width
    for below, width in zip(widths[:1:-1], widths[-2:0:-1], strict=True):
        total += 4 * below * width + width
        total += 9 * 2 * width * width + width + 9 * width * width + width + 4 * width
    return total + 64 * outputs + outputs


@pytest.mark.parametrize(("channels", "outputs"), [(3, 1), (1, 1), (1, 4)])
def test_parameters_of_the_classic_unet(channels: int, outputs: int) -> None:
    with torch.device("meta"):
        network = build_unet(classic_plan(), channels, outputs, style=CLASSIC_STYLE)
    assert parameter_count(network) == by_hand(channels, outputs)
    if (channels, outputs) == (3, 1):
        assert parameter_count(network) == 31_043_521


def test_width_and_depth_of_the_classic_unet() -> None:
    assert classic_plan().features == (64, 128, 256, 512, 1024)
    narrow = classic_plan(first_features=6, levels=3)
    assert narrow.features == (6, 12, 24)
    assert build_unet(narrow, 1, 1, style=CLASSIC_STYLE).size_multiple == (4, 4)


SMALL_CLASSIC = replace(classic_plan(), features=(2, 3, 4, 5, 6))


def test_the_classic_unet_keeps_the_size_and_learns_everywhere() -> None:
    network = build_unet(SMALL_CLASSIC, 3, 1, style=CLASSIC_STYLE, attention_gates=True)
    assert network.size_multiple == (16, 16)
    logits = network(torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 1, 32, 48)
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_pooling_takes_the_largest_of_four() -> None:
    network = build_unet(SMALL_CLASSIC, 1, 1, style=CLASSIC_STYLE)
    stage: Any = network.encoder.stages
    assert stage[1].pool(torch.tensor([[[[1.0, 5.0], [2.0, 3.0]]]])).item() == 5.0


@pytest.mark.parametrize("plan", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_only_training_gives_every_resolution(plan: NetworkPlan) -> None:
    images = torch.rand(1, 1, *(8,) * plan.dimensions)
    deep = build_unet(plan, 1, 2, deep_supervision=True)
    plain = build_unet(plan, 1, 2, deep_supervision=False)
    assert [tuple(part.shape[2:]) for part in deep.train()(images)][0] == images.shape[2:]
    assert len(deep(images)) == 2
    assert isinstance(deep.eval()(images), torch.Tensor)
    assert isinstance(plain.train()(images), torch.Tensor)
    left_out = set(deep.state_dict()) - set(plain.state_dict())
    assert left_out == {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}
    plain.load_state_dict(
        {name: t for name, t in deep.state_dict().items() if name not in left_out}
    )
    assert torch.equal(plain.eval()(images), deep(images))


def test_the_encoder_ends_in_the_bottleneck() -> None:
    network = build_unet(CT_PLAN, 1, 3)
    skips = network.encoder(torch.zeros(1, 1, 40, 64, 64))
    assert skips[-1].shape == (1, 320, 5, 2, 2)
    assert len(skips) == 6


def test_a_new_residual_network_passes_on_what_comes_in() -> None:
    network = build_unet(RESIDUAL, 1, 2)
    (block,) = (stage.blocks[1] for stage in network.encoder.stages[1:2])
    maps = torch.rand(2, 6, 4, 4)
    assert torch.equal(block(maps), maps)


def test_attention_gates_by_hand() -> None:
    from medtool.nets.attention_gate import AttentionGate

    gate = AttentionGate(2, 3, (2, 2))
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.zero_()
        gate.gating.bias.fill_(2.0)
        gate.score.weight.fill_(1.5)
        gate.score.bias.fill_(-1.0)
    skip = torch.rand(1, 2, 4, 4)
    # relu(0 + 2) * 1.5 - 1 = 2 everywhere.
    wanted = skip * torch.sigmoid(torch.tensor(2.0))
    torch.testing.assert_close(gate(skip, torch.rand(1, 3, 2, 2)), wanted)


def test_gates_change_no_other_tensor() -> None:
    without = set(build_unet(PLAIN, 1, 2).state_dict())
    gated = set(build_unet(PLAIN, 1, 2, attention_gates=True).state_dict())
    assert without < gated
    assert {name.split(".")[1] for name in gated - without} == {"gates"}


@pytest.mark.parametrize("where", ["encoder_dropout", "decoder_dropout"])
def test_dropout_belongs_to_the_case_and_rests_in_evaluation(where: str) -> None:
    network = filled(build_unet(PLAIN, 1, 2, **{where: 0.5}))
    images = waves((3, 1, 4, 8, 8), 0.37)
    with pytest.raises(ValueError, match="keys"):
        network.train()(images)
    keys = slice_keys(0, 0, "case", [0, 1, 2])
    whole = network(images, keys)
    alone = torch.cat([network(images[n : n + 1], keys[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(whole, alone)
    other = network(images, slice_keys(0, 1, "case", [0, 1, 2]))
    assert not torch.allclose(whole, other)
    assert torch.equal(network.eval()(images), network(images, keys))
