"""Classes beside a segmentation: pooling by hand, and a segmentation that does not notice."""

from __future__ import annotations

import pytest
import torch

from medtool.core.plan import NetworkPlan
from medtool.nets.classification import (
    ClassificationHead,
    Classifier,
    Pooling,
    average_pool,
    build_classifying_unet,
    mask_pool,
)
from medtool.nets.dropout import slice_keys
from medtool.nets.unet import build_unet

PLAN = NetworkPlan(
    kind="plain",
    features=(4, 6, 8),
    kernel_sizes=((3, 3, 3),) * 3,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    encoder_blocks=(1, 1, 1),
    decoder_convolutions=(1, 1),
)
IMAGES = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
MASKS = ((2,), (1, 2))


def places(*values: float) -> torch.Tensor:
    """Two features on a grid of 1 x 4 places: the values, and 1."""
    return torch.stack([torch.tensor([values]), torch.ones(1, len(values))])[None]


def test_the_average_by_hand() -> None:
    assert average_pool(places(1, 2, 3, 6)).tolist() == [[3.0, 1.0]]


def test_a_mask_weights_the_places() -> None:
    # On a grid twice as fine: half of the second place, all of the fourth.
    mask = torch.tensor([[[[0.0, 0, 1, 0, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0, 1, 1]]]])
    found = mask_pool(places(1, 2, 3, 6), mask)
    assert found[0].tolist() == pytest.approx([(0.5 * 2 + 1 * 6) / 1.5, 1.0])


def test_a_small_lesion_does_not_vanish() -> None:
    mask = torch.zeros(1, 1, 16, 64)
    # 4 of the 256 voxels of a place: nearest neighbour would miss it.
    mask[0, 0, 3:5, 17:19] = 1
    assert mask_pool(places(1, 2, 3, 6), mask).tolist() == [[2.0, 1.0]]


def test_what_a_lesion_leaves_out_the_organ_fills_then_everything() -> None:
    maps = places(1, 2, 3, 6).expand(3, 2, 1, 4)
    masks = torch.zeros(3, 2, 1, 4)
    masks[0, 0, 0, 0] = 1.0
    masks[0:2, 1, 0, 2:] = 1.0
    found = mask_pool(maps, masks)[:, 0]
    assert found.tolist() == pytest.approx([1.0, 4.5, 3.0])
    # Less than the least mass is nothing.
    masks[2, 0, 0, 3] = 0.009
    assert mask_pool(maps, masks)[2, 0].item() == pytest.approx(3.0)
    masks[2, 0, 0, 3] = 0.011
    assert mask_pool(maps, masks)[2, 0].item() == pytest.approx(6.0)


@pytest.mark.parametrize(("pooling", "inputs"), [("average", 5), ("mask", 5), ("both", 10)])
def test_the_size_of_the_head(pooling: Pooling, inputs: int) -> None:
    head = ClassificationHead(5, 3, pooling=pooling, dropout=0.0, layer=0)
    assert head.linear.in_features == inputs
    assert head(torch.rand(2, 5, 2, 2), torch.zeros(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_segmentation_is_that_without_a_head(levels: int, deep_supervision: bool) -> None:
    options = Classifier(classes=3, masks=MASKS, decoder_levels=levels)
    network = build_classifying_unet(PLAN, 1, 3, options, deep_supervision=deep_supervision).eval()
    plain = build_unet(PLAN, 1, 3, deep_supervision=deep_supervision).eval()
    tensors = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("classifier.")
    }
    assert tensors.keys() == plain.state_dict().keys()
    plain.load_state_dict(tensors)
    logits, classes = network.both(IMAGES)
    assert torch.equal(logits[0], plain(IMAGES))
    assert torch.equal(network(IMAGES), plain(IMAGES))
    assert classes.shape == (2, 3)


def test_masks_that_are_given_are_taken() -> None:
    network = build_classifying_unet(PLAN, 1, 3, Classifier(3, "mask", MASKS)).eval()
    own = network.masks(network.both(IMAGES)[0][0])
    assert torch.equal(network.both(IMAGES)[1], network.both(IMAGES, masks=own)[1])
    corner = torch.zeros_like(own)
    corner[:, 0, :4, :4, :4] = 1
    assert not torch.allclose(network.both(IMAGES, masks=corner)[1], network.both(IMAGES)[1])


@pytest.mark.parametrize("exclusive", [True, False])
def test_masks_by_hand(exclusive: bool) -> None:
    network = build_classifying_unet(PLAN, 1, 3, Classifier(2, masks=MASKS, exclusive=exclusive))
    logits = torch.tensor([1.0, 2.0, 0.5]).reshape(1, 3, 1, 1, 1)
    found = network.masks(logits).flatten().tolist()
    e = logits.flatten().exp()
    if exclusive:
        wanted = [e[2] / e.sum(), (e[1] + e[2]) / e.sum()]
    else:
        wanted = [e[2] / (1 + e[2]), e[1] / (1 + e[1])]
    assert found == pytest.approx([w.item() for w in wanted])


def test_the_class_sends_no_gradient_through_its_masks() -> None:
    network = build_classifying_unet(PLAN, 1, 3, Classifier(2, "mask", MASKS, dropout=0.0))
    _, classes = network.both(IMAGES)
    classes.square().sum().backward()
    assert all(p.grad is None for p in network.decoder.parameters())
    assert all(p.grad is not None for p in network.encoder.parameters())


def test_a_second_decoder_learns_from_the_class_alone() -> None:
    options = Classifier(2, "both", MASKS, dropout=0.0, decoder_levels=1)
    network = build_classifying_unet(PLAN, 1, 3, options)
    logits, classes = network.both(IMAGES)
    logits[0].square().sum().backward(retain_graph=True)
    assert all(p.grad is None for p in network.classifier.parameters())
    classes.square().sum().backward()
    assert all(p.grad is not None for p in network.classifier.parameters())


def test_dropout_of_the_head_belongs_to_the_case() -> None:
    network = build_classifying_unet(PLAN, 1, 3, Classifier(2, dropout=0.5, pooling="average"))
    with pytest.raises(ValueError, match="keys"):
        network.train().both(IMAGES)
    first, second = (
        network.both(IMAGES, slice_keys(0, epoch, "case", [0, 1]))[1] for epoch in (0, 1)
    )
    assert not torch.allclose(first, second)


def test_true_masks_are_taken_in_the_rows_that_say_so() -> None:
    network = build_classifying_unet(PLAN, 1, 3, Classifier(3, "mask", MASKS)).eval()
    corner = torch.zeros(2, 2, 8, 8, 8)
    corner[:, 0, :4, :4, :4] = 1
    own, given = network.both(IMAGES)[1], network.both(IMAGES, masks=corner)[1]
    mixed = network.both(IMAGES, masks=corner, given=torch.tensor([True, False]))[1]
    assert torch.equal(mixed, torch.stack([given[0], own[1]]))
