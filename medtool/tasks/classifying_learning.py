"""The network of a segmentation with classes, what it minimises and what is watched of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medtool.core.records import Batch
from medtool.nets.classification import Classifier, ClassifyingUNet, build_classifying_unet
from medtool.nets.classification_losses import classification_share, weighted_cross_entropy
from medtool.score.multiclass import class_numbers
from medtool.tasks.classifying_classes import BALANCED, lesion_ids, lesion_name, organ_ids
from medtool.tasks.classifying_examples import NO_CLASS
from medtool.tasks.segmentation_labels import has_regions, output_count, structures
from medtool.tasks.segmentation_learning import (
    all_resolutions,
    facts_of,
    summarise_facts,
    targets,
)
from medtool.tasks.segmentation_plan import network_plan

if TYPE_CHECKING:
    from medtool.tasks.classifying_settings import ClassifyingDataSection, ClassifyingSettings


def build_network(settings: ClassifyingSettings) -> ClassifyingUNet:
    """The U-Net of the plan with a head for the classes, initialised from torch's stream."""
    model, data = settings.model, settings.data
    options = Classifier(
        classes=len(data.classes),
        pooling=model.pooling,
        masks=_mask_outputs(data),
        exclusive=not has_regions(data),
        dropout=model.head_dropout,
        decoder_levels=min(model.class_decoder_levels, len(model.features) - 1),
    )
    return build_classifying_unet(
        network_plan(model),
        len(data.channels),
        output_count(data),
        options,
        deep_supervision=model.deep_supervision,
        attention_gates=model.attention_gates,
        decoder_dropout=model.dropout,
    )


def _mask_outputs(data: ClassifyingDataSection) -> tuple[tuple[int, ...], ...]:
    """Outputs of the network that make up the lesion, and all labels together."""
    # The first output of labels that exclude each other is the background.
    first = 0 if has_regions(data) else 1
    names = list(structures(data))
    every = tuple(range(first, first + len(names)))
    return ((first + names.index(lesion_name(data)),), every)


def true_masks(data: ClassifyingDataSection, labels: Tensor) -> Tensor:
    """Lesion and all labels together, 0 or 1 (n, 2, ...), of ids of the masks (n, ...)."""
    found = [
        torch.isin(labels, torch.tensor(ids, device=labels.device))
        for ids in (lesion_ids(data), organ_ids(data))
    ]
    return torch.stack(found, dim=1).float()


def classified_losses(
    settings: ClassifyingSettings, network: nn.Module, batch: Batch
) -> dict[str, Tensor]:
    """``loss``: the weighted sum of ``segmentation`` and ``classification``.

    The share of the class depends on the epoch alone. Patches that show no class count as 0 in its
    mean over the batch, so that a class weighs the same in every batch.
    """
    tensors, train = batch.tensors, settings.train
    logits, answers = cast(ClassifyingUNet, network).both(
        tensors["image"],
        tensors["keys"],
        true_masks(settings.data, tensors["label"]),
        tensors["true_masks"],
    )
    segmentation = all_resolutions(settings, logits, targets(settings.data, tensors["label"]))
    known = tensors["class"] != NO_CLASS
    weights = torch.tensor(train.class_weights)
    classification = answers.float().sum() * 0.0
    if bool(known.any()):
        share = known.float().mean()
        some = weighted_cross_entropy(answers[known], tensors["class"][known], weights)
        classification = some * share
    weight = classification_share(
        batch.preset_epoch,
        hold_epochs=train.class_hold_epochs,
        ramp_epochs=train.class_ramp_epochs,
        first=train.class_share_first,
        last=train.class_share_last,
    )
    loss = (1.0 - weight) * segmentation + weight * classification
    return {"loss": loss, "segmentation": segmentation, "classification": classification}


def classified_facts(
    settings: ClassifyingSettings, network: nn.Module, batch: Batch
) -> dict[str, Any]:
    """Those of a segmentation, with the class of each case, its answer and its entropy."""
    tensors = batch.tensors
    logits, answers = cast(ClassifyingUNet, network).both(tensors["image"])
    numbers = tensors["class"]
    entropy = F.cross_entropy(answers.float(), numbers.clamp(min=0), reduction="none")
    return {
        **facts_of(settings, logits[0], batch),
        "class": numbers.tolist(),
        "answer": answers.argmax(dim=1).tolist(),
        "entropy": entropy.tolist(),
    }


def summarise_classified(
    data: ClassifyingDataSection, facts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """An epoch's numbers: those of the masks, macro_f1, accuracy, and ``dice_and_f1``.

    ``dice_and_f1`` is the mean of Dice and macro F1; where no case has a class, the Dice alone.
    """
    found = summarise_facts(data, facts)
    rows = {
        case: row
        for fact in facts
        for case, *row in zip(
            *(fact[name] for name in ("case", "class", "answer", "entropy")), strict=True
        )
    }
    known = [row for _, row in sorted(rows.items()) if row[0] != NO_CLASS]
    truth, said = [row[0] for row in known], [row[1] for row in known]
    numbers = class_numbers(truth, said, data.classes) if known else {}
    found["class_loss"] = sum(row[2] for row in known) / len(known) if known else math.nan
    for name in ("macro_f1", "accuracy"):
        found[name] = numbers.get(name, math.nan)
    both = [v for v in (found["dice"], found["macro_f1"]) if math.isfinite(v)]
    found[BALANCED] = sum(both) / len(both) if both else math.nan
    return found
