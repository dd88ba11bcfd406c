"""The network of a segmentation, what it minimises and what is watched of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from medtool.core.records import Batch
from medtool.nets.segmentation_losses import (
    Meaning,
    OverlapSettings,
    SegmentationLoss,
    create_segmentation_loss,
    deep_loss,
    deep_supervision_weights,
)
from medtool.nets.unet import build_unet
from medtool.tasks.segmentation_labels import (
    BACKGROUND_ID,
    has_regions,
    output_count,
    output_ids,
    structures,
)
from medtool.tasks.segmentation_plan import network_plan

if TYPE_CHECKING:
    from medtool.tasks.segmentation_settings import (
        SegmentationDataSection,
        SegmentationSettings,
    )

# Networks that normalise each image need more than one voxel at the bottleneck.
PROBE_VOXELS_AT_BOTTLENECK = 2


def build_network(settings: SegmentationSettings) -> nn.Module:
    """The U-Net of the plan, initialised from torch's stream."""
    model = settings.model
    return build_unet(
        network_plan(model),
        len(settings.data.channels),
        output_count(settings.data),
        deep_supervision=model.deep_supervision,
        attention_gates=model.attention_gates,
        decoder_dropout=model.dropout,
    )


def probe_shape(settings: SegmentationSettings) -> tuple[int, ...]:
    """Shape of a small input that the network can answer: (1, channels, ...)."""
    strides = network_plan(settings.model).strides
    multiples = (math.prod(along) for along in zip(*strides, strict=True))
    size = (multiple * PROBE_VOXELS_AT_BOTTLENECK for multiple in multiples)
    return (1, len(settings.data.channels), *size)


def meaning_of(data: SegmentationDataSection) -> Meaning:
    """What the outputs of the network stand for."""
    regions = tuple(structures(data).values()) if has_regions(data) else None
    if data.ignore_id is None or _counts_alike(data):
        return Meaning(regions, data.ignore_id)
    # The id itself may be the number of an output; this is the first that is none.
    return Meaning(regions, output_count(data))


def _counts_alike(data: SegmentationDataSection) -> bool:
    """Whether ``targets`` are the ids of the masks: of regions, or ids in order without a gap."""
    ids = output_ids(data)
    return has_regions(data) or ids == tuple(range(len(ids)))


def targets(data: SegmentationDataSection, labels: Tensor) -> Tensor:
    """Ids of the masks as the network's outputs count them; regions keep their ids.

    Voxels beyond the image or the body, which have a negative id, are background; those that
    nobody labelled are what ``meaning_of`` ignores.
    """
    labels = labels.clamp(min=BACKGROUND_ID)
    if _counts_alike(data):
        return labels
    found = labels.clone()
    for output, number in enumerate(output_ids(data)):
        found[labels == number] = output
    if data.ignore_id is not None:
        found[labels == data.ignore_id] = output_count(data)
    return found


def preset_loss(settings: SegmentationSettings, counting: OverlapSettings) -> SegmentationLoss:
    """The loss that [train] names, with its weights and powers."""
    train = settings.train
    return create_segmentation_loss(
        train.loss,
        meaning_of(settings.data),
        counting=counting,
        fp_weight=train.fp_weight,
        fn_weight=train.fn_weight,
        exponent=train.tversky_exponent,
        gamma=train.focal_gamma,
    )


def _loss(settings: SegmentationSettings) -> SegmentationLoss:
    return preset_loss(settings, OverlapSettings(batch=bool(settings.train.batch_dice)))


def all_resolutions(settings: SegmentationSettings, answer: Any, labels: Tensor) -> Tensor:
    """The preset's loss of an answer (a tensor, or a list of all resolutions, the full first)."""
    parts: Sequence[Tensor] = [answer] if isinstance(answer, Tensor) else answer
    return deep_loss(_loss(settings), parts, labels, deep_supervision_weights(len(parts)))


