"""A prognosis as it is exported, and what stands for its network where another engine answers.

The file takes images of one patient, slices or patches, and gives their outlines and the patient's
risk. Of more images than memory allows the caller passes some at a time: ``after`` of one call,
sums over images, is ``before`` of the next, and zeros stand before the first. With Monte Carlo
passes the masks of their dropout are inputs, one row a pass, so that whoever draws them decides;
what comes before the first dropout is computed once for all passes of a call, and ones stand for a
pass in which nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medtool.core.records import DeploymentSpec
from medtool.nets.monte_carlo import SharedPass, first_dropping, may_drop, spread
from medtool.nets.scaling import ChannelScale
from medtool.tasks.prognosis_covariates import covariate_inputs
from medtool.tasks.prognosis_network import (
    PrognosisNetwork,
    build_prognosis_network,
    input_channels,
    seen_size_vox,
)
from medtool.tasks.segmentation_exported import CHANCES, IMAGE, IMAGES, LOGITS, chances_of

if TYPE_CHECKING:
    from medtool.tasks.prognosis_settings import PrognosisSettings

FIELD, COVARIATES, BEFORE, AFTER, RISKS = "field_ml", "covariates", "before", "after", "risks"
MASKS, HEAD_MASKS = "masks", "head_masks"
PASSES = "passes"
# Of inputs that are no images, what they usually are: means and deviations.
TYPICAL_FIELD_ML = 20_000.0
NOTHING_BEFORE: tuple[Sequence[float], Sequence[float]] = ((0.0,), (0.0,))
NOTHING_DROPPED: tuple[Sequence[float], Sequence[float]] = ((1.0,), (0.0,))


def skeleton(settings: PrognosisSettings) -> PrognosisNetwork:
    """The network without weights: its shapes and its dropouts."""
    with torch.device("meta"):
        return build_prognosis_network(settings)


def suv_scale(settings: PrognosisSettings) -> ChannelScale:
    """SUV as the network wants it; the CT's window is scaled when it is prepared."""
    half = input_channels(settings.model) // 2
    return ChannelScale([0.0] * 2 * half, [settings.model.suv_scale] * half + [1.0] * half)


def dropped_features(network: PrognosisNetwork) -> int:
    """How many maps there are at the first dropout of the decoder."""
    return int(network.encoder.features[-2 - first_dropping(network, may_drop)])


def row_width(network: PrognosisNetwork) -> int:
    """Numbers of a row of the head."""
    head = network.head
    return head.embedded


def exported_deployment(settings: PrognosisSettings) -> DeploymentSpec:
    """Images of a patient in; logits, probabilities and the patient's risk out."""
    network = skeleton(settings)
    inputs: dict[str, tuple[int, ...]] = {
        IMAGE: (1, input_channels(settings.model), *seen_size_vox(settings)),
        FIELD: (1,),
    }
    free: dict[str, dict[int, str]] = {IMAGE: {0: IMAGES}}
    covariates = covariate_inputs(settings.model.known_covariates)
    if covariates:
        inputs[COVARIATES] = (1, covariates)
    inputs[BEFORE] = (1, row_width(network) + 1)
    if settings.infer.passes:
        inputs[MASKS] = (1, dropped_features(network))
        inputs[HEAD_MASKS] = (1, sum(network.head.widths))
        free |= {name: {0: PASSES} for name in (BEFORE, MASKS, HEAD_MASKS)}
    return DeploymentSpec(
        inputs=inputs,
        outputs=(LOGITS, CHANCES, RISKS, AFTER),
        inside=("normalisation", "encoder", "decoder", "activation", "survival head"),
        stochastic_from=MASKS if settings.infer.passes else "",
        free_axes=free,
        typical={
            IMAGE: suv_scale(settings).typical,
            FIELD: ((TYPICAL_FIELD_ML,), (0.0,)),
            BEFORE: NOTHING_BEFORE,
            **dict.fromkeys({MASKS, HEAD_MASKS} & set(inputs), NOTHING_DROPPED),
        },
    )


class ExportedPrognosis(nn.Module):
    """Images of a patient (n, channels, ...) to logits and probabilities (n, outputs, ...), risks
    and ``after``; with passes (n * passes, outputs, ...), risks (passes).
    """

    def __init__(
        self, network: PrognosisNetwork, scale: ChannelScale, *, covariates: bool, passes: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.scale = scale
        self.covariates = covariates
        self.passes = passes

    def forward(self, image: Tensor, field_ml: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """``others`` are the covariates, where there are any, ``before``, and the masks."""
        images, network = self.scale(image), self.network
        known = field_ml.new_zeros(1, 0)
        if self.covariates:
            known, *rest = others
            others = tuple(rest)
        before, *masks = others
        count = before.shape[0]
        if self.passes:
            shared = SharedPass(network, images, drops=may_drop)
            bottleneck = spread(shared.skips[-1], count)
            logits = shared.logits_of_all(masks[0])
            images = spread(images, count)
        else:
            skips = network.encoder(images)
            bottleneck, logits = skips[-1], network.decoder(skips)[0]
        rows = network.rows(bottleneck, logits, images)
        summed = rows.reshape(-1, count, rows.shape[1]).sum(0)
        seen = torch.ones_like(image[:, 0].flatten(1)[:, 0]).sum().expand(count, 1)
        after = before + torch.cat([summed, seen], dim=1)
        means = after[:, :-1] / after[:, -1:]
        embedded = network.embedding(means, field_ml.expand(count), known.expand(count, -1))
        if self.passes:
            own = torch.split(masks[1], list(network.head.widths), dim=1)
            risks = network.head.with_masks(embedded, own)
        else:
            risks = network.head(embedded)
        return logits, chances_of(logits, regions=not network.exclusive), risks, after


def exported_prognosis(settings: PrognosisSettings, network: Any) -> ExportedPrognosis:
    """The network with what its settings say stands around it."""
    return ExportedPrognosis(
        network,
        suv_scale(settings),
        covariates=covariate_inputs(settings.model.known_covariates) > 0,
        passes=settings.infer.passes > 0,
    )


def masks_of_passes(
    network: PrognosisNetwork, keys: Tensor, head_keys: Tensor
) -> tuple[Tensor, Tensor]:
    """The masks (passes, features) of the decoder and (passes, widths) of the head, as PyTorch's
    own passes with these keys (passes) draw them.
    """
    drop: Any = network.decoder.dropouts[first_dropping(network, may_drop)]
    decoder = drop.factors(keys, dropped_features(network))
    drops: Sequence[Any] = list(network.head.dropouts)
    head = [
        one.factors(head_keys, width) for one, width in zip(drops, network.head.widths, strict=True)
    ]
    return decoder, torch.cat(head, dim=1)
