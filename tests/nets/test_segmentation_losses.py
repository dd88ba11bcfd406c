"""Losses of segmentations against values worked out by hand or by nnU-Net's own code."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from medtool.core.errors import UnknownNameError
from medtool.nets.segmentation_losses import (
    Meaning,
    Overlap,
    OverlapSettings,
    compare,
    create_segmentation_loss,
    cross_entropy_loss,
    deep_loss,
    deep_supervision_weights,
    dice_loss,
    focal_loss,
    overlap,
    shrunk_labels,
    tversky_of,
)

NAMES = ["dice", "tversky", "focal-tversky", "cross-entropy", "focal", "dice+cross-entropy"]

# A batch of two, three classes, 2 x 2 voxels; the values beside it are those of nnU-Net 2.8.1.
LOGITS = torch.tensor(
    [
        [[[2, 0], [0.5, -1]], [[0, 1], [0, 2]], [[-1, 0], [1, 0]]],
        [[[0, 0], [1, 1]], [[1, 0], [0, 0]], [[0, 3], [0, 0.5]]],
    ],
    dtype=torch.float64,
)
LABELS = torch.tensor([[[0, 1], [2, 1]], [[1, 2], [0, 0]]])
CLASSES = Meaning()


def test_cross_entropy_of_nnunet() -> None:
    met = compare(LOGITS, LABELS, CLASSES)
    assert cross_entropy_loss(met).item() == pytest.approx(0.431186, abs=1e-6)


@pytest.mark.parametrize(
    ("batch", "background", "term"),
    [
        (False, False, -0.640752),
        (False, True, -0.652171),
        (True, False, -0.661329),
        (True, True, -0.664440),
    ],
)
def test_dice_of_nnunet(batch: bool, background: bool, term: float) -> None:
    counting = OverlapSettings(batch=batch, background=background)
    found = dice_loss(compare(LOGITS, LABELS, CLASSES), counting)
    assert found.item() == pytest.approx(1 + term, abs=1e-6)


def test_the_loss_of_nnunet_is_the_sum_of_both() -> None:
    loss = create_segmentation_loss("dice+cross-entropy", CLASSES, counting=OverlapSettings())
    assert loss(LOGITS, LABELS).item() == pytest.approx(0.431186 - 0.640752 + 1, abs=2e-6)


# TP 8, FP 4, FN 2.
@pytest.mark.parametrize(
    ("fp_weight", "fn_weight", "exponent", "wanted"),
    [
        (0.3, 0.7, 1, 1 - 0.754717),
        (0.3, 0.7, 0.75, 0.348538),
        (0.3, 0.7, 4 / 3, 0.153541),
        (0.7, 0.3, 1, 1 - 0.701754),
        (0.7, 0.3, 0.75, 0.403581),
        (0.7, 0.3, 4 / 3, 0.199265),
        (0.5, 0.5, 1, 1 - 0.727273),
        (0.5, 0.5, 0.75, 0.377395),
        (0.5, 0.5, 4 / 3, 0.176863),
    ],
)
def test_tversky_golden_values(
    fp_weight: float, fn_weight: float, exponent: float, wanted: float
) -> None:
    counts = Overlap(*(torch.tensor(float(n), dtype=torch.float64) for n in (8, 4, 2)))
    found = tversky_of(
        counts, fp_weight=fp_weight, fn_weight=fn_weight, exponent=exponent, smooth=1e-12
    )
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def certain(labels: torch.Tensor, outputs: int) -> torch.Tensor:
    """Logits that leave no doubt of ``labels``."""
    return (F.one_hot(labels, outputs).movedim(-1, 1).double() - 0.5) * 80


def test_counts_by_hand() -> None:
    found = torch.tensor([[[1, 1, 1, 0, 0, 2]]])
    wanted = torch.tensor([[[1, 0, 2, 1, 0, 2]]])
    counts = overlap(compare(certain(found, 3), wanted, CLASSES), batch=False, background=False)
    # Label 1: one hit, two said too often, one missed. Label 2: one hit, one missed.
    assert counts.true_positives.tolist() == [[pytest.approx(1), pytest.approx(1)]]
    assert counts.false_positives.tolist() == [[pytest.approx(2), pytest.approx(0)]]
    assert counts.false_negatives.tolist() == [[pytest.approx(1), pytest.approx(1)]]


def test_regions_overlap_and_have_no_background() -> None:
    meaning = Meaning(regions=((1, 2), (2,)))
    labels = torch.tensor([[[0, 1, 2, 2]]])
    # The whole found, of label 2 one voxel of two; the halves in doubt are 0.5.
    logits = torch.tensor([[[[-80.0, 80, 80, 80]], [[-80.0, -80, 80, -80]]]]).double()
    met = compare(logits, labels, meaning)
    counts = overlap(met, batch=False, background=False)
    assert counts.true_positives.tolist() == [[pytest.approx(3), pytest.approx(1)]]
    assert counts.false_negatives.tolist() == [[pytest.approx(0), pytest.approx(1)]]
    settings = OverlapSettings(smooth=1e-12)
    assert dice_loss(met, settings).item() == pytest.approx(1 - (1 + 2 / 3) / 2)
    # Eight sigmoids, one of them wrong by 80.
    assert cross_entropy_loss(met).item() == pytest.approx(80 / 8)


def test_one_output_is_binary() -> None:
    meaning = Meaning(regions=((1,),))
    logits = torch.tensor([[[[0.3, -1.2], [2.0, 0.0]]]])
    labels = torch.tensor([[[1, 0], [1, 1]]])
    met = compare(logits, labels, meaning)
    binary = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    torch.testing.assert_close(cross_entropy_loss(met), binary)
    p, g = torch.sigmoid(logits[:, 0]), labels.float()
    dice = 2 * (p * g).sum() / (p.sum() + g.sum())
    tiny = OverlapSettings(smooth=1e-15)
    torch.testing.assert_close(dice_loss(met, tiny), 1 - dice)


@pytest.mark.parametrize("p", [0.9, 0.1, 0.5])
def test_focal_by_hand(p: float) -> None:
    logits = torch.tensor([[[[0.0]], [[math.log(p / (1 - p))]]]], dtype=torch.float64)
    wanted = (1 - p) ** 2 * -math.log(p)
    for meaning, some in ((CLASSES, logits), (Meaning(regions=((1,),)), logits[:, 1:])):
        met = compare(some, torch.ones(1, 1, 1, dtype=torch.int64), meaning)
        assert focal_loss(met).item() == pytest.approx(wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regions", [None, ((1, 2), (2,), (1,))])
def test_what_is_ignored_counts_nowhere(
    name: str, regions: tuple[tuple[int, ...], ...] | None
) -> None:
    meaning = Meaning(regions=regions, ignore_label=3)
    loss = create_segmentation_loss(name, meaning, counting=OverlapSettings(batch=True))
    labels = LABELS.clone()
    labels[:, :, 1] = 3
    other = LOGITS.clone()
    other[..., 1] = 7.0
    assert loss(LOGITS, labels).item() == pytest.approx(loss(other, labels).item())
    # Leaving these voxels out altogether is the same.
    alone = loss(LOGITS[..., :1], LABELS[..., :1])
    assert loss(LOGITS, labels).item() == pytest.approx(alone.item())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regions", [None, ((1, 2), (2,))])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("label", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [0.0, 200.0])
@pytest.mark.parametrize("smooth", [1e-5, 1e-15])
def test_gradients_are_finite_on_empty_full_and_unknown_masks(
    name: str,
    regions: tuple[tuple[int, ...], ...] | None,
    dtype: torch.dtype,
    label: int,
    size: float,
    smooth: float,
) -> None:
    meaning = Meaning(regions=regions, ignore_label=3)
    outputs = 3 if regions is None else 2
    loss = create_segmentation_loss(name, meaning, counting=OverlapSettings(smooth=smooth))
    signs = torch.tensor([-1.0, 1.0]).repeat(outputs * 8).reshape(2, outputs, 2, 4)
    logits = (size * signs).to(dtype).requires_grad_()
    value = loss(logits, torch.full((2, 2, 4), label))
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert value.item() >= -1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regions", [None, ((1, 2), (2,), (1,))])
def test_gradients_are_those_of_the_loss(
    name: str, regions: tuple[tuple[int, ...], ...] | None
) -> None:
    loss = create_segmentation_loss(name, Meaning(regions=regions), counting=OverlapSettings())
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda some: loss(some, LABELS), (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_has_the_least_loss(name: str) -> None:
    loss = create_segmentation_loss(name, CLASSES, counting=OverlapSettings())
    assert loss(certain(LABELS, 3), LABELS).item() == pytest.approx(0, abs=1e-4)
    assert loss(-certain(LABELS, 3), LABELS).item() > 0.5


def test_an_unknown_loss() -> None:
    with pytest.raises(UnknownNameError, match="focal-tversky"):
        create_segmentation_loss("focal_tversky", CLASSES, counting=OverlapSettings())


def test_deep_supervision_weights_of_nnunet() -> None:
    five = [0.533333, 0.266667, 0.133333, 0.066667, 0]
    assert deep_supervision_weights(5) == pytest.approx(five, abs=1e-6)
    six = [0.516129, 0.258065, 0.129032, 0.064516, 0.032258, 0]
    assert deep_supervision_weights(6) == pytest.approx(six, abs=1e-6)
    assert deep_supervision_weights(1) == (1.0,)
    assert 0 < deep_supervision_weights(3, last=1e-6)[2] < 1e-5


def test_deep_loss_by_hand() -> None:
    logits = [LOGITS, LOGITS[..., :1, :1]]
    loss = create_segmentation_loss("cross-entropy", CLASSES, counting=OverlapSettings())
    found = deep_loss(loss, logits, LABELS, (0.75, 0.25))
    # A grid of one voxel takes the label right of and below the centre.
    coarse = F.cross_entropy(logits[1], LABELS[:, 1:, 1:])
    assert found.item() == pytest.approx(0.75 * 0.431186 + 0.25 * coarse.item(), abs=1e-6)


@pytest.mark.parametrize("size", [(4, 6, 10), (2, 3, 5), (4, 3, 5), (1, 6, 7)])
def test_shrunk_labels_are_torchs_nearest_exact(size: tuple[int, int, int]) -> None:
    labels = torch.arange(2 * 4 * 6 * 10).reshape(2, 4, 6, 10)
    wanted = F.interpolate(labels[:, None].double(), size=size, mode="nearest-exact")[:, 0]
    assert torch.equal(shrunk_labels(labels, size), wanted.long())
