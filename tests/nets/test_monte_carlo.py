"""Sharing what passes have in common changes nothing but the price."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from medtool.core.plan import NetworkPlan
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE, NNUNET_STYLE
from medtool.nets.dropout import slice_keys
from medtool.nets.monte_carlo import (
    SharedPass,
    dropout_at_work,
    pass_keys,
)
from medtool.nets.unet import UNet, build_unet

PASSES = 30
VOLUME = NetworkPlan(
    kind="residual",
    features=(4, 6, 8),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    encoder_blocks=(1, 1, 1),
    decoder_convolutions=(2, 1),
)


def flat(shares: list[float], **options: bool) -> UNet:
    """Four levels of decoder; its batch norms have statistics and weights of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_unet(
            classic_plan(4), 2, 3, style=CLASSIC_STYLE, decoder_dropout=shares, **options
        )
        network.train()
        with dropout_at_work(network), torch.no_grad():
            for name, tensor in network.state_dict().items():
                if name.endswith(("running_mean", "norm.bias")):
                    tensor.normal_(0, 0.1)
                if name.endswith(("running_var", "norm.weight")):
                    tensor.uniform_(0.5, 1.5)
    return network


def images() -> Tensor:
    return torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(1))


def keys_of_passes(count: int) -> list[Tensor]:
    return [pass_keys(7, "case", [3, 4], number) for number in range(count)]


@torch.no_grad()
def passes_of(network: UNet, maps: Tensor, keys: Iterable[Tensor]) -> list[Tensor]:
    with dropout_at_work(network):
        shared = SharedPass(network, maps)
        return [shared.logits(of_pass) for of_pass in keys]


@pytest.mark.parametrize("shares", [[0, 0.4, 0, 0], [0, 0, 0.4, 0], [0, 0.3, 0.2, 0.5]])
@pytest.mark.parametrize("options", [{}, {"attention_gates": True}, {"deep_supervision": True}])
def test_shared_passes_are_whole_passes(shares, options) -> None:
    network, keys = flat(shares, **options), keys_of_passes(4)
    found = passes_of(network, images(), keys)
    with dropout_at_work(network), torch.no_grad():
        wanted = [network(images(), of_pass) for of_pass in keys]
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (2, 3, 32, 32)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_volumes_too() -> None:
    network = build_unet(VOLUME, 1, 2, style=NNUNET_STYLE, decoder_dropout=[0.5, 0]).double()
    maps = torch.randn(1, 1, 2, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    (found,) = passes_of(network, maps, [pass_keys(0, "case", [0], 0)])
    with dropout_at_work(network), torch.no_grad():
        torch.testing.assert_close(found, network(maps, pass_keys(0, "case", [0], 0)))


def test_a_pass_repeats_itself_and_no_other() -> None:
    network = flat([0, 0.4, 0, 0])
    first = passes_of(network, images(), keys_of_passes(3))
    again = passes_of(network, images(), reversed(keys_of_passes(3)))
    for one, other in zip(first, reversed(again), strict=True):
        assert torch.equal(one, other)
    training = slice_keys(7, 0, "case", [3, 4])
    assert not any(torch.isin(keys, training).any() for keys in keys_of_passes(30))
    assert len(torch.cat(keys_of_passes(30)).unique()) == 60


def test_only_dropout_trains_and_only_meanwhile() -> None:
    network = flat([0, 0.4, 0, 0])
    network.encoder.eval()
    before = {name: module.training for name, module in network.named_modules()}
    statistics = {name: tensor.clone() for name, tensor in network.named_buffers()}
    with dropout_at_work(network):
        assert not network.training
        assert any(module.training for module in network.modules())
        passes_of(network, images(), keys_of_passes(2))
    assert {name: module.training for name, module in network.named_modules()} == before
    for name, tensor in network.named_buffers():
        assert torch.equal(tensor, statistics[name])


@pytest.mark.parametrize(
    ("shares", "most"),
    # Of thirty whole passes. Without what the encoder's maps are convolved to once, dropout after
    # two or three of four levels would leave 0.35 and 0.19.
    [([0, 0.3, 0, 0], 0.25), ([0, 0, 0.3, 0], 0.15)],
)
def test_the_arithmetic_of_thirty_passes(shares, most) -> None:
    """Counted, not timed, for the features of the usual network, on images that cost nothing."""
    with torch.device("meta"):
        network = build_unet(classic_plan(), 2, 1, style=CLASSIC_STYLE, decoder_dropout=shares)
        maps = torch.zeros(1, 2, 256, 256)
        keys = torch.zeros(1, dtype=torch.int64)
    with dropout_at_work(network), torch.no_grad():
        counted = []
        with FlopCounterMode(display=False) as counter:
            network(maps, keys)
        counted.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            shared = SharedPass(network, maps)
        counted.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            shared.logits(keys)
        counted.append(counter.get_total_flops())
    whole, once, each = counted
    assert (once + PASSES * each) / (PASSES * whole) < most


def test_what_cannot_be_shared_is_refused() -> None:
    network = build_unet(classic_plan(4), 2, 1, style=CLASSIC_STYLE, encoder_dropout=0.2)
    with pytest.raises(ValueError, match="encoder drops"):
        passes_of(network, images(), keys_of_passes(1))
    with pytest.raises(ValueError, match="every pass would be the same"):
        passes_of(flat([0, 0, 0, 0]), images(), keys_of_passes(1))


def test_there_is_one_share_a_level() -> None:
    with pytest.raises(ValueError, match="argument 3"):
        flat([0.1, 0.2])