def patch_losses(
    settings: SegmentationSettings, network: nn.Module, batch: Batch
) -> dict[str, Tensor]:
    """``loss``: the preset's, over all resolutions that the network answers in."""
    labels = targets(settings.data, batch.tensors["label"])
    answer = network(batch.tensors["image"], batch.tensors["keys"])
    return {"loss": all_resolutions(settings, answer, labels)}


class Counts(NamedTuple):
    """Voxels by case and label (n, labels): rightly found, too many, missed; and by case (n,)
    those that are right in every label, and those whose label is known.
    """

    right: Tensor
    false: Tensor
    missed: Tensor
    alike: Tensor
    known: Tensor


def outcome_counts(
    data: SegmentationDataSection, logits: Tensor, labels: Tensor, *, cut: float = 0.0
) -> Counts:
    """What logits (n, outputs, ...) found of ``targets`` (n, ...), without the background.

    A region is found where its logit is over ``cut``; voxels that nobody labelled count nowhere.
    """
    meaning = meaning_of(data)
    wanted = meaning.references(labels, logits.shape[1])
    if meaning.regions is None:
        found = torch.stack([logits.argmax(1) == n for n in range(logits.shape[1])], dim=1)
        found, wanted = found[:, 1:], wanted[:, 1:]
    else:
        found = logits > cut
    known = meaning.known(labels)
    if known is None:
        known = torch.ones_like(found[:, :1])
    found, wanted = found & known, wanted & known
    axes = tuple(range(2, found.ndim))
    return Counts(
        (found & wanted).sum(axes),
        (found & ~wanted).sum(axes),
        (~found & wanted).sum(axes),
        ((found == wanted) & known).all(1).flatten(1).sum(1),
        known[:, 0].flatten(1).sum(1),
    )


def pooled_dice(counts: Counts) -> Tensor:
    """Dice of each label, NaN where it is in neither."""
    return 2 * counts.right / (2 * counts.right + counts.false + counts.missed)


def patch_facts(settings: SegmentationSettings, network: nn.Module, batch: Batch) -> dict[str, Any]:
    """What ``facts_of`` says of the network's answer."""
    return facts_of(settings, network(batch.tensors["image"]), batch)


def facts_of(settings: SegmentationSettings, logits: Tensor, batch: Batch) -> dict[str, Any]:
    """Of each case its loss, and by label the voxels found rightly, too many, and missed.

    ``logits`` (n, outputs, ...) are at full resolution.
    """
    labels = targets(settings.data, batch.tensors["label"])
    counts = outcome_counts(settings.data, logits, labels)
    losses = [
        float(all_resolutions(settings, logits[n : n + 1], labels[n : n + 1]))
        for n in range(len(labels))
    ]
    return {
        "case": [case.case_id for case in batch.cases],
        "loss": losses,
        "right": counts.right.tolist(),
        "false": counts.false.tolist(),
        "missed": counts.missed.tolist(),
    }


def summarise_facts(
    data: SegmentationDataSection, facts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """An epoch's numbers from ``patch_facts`` of all its batches.

    Dice of a label is that of all patches together (nnU-Net's pseudo Dice); ``dice`` the mean over
    labels that are somewhere in truth or answer. Each case counts once.
    """
    rows = {
        case: (loss, right, false, missed)
        for fact in facts
        for case, loss, right, false, missed in zip(
            *(fact[name] for name in ("case", "loss", "right", "false", "missed")), strict=True
        )
    }
    ordered = [rows[case] for case in sorted(rows)]
    found: dict[str, float] = {"loss": sum(row[0] for row in ordered) / max(1, len(ordered))}
    dices = []
    for number, name in enumerate(structures(data)):
        right, false, missed = (sum(row[k][number] for row in ordered) for k in (1, 2, 3))
        total = 2 * right + false + missed
        found[f"dice_{name}"] = 2 * right / total if total else math.nan
        if total:
            dices.append(found[f"dice_{name}"])
    found["dice"] = sum(dices) / len(dices) if dices else math.nan
    return found
