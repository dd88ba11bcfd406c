"""Parts of U-Nets beside torch's own."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from medtool.core.plan import NetworkPlan
from medtool.nets import convolutions
from medtool.nets.convolutions import (
    CONVOLUTIONS,
    NNUNET_STYLE,
    Convolution3d,
    ConvolutionStack,
    InstanceNorm,
)
from medtool.nets.unet import build_unet


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_the_instance_norm_is_torchs_and_keeps_the_order_of_a_lone_image(
    count: int, order: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours, theirs = InstanceNorm(6, epsilon=1e-5), nn.InstanceNorm3d(6, affine=True)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data = own.data = torch.randn(6)
    # A mean that is large beside the deviation, as of maps of an image without contrast.
    maps = (torch.randn(count, 6, 5, 7, 9) + 30).contiguous(memory_format=order)
    with torch.inference_mode():
        normed = ours(maps)
        torch.testing.assert_close(normed, theirs(maps), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-5, atol=1e-5)
    if count == 1:
        assert normed.is_contiguous(memory_format=order)


def test_moments_part_by_part_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "VALUES_AT_A_TIME", 21)
    rng = np.random.default_rng(0)
    # A drift along the rows: parts differ in their means.
    rows = (rng.normal(size=(100, 3)) + np.linspace(50, 60, 100)[:, None]).astype(np.float32)
    mean, variance = convolutions.mean_and_variance(torch.from_numpy(rows))
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance.numpy(), exact.var(0), rtol=1e-5)


def test_sixteen_bits_are_normed_in_their_order() -> None:
    torch.manual_seed(0)
    norm = InstanceNorm(4, epsilon=1e-5)
    maps = torch.randn(1, 4, 6, 6, 6).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        normed = norm(maps.bfloat16())
        assert normed.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(normed.float(), norm(maps), rtol=0, atol=0.05)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_maps_of_two_levels_need_not_be_brought_together(dimensions: int) -> None:
    torch.manual_seed(0)
    stack = ConvolutionStack(12, 4, count=2, kernel=(3,) * dimensions, style=NNUNET_STYLE).double()
    below = torch.randn(2, 5, *(6,) * dimensions, dtype=torch.float64)
    beside = torch.randn(2, 7, *(6,) * dimensions, dtype=torch.float64)
    together = stack(torch.cat((below, beside), 1))
    torch.testing.assert_close(stack.of_both(below, beside), together, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "order"),
    [
        (1, 1, 1, torch.contiguous_format),
        (1, 1, 1, torch.channels_last_3d),
        ((1, 2, 2), (0, 1, 1), 2, torch.contiguous_format),
        (2, "valid", 1, torch.contiguous_format),
    ],
)
def test_a_lone_volume_is_convolved_as_by_torch(
    stride: int | tuple[int, ...],
    padding: int | str | tuple[int, ...],
    groups: int,
    order: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    ours, theirs = (
        kind(4, 6, 3, stride=stride, padding=padding, groups=groups)
        for kind in (Convolution3d, nn.Conv3d)
    )
    theirs.load_state_dict(ours.state_dict())
    maps = torch.randn(1, 4, 7, 9, 11).contiguous(memory_format=order)
    with torch.inference_mode():
        torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-5, atol=1e-5)
    assert torch.equal(ours(maps), theirs(maps))
    assert torch.equal(ours.double()(maps.double()), theirs.double()(maps.double()))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_no_small_window_is_left_to_the_slow_routine(kind: Literal["plain", "residual"]) -> None:
    plan = NetworkPlan(
        kind=kind,
        features=(4, 8, 8),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        encoder_blocks=(2, 2, 2),
        decoder_convolutions=(2, 2),
    )
    network = build_unet(plan, 1, 3, attention_gates=True).eval()
    with torch.inference_mode(), torch.profiler.profile() as profile:
        network(torch.randn(1, 1, 16, 16, 16))
    names = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in names
    assert "aten::slow_conv3d_forward" not in names


def test_a_compiled_network_is_not_cut_at_its_convolutions() -> None:
    """torch.compile ends its graph at what it cannot follow, and compiles each part anew."""
    layers = nn.Sequential(*(CONVOLUTIONS[3](1 + k, 2 + k, 3, padding=1) for k in range(3)))
    torch._dynamo.reset()
    with torch.no_grad():
        told = torch._dynamo.explain(layers)(torch.zeros(1, 1, 8, 8, 8))
    assert (told.graph_count, told.graph_break_count) == (1, 0)
