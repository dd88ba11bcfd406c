"""The network of a segmentation slice by slice, what it minimises and what is watched of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medtool.core.errors import UsageError
from medtool.core.records import Batch
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.scaling import ChannelScale
from medtool.nets.segmentation_losses import OverlapSettings, SegmentationLoss
from medtool.nets.timm_encoder import build_timm_unet
from medtool.nets.unet import UNet, build_unet
from medtool.tasks.planar_preparation import FULL_8_BIT
from medtool.tasks.segmentation_labels import output_count
from medtool.tasks.segmentation_learning import (
    Counts,
    outcome_counts,
    pooled_dice,
    preset_loss,
    summarise_facts,
    targets,
)

if TYPE_CHECKING:
    from medtool.tasks.planar_settings import PlanarSettings
    from medtool.tasks.segmentation_settings import SegmentationDataSection

ACCURACY = "accuracy"


def build_planar_network(settings: PlanarSettings) -> nn.Module:
    """The U-Net of the preset, initialised from torch's stream.

    Raises UsageError where the size of the slices does not fit its levels, and for an encoder that
    timm does not have or that cannot be one.
    """
    model = settings.model
    network: UNet
    shared: dict[str, Any] = {
        "attention_gates": model.attention_gates,
        "encoder_dropout": model.encoder_dropout,
        "decoder_dropout": model.dropout,
        "style": CLASSIC_STYLE,
    }
    channels, outputs = model.input_channels, output_count(settings.data)
    if model.encoder:
        network = build_timm_unet(
            model.encoder, channels, outputs, first_features=model.first_features, **shared
        )
    else:
        plan = classic_plan(model.first_features, model.levels)
        network = build_unet(plan, channels, outputs, **shared)
    size = settings.data.preparation.size_px
    deepest = [divmod(side, step) for side, step in zip(size, network.size_multiple, strict=True)]
    # Batch norm cannot learn from a single value, as a lone slice would leave.
    if any(rest for _, rest in deepest) or math.prod(pixels for pixels, _ in deepest) < 2:
        raise UsageError(
            "Slices of this size cannot be halved as often as the network does.",
            where="data.preparation.size_px",
            met=" x ".join(map(str, size)),
            wanted="multiples of "
            + " x ".join(map(str, network.size_multiple))
            + ", and more than one pixel at the bottleneck",
        )
    return network


def planar_probe_shape(settings: PlanarSettings) -> tuple[int, ...]:
    """Shape of one input of the network: (1, channels, rows, columns)."""
    rows, columns = settings.data.preparation.size_px
    return (1, settings.model.input_channels, rows, columns)


def planar_scale(settings: PlanarSettings) -> ChannelScale:
    """From pixels, or HU, to the 0 to 1 of the network; percentiles are an image's own."""
    preparation, channels = settings.data.preparation, settings.model.input_channels
    low, width = 0.0, 1.0
    if preparation.intensity == "8-bit":
        width = FULL_8_BIT
    elif preparation.intensity == "window":
        width = preparation.window_width_hu
        low = preparation.window_level_hu - width / 2
    return ChannelScale([low] * channels, [width] * channels, unit_range=True)


def logit_cut(settings: PlanarSettings) -> float:
    """The logit of the threshold, over which a pixel belongs to a structure."""
    threshold = settings.infer.threshold
    return math.log(threshold / (1 - threshold))


def _loss(settings: PlanarSettings) -> SegmentationLoss:
    train = settings.train
    counting = OverlapSettings(batch=bool(train.batch_dice), smooth=train.dice_smooth)
    return preset_loss(settings, counting)


def slice_losses(settings: PlanarSettings, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """``loss``: the preset's; and of the slices of the step the Dice and the share of pixels
    that are right.
    """
    labels = targets(settings.data, batch.tensors["label"])
    logits = network(batch.tensors["image"], batch.tensors["keys"])
    loss = _loss(settings)(logits, labels)
    with torch.no_grad():
        counts = outcome_counts(settings.data, logits, labels, cut=logit_cut(settings))
        dice = pooled_dice(Counts(*(part.sum(0) for part in counts))).nanmean()
    # Nothing there and nothing found is no fault.
    dice = dice.nan_to_num(1.0)
    return {"loss": loss, "dice": dice, ACCURACY: counts.alike.sum() / counts.known.sum()}


def slice_facts(settings: PlanarSettings, network: nn.Module, batch: Batch) -> dict[str, Any]:
    """Of each case its loss and ``Counts``, summed over its slices."""
    rows: dict[str, list[Any]] = {name: [] for name in ("case", "loss", *Counts._fields)}
    sizes = batch.tensors["sizes"].tolist()
    images = torch.split(batch.tensors["image"], sizes)
    labels = torch.split(targets(settings.data, batch.tensors["label"]), sizes)
    loss, cut, step = _loss(settings), logit_cut(settings), settings.train.batch_cases
    for case, own, wanted in zip(batch.cases, images, labels, strict=True):
        logits = torch.cat([network(part) for part in torch.split(own, step)])
        counts = outcome_counts(settings.data, logits, wanted, cut=cut)
        rows["case"].append(case.case_id)
        rows["loss"].append(float(loss(logits, wanted)))
        for name, values in zip(Counts._fields, counts, strict=True):
            rows[name].append(values.sum(0).tolist())
    return rows


def summarise_slices(
    data: SegmentationDataSection, facts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """loss, dice (mean over labels, of all slices together), dice_<label>, accuracy (share of
    pixels that are right).
    """
    rows = {
        case: (alike, known)
        for fact in facts
        for case, alike, known in zip(fact["case"], fact["alike"], fact["known"], strict=True)
    }
    alike, known = (sum(row[place] for row in rows.values()) for place in (0, 1))
    return {**summarise_facts(data, facts), ACCURACY: alike / known if known else math.nan}
