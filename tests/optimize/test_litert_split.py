"""Large layers split along their outputs: the same in float, with nothing left that is large."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medtool.core.errors import CheckpointError
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.unet import build_unet
from medtool.optimize.litert import traced
from medtool.optimize.litert_split import split_large, weighted_layers


def settled(network: nn.Module) -> nn.Module:
    """As if something had been learned: batch norms that change what passes."""
    torch.manual_seed(3)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "norm.bias")):
            value.normal_(0, 0.5)
        elif name.endswith(("running_var", "norm.weight")):
            value.uniform_(0.5, 2)
    return network.eval()


def test_a_unet_says_the_same_in_parts() -> None:
    network = settled(build_unet(classic_plan(4, 3), 1, 2, style=CLASSIC_STYLE))
    images = (torch.randn(1, 1, 16, 16),)
    # 16 x 16 x 3 x 3 weights are 9,216 bytes, 16 x 8 x 3 x 3 are 4,608; others at most 4,608.
    program, split = traced(_Tuple(network).eval(), images, 4700)
    assert split == {"encoder.stages.2.0.convs.1.conv": 2}
    whole, _ = traced(_Tuple(network).eval(), images, None)
    parts = [one for one in weighted_layers(program.module()) if one.name in split]
    assert [one.shape for one in parts] == [(8, 16, 3, 3), (8, 16, 3, 3)]
    assert len(weighted_layers(whole.module())) + 1 == len(weighted_layers(program.module()))
    for wanted, found in zip(network(*images), program.module()(*images)[0], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


class _Tuple(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.network(images),)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], list[tuple[int, ...]]]] = {
    # An output has 2 x 3 x 3 weights, 72 bytes: of 250 at most there are 3 together.
    "convolution without bias": (
        nn.Conv2d(2, 7, 3, bias=False),
        (1, 2, 6, 6),
        [(3, 2, 3, 3), (2, 2, 3, 3), (2, 2, 3, 3)],
    ),
    "transposed": (nn.ConvTranspose2d(5, 6, 2, 2), (1, 5, 3, 3), [(5, 3, 2, 2), (5, 3, 2, 2)]),
    "in three dimensions": (nn.Conv3d(2, 2, 3), (1, 2, 4, 4, 4), [(1, 2, 3, 3, 3)] * 2),
    "two axes go through whole": (nn.Linear(20, 10), (1, 20), [(10, 20)]),
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_kinds_of_layers(name: str) -> None:
    layer, shape, wanted = LAYERS[name]
    images = torch.randn(shape)
    graph = torch.export.export(layer.eval(), (images,)).module()
    split_large(graph, largest_bytes=250)
    assert [one.shape for one in weighted_layers(graph)] == wanted
    torch.testing.assert_close(graph(images), layer(images), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_batch_norm_behind_a_split_layer_is_inside_it() -> None:
    network = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.1, 3)
    network[1].weight.normal_()
    network[1].bias.normal_()
    images = torch.randn(1, 2, 6, 6)
    graph = torch.export.export(network.eval(), (images,)).module()
    assert split_large(graph, largest_bytes=400) == {"0": 2}
    kinds = [str(one.target).partition(".")[2].partition(".")[0] for one in graph.graph.nodes]
    # The activation too stands right behind each part.
    assert [kind for kind in kinds if kind in ("conv2d", "relu", "cat", "batch_norm")] == [
        *("conv2d", "relu") * 2,
        "cat",
    ]
    torch.testing.assert_close(graph(images), network(images), rtol=1e-5, atol=1e-6)


def test_a_network_of_volumes_is_refused_with_the_layer() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU()).eval()
    with pytest.raises(CheckpointError) as refused:
        traced(_Tuple(network).eval(), (torch.randn(1, 1, 4, 4, 4),), None)
    assert refused.value.met == "0: a convolution in three dimensions"


def test_a_large_layer_in_groups_is_named_and_refused() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2))
    graph = torch.export.export(network.eval(), (torch.randn(1, 4, 6, 6),)).module()
    with pytest.raises(CheckpointError) as refused:
        split_large(graph, largest_bytes=300)
    assert (refused.value.met or "").startswith("0: weights of")
