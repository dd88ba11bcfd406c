"""The head of survival: any number of images stands for a patient, and sizes are in mL."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medtool.core.plan import NetworkPlan
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.dropout import slice_keys
from medtool.nets.encoders import PlainEncoder, divide_first_level
from medtool.nets.loss_weights import LossWeights
from medtool.nets.survival_head import Pooling, SurvivalHead
from medtool.nets.unet import build_unet

POOLINGS: tuple[Pooling, ...] = ("global", "lesion", "both")


def head(pooling: Pooling, **options: float) -> SurvivalHead:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SurvivalHead(6, [5], pooling=pooling, first_layer=9, **options)  # type: ignore[arg-type]


def looked(images: int, side: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of the bottleneck, probabilities and uptake of some images."""
    drawn = torch.Generator().manual_seed(1)
    maps = torch.rand(images, 6, side // 4, side // 4, generator=drawn)
    chances, uptake = torch.rand(2, images, 1, side, side, generator=drawn)
    return maps, chances, uptake


@pytest.mark.parametrize("pooling", POOLINGS)
def test_slices_one_by_one_are_the_volume_at_once(pooling: Pooling) -> None:
    """The mean of the rows of slices is the row of the stack as a volume of one voxel more."""
    made, (maps, chances, uptake) = head(pooling), looked(4)
    rows = made.rows(maps, chances, uptake).mean(0, keepdim=True)
    stacked = [values.transpose(0, 1)[None] for values in (maps, chances, uptake)]
    torch.testing.assert_close(rows, made.rows(*stacked))
    assert made.embedding(rows, torch.ones(1)).shape == (1, made.embedded)


def test_sizes_are_millilitres_and_uptake_times_them() -> None:
    made = head("lesion")
    chances = torch.zeros(1, 1, 8, 8)
    chances[..., :4, :4] = 1
    uptake = torch.full((1, 1, 8, 8), 3.0)
    maps = torch.zeros(1, 6, 2, 2)
    maps[..., 0, 0] = 2.0
    maps[..., 1, 1] = 7.0
    embedded = made.embedding(made.rows(maps, chances, uptake), torch.tensor([400.0]))
    # A quarter of 400 mL, at three SUV; of the features only those inside.
    assert embedded[0, -2:].tolist() == pytest.approx([math.log1p(100), math.log1p(300)])
    assert embedded[0, :6].tolist() == pytest.approx([2.0] * 6, rel=1e-4)


def test_outlines_learn_nothing_from_the_risk() -> None:
    made, (maps, chances, uptake) = head("both"), looked(2)
    chances.requires_grad_()
    maps.requires_grad_()
    made(made.embedding(made.rows(maps, chances, uptake), torch.ones(2))).sum().backward()
    assert chances.grad is None and maps.grad is not None


def test_numbers_with_a_meaning_have_a_short_way() -> None:
    made = head("lesion", covariates=2)
    assert made.short is not None and made.short.weight.shape == (1, 4)
    with torch.no_grad():
        for layer in made.layers:
            layer.weight.zero_()
            layer.bias.zero_()
        made.short.weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
        values = torch.arange(float(made.width))[None]
        last = [made.width - 4 + n for n in range(4)]
        assert float(made(values)) == sum(v * 10**n for n, v in enumerate(last))
    assert head("global").short is None


def test_its_dropout_is_drawn_by_keys() -> None:
    made = head("global", dropout=0.5).train()
    values = torch.rand(3, 6)
    keys = slice_keys(0, 0, "a", [0, 1, 2])
    assert torch.equal(made(values, keys), made(values, keys))
    assert torch.equal(made(values, keys)[[2, 0]], made(values[[2, 0]], keys[[2, 0]]))
    assert not torch.equal(made(values, keys), made(values, slice_keys(0, 1, "a", [0, 1, 2])))
    with pytest.raises(ValueError, match="keys"):
        made(values)


def test_weights_of_losses_are_kendalls() -> None:
    weights = LossWeights(2)
    with torch.no_grad():
        weights.log_variances.copy_(torch.tensor([0.0, math.log(4.0)]))
    losses = {0: torch.tensor(3.0), 1: torch.tensor(8.0)}
    assert float(weights(losses).detach()) == pytest.approx(3 + 8 / 4 + math.log(4) / 2)
    weights({1: losses[1]}).backward()
    assert weights.log_variances.grad is not None
    assert weights.log_variances.grad.tolist() == pytest.approx([0.0, -2 + 0.5])


def test_stems_see_their_own_channels_and_meet_after_the_first_level() -> None:
    plan = classic_plan(8, 3)
    unet = build_unet(plan, 4, 1, style=CLASSIC_STYLE)
    encoder = unet.encoder
    assert isinstance(encoder, PlainEncoder)
    divide_first_level(encoder, plan, 4, CLASSIC_STYLE, 2)
    unet.eval()
    images = torch.rand(1, 4, 8, 8)
    other = images.clone()
    other[:, 2:] += 1
    first, changed = (encoder(values)[0] for values in (images, other))
    assert first.shape == (1, 8, 8, 8)
    assert torch.equal(first[:, :4], changed[:, :4])
    assert not torch.equal(first[:, 4:], changed[:, 4:])
    assert unet(images).shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        divide_first_level(encoder, plan, 4, CLASSIC_STYLE, 3)


def test_a_volume_has_the_same_head() -> None:
    plan = NetworkPlan("residual", (4, 6), ((3, 3, 3),) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
    unet = build_unet(plan, 2, 1)
    images = torch.rand(1, 2, 4, 8, 8)
    skips = unet.encoder(images)
    rows = head("both").rows(skips[-1], unet.decoder(skips)[0].sigmoid(), images[:, :1])
    assert rows.shape == (1, 6 + 6 + 2)
