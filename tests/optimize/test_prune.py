"""Channels out of networks of every family: what belongs together leaves together."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medtool.core.errors import UsageError
from medtool.core.plan import NetworkPlan
from medtool.nets.classic_unet import classic_plan
from medtool.nets.classification import Classifier, build_classifying_unet
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.encoders import divide_first_level
from medtool.nets.survival_head import SurvivalHead
from medtool.nets.timm_encoder import build_timm_unet
from medtool.nets.unet import build_unet
from medtool.nets.widths import changed_widths, narrow, widths
from medtool.optimize.prune import (
    kept_width,
    output_layers,
    prune_channels,
    silenced,
    traced_outputs,
)
from medtool.tasks.bag_network import build_network
from medtool.tasks.bag_settings import BagModelSection
from medtool.tasks.prognosis_network import PrognosisNetwork

PLAN_3D = NetworkPlan(
    kind="residual",
    features=(8, 12, 16),
    kernel_sizes=((3, 3, 3),) * 3,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    encoder_blocks=(1, 2, 2),
    decoder_convolutions=(1, 1),
)
MASKS = Classifier(classes=3, masks=((1,),), decoder_levels=1)


def classic(**options: Any) -> nn.Module:
    return build_unet(classic_plan(8, 4), 3, 1, style=CLASSIC_STYLE, **options)


def prognosis() -> nn.Module:
    plan = classic_plan(8, 3)
    unet = build_unet(plan, 2, 2, style=CLASSIC_STYLE)
    divide_first_level(unet.encoder, plan, 2, CLASSIC_STYLE, 2)  # type: ignore[arg-type]
    head = SurvivalHead(32, [8], pooling="both")
    return PrognosisNetwork(unet, head, uptake_channel=0, exclusive=True)


def bag(backbone: str = "resnet50", pooling: str = "attention") -> nn.Module:
    model = {"backbone": backbone, "pooling": pooling, "hidden_features": 24}
    return build_network(BagModelSection.model_validate(model))


def flat(channels: int, side: int = 32) -> list[Tensor]:
    return [torch.randn(2, channels, side, side)]


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], list[Tensor]]]] = {
    "classic U-Net": (classic, lambda: flat(3)),
    "gates, deep supervision": (
        lambda: classic(attention_gates=True, deep_supervision=True),
        lambda: flat(3),
    ),
    "residual U-Net of volumes": (
        lambda: build_unet(PLAN_3D, 1, 3, deep_supervision=True),
        lambda: [torch.randn(1, 1, 8, 8, 8)],
    ),
    "classifying U-Net": (
        lambda: build_classifying_unet(PLAN_3D, 1, 3, MASKS, attention_gates=True),
        lambda: [torch.randn(1, 1, 8, 8, 8)],
    ),
    "timm encoder": (lambda: build_timm_unet("resnet18", 1, 2), lambda: flat(1, 64)),
    "prognosis, two stems": (
        prognosis,
        lambda: [*flat(2), torch.ones(2), torch.zeros(2, 0)],
    ),
    "resnet50, attention": (bag, lambda: flat(1, 64)),
    "depthwise convolutions": (lambda: bag("efficientnet_b0", "max"), lambda: flat(1, 64)),
}


@pytest.fixture(params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, list[Tensor]]:
    make, inputs = NETWORKS[request.param]
    torch.manual_seed(3)
    network = make().eval()
    # Statistics and biases as after some training, so that no channel is like another.
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim <= 1:
            tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith("var") else 0.1))
    return network, inputs()


def test_without_channels_a_network_says_what_it_says_when_they_are_silent(
    pair: tuple[nn.Module, list[Tensor]],
) -> None:
    """The one test that finds channels that were told apart wrongly: shapes alone do not."""
    network, inputs = pair
    pruned = copy.deepcopy(network)
    removed = prune_channels(pruned, inputs, share=0.4, round_to=2)
    with torch.no_grad():
        wanted = network_ends(silenced(copy.deepcopy(network), removed.channels), inputs)
        found = network_ends(pruned, inputs)
    before = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in pruned.parameters()) < 0.75 * before
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def network_ends(network: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """What the network answers and, where those differ, the ends of the other ways."""
    answered: Any = network(*inputs)
    if isinstance(answered, Tensor):
        answered = (answered,)
    elif isinstance(answered, dict):
        answered = tuple(answered.values())
    ends = traced_outputs(network, inputs)
    return [*answered, *(one for one in ends if one.shape[1:2] in ((1,), (2,), (3,)))]


def test_a_fresh_network_of_the_same_widths_takes_the_tensors(
    pair: tuple[nn.Module, list[Tensor]],
) -> None:
    network, inputs = pair
    pruned, fresh = copy.deepcopy(network), copy.deepcopy(network)
    prune_channels(pruned, inputs, share=0.3, round_to=4)
    narrow(fresh, changed_widths(pruned, network))
    fresh.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(
            network_ends(fresh.eval(), inputs), network_ends(pruned.eval(), inputs), strict=True
        ):
            assert torch.equal(ours, theirs)
    fresh.train()
    keys = torch.arange(2)
    out: Any = fresh(*inputs) if not hasattr(fresh, "backbone") else fresh(inputs[0], None, keys)
    leaves = list(out.values()) if isinstance(out, dict) else [out]
    total = sum(one.float().square().sum() for leaf in leaves for one in _tensors(leaf))
    total.backward()  # type: ignore[union-attr]
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in fresh.parameters())


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def test_outputs_and_pooled_features_keep_their_channels() -> None:
    network = prognosis()
    before = widths(network)
    removed = prune_channels(
        network, [*flat(2), torch.ones(2), torch.zeros(2, 0)], share=0.5, round_to=2
    )
    after = widths(network)
    assert after["decoder.seg_layers.1"]["out"] == before["decoder.seg_layers.1"]["out"] == 2
    assert after["encoder.stages.2.0.convs.1.conv"]["out"] == 32
    assert after["encoder.stages.2.0.convs.1.conv"]["in"] == 16
    assert {n: w for n, w in after.items() if n.startswith("head.")} == {
        n: w for n, w in before.items() if n.startswith("head.")
    }
    assert removed.kept_whole["decoder.seg_layers.1"] == "reaches an output"


@pytest.mark.parametrize(
    ("width", "share", "round_to", "kept"),
    [(64, 0.35, 8, 40), (1024, 0.35, 8, 664), (20, 0.35, 1, 13), (4, 0.5, 8, 4), (12, 0.5, 8, 8)],
)
def test_widths_are_rounded_down_but_never_to_nothing(
    width: int, share: float, round_to: int, kept: int
) -> None:
    assert kept_width(width, share, round_to) == kept


def test_rounds_count_from_the_whole_network() -> None:
    network = classic()
    whole = widths(network)
    for share in (0.25, 0.5):
        prune_channels(network, flat(3), share=share, round_to=1, whole=whole)
    assert widths(network)["encoder.stages.0.0.convs.0.conv"]["out"] == 4
    assert widths(network)["decoder.transpconvs.0"] == {"in": 32, "out": 16}


def test_the_least_important_channels_leave() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([3.0, 0.1, 2.0, 0.2]).reshape(4, 1, 1, 1))
        network[2].weight.copy_(torch.tensor([1.0, 0.1, 1.0, 0.2]).reshape(1, 4, 1, 1))
    removed = prune_channels(network, [torch.zeros(1, 1, 2, 2)], share=0.5, round_to=1)
    assert removed.channels == {"0": [1, 3]}


def test_the_last_heads_are_named() -> None:
    assert output_layers(classic(deep_supervision=True), flat(3)) == [
        "decoder.seg_layers.0",
        "decoder.seg_layers.1",
        "decoder.seg_layers.2",
    ]
    assert output_layers(bag("resnet18"), flat(1, 64)) == ["head.output", "attention.score"]


def test_training_goes_on_as_it_was_after_tracing() -> None:
    network = classic()
    network.train()
    network.get_submodule("encoder").eval()
    network.get_submodule("encoder").requires_grad_(False)
    prune_channels(network, flat(3), share=0.5, round_to=1)
    assert network.training
    assert not network.get_submodule("encoder").training
    assert not any(p.requires_grad for p in network.get_submodule("encoder").parameters())
    assert all(p.requires_grad for p in network.get_submodule("decoder").parameters())


def test_a_network_that_tracing_takes_wrongly_is_refused() -> None:
    """A gate weighs all channels by one: seen from outside it ties channels that are apart."""

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classic(attention_gates=True)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images)
            return logits

    with pytest.raises(UsageError, match="cannot be pruned by channels"):
        prune_channels(Hidden(), flat(3), share=0.5, round_to=1)
