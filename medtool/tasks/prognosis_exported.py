"""A prognosis as it is exported, and what stands for its network where another engine answers.

The file takes images of one patient, slices or patches, and gives their outlines and the patient's
risk. Of more images than memory allows the caller passes some at a time: ``after`` of one call,
sums over images, is ``before`` of the next, and zeros stand before the first. With Monte Carlo
passes the masks of their dropout are inputs, one row a pass, so that whoever draws them decides;
what comes before the first dropout is computed once for all passes of a call, and ones stand for a
pass in which nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medtool.core.errors import UsageError
from medtool.core.records import DeploymentSpec
from medtool.nets.monte_carlo import SharedPass, first_dropping, may_drop, spread
from medtool.nets.scaling import ChannelScale
from medtool.tasks.prognosis_covariates import covariate_inputs
from medtool.tasks.prognosis_decided import decided_of
from medtool.tasks.prognosis_network import (
    PrognosisNetwork,
    build_prognosis_network,
    input_channels,
    seen_size_vox,
)
from medtool.tasks.segmentation_exported import CHANCES, IMAGE, IMAGES, LOGITS, chances_of

if TYPE_CHECKING:
    from medtool.predict.model import Model
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
    """How many maps there are at the first dropout of the decoder of a whole network."""
    return int(network.encoder.features[-2 - first_dropping(network, may_drop)])


def row_width(network: PrognosisNetwork) -> int:
    """Numbers of a row of the head."""
    head = network.head
    return head.embedded


def exported_deployment(settings: PrognosisSettings, models: int = 1) -> DeploymentSpec:
    """Images of a patient in; logits, probabilities and the patient's risk out, of ``models``."""
    network = skeleton(settings)
    inputs: dict[str, tuple[int, ...]] = {
        IMAGE: (1, input_channels(settings.model), *seen_size_vox(settings)),
        FIELD: (1,),
    }
    free: dict[str, dict[int, str]] = {IMAGE: {0: IMAGES}}
    covariates = covariate_inputs(settings.model.known_covariates)
    if covariates:
        inputs[COVARIATES] = (1, covariates)
    inputs[BEFORE] = (1, models * (row_width(network) + 1))
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
        has_background=network.exclusive,
    )


class JoinedPrognosis(nn.Module):
    """Several networks of one shape; ``centres`` are the mean risks of their training patients."""

    def __init__(self, networks: Sequence[nn.Module], centres: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("centres", torch.tensor(centres, dtype=torch.float32))


class ExportedPrognosis(nn.Module):
    """Images of a patient (n, channels, ...) to logits and probabilities (n, outputs, ...), risks
    and ``after``; with passes (n * passes, outputs, ...), risks (passes). Each of several models
    counts as further passes, those of one pass behind one another, its risks beside its centre.

    Masks are as wide as a whole network has features, ``head_widths`` those of the head's layers. A
    pruned one takes the first: dropout draws feature by feature, so that these are its own.
    """

    centres: Tensor

    def __init__(
        self,
        networks: Sequence[nn.Module],
        centres: Tensor,
        scale: ChannelScale,
        *,
        covariates: bool,
        passes: bool,
        head_widths: Sequence[int],
    ) -> None:
        super().__init__()
        # One keeps the names of its layers.
        self.network = networks[0] if len(networks) == 1 else nn.ModuleList(networks)
        self.register_buffer("centres", centres)
        self.scale = scale
        self.covariates = covariates
        self.passes = passes
        self.head_widths = tuple(head_widths)

    def forward(self, image: Tensor, field_ml: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """``others`` are the covariates, where there are any, ``before``, and the masks."""
        known = field_ml.new_zeros(1, 0)
        if self.covariates:
            known, *rest = others
            others = tuple(rest)
        before, *masks = others
        images, passes = self.scale(image), before.shape[0]
        networks: list[Any] = (
            list(self.network) if isinstance(self.network, nn.ModuleList) else [self.network]
        )
        found = [
            self._one(network, images, (field_ml, known), own, masks)
            for network, own in zip(networks, before.chunk(len(networks), dim=1), strict=True)
        ]
        every = [logits.reshape(-1, passes, *logits.shape[1:]) for logits, _, _ in found]
        logits = torch.stack(every, dim=2).flatten(0, 2) if len(found) > 1 else found[0][0]
        risks = torch.stack([one for _, one, _ in found], dim=1) - self.centres
        after = torch.cat([one for _, _, one in found], dim=1)
        regions = not networks[0].exclusive
        return logits, chances_of(logits, regions=regions), risks.flatten(), after

    def _one(
        self,
        network: PrognosisNetwork,
        images: Tensor,
        known: tuple[Tensor, Tensor],
        before: Tensor,
        masks: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n * passes, ...), risks (passes) and ``after`` (passes, ...) of one network."""
        count, seen = before.shape[0], images.shape[0]
        if self.passes:
            shared = SharedPass(network, images, drops=may_drop)
            bottleneck = spread(shared.skips[-1], count)
            logits = shared.logits_of_all(masks[0][:, : shared.maps.shape[1]])
            images = spread(images, count)
        else:
            skips = network.encoder(images)
            bottleneck, logits = skips[-1], network.decoder(skips)[0]
        rows = network.rows(bottleneck, logits, images)
        summed = rows.reshape(-1, count, rows.shape[1]).sum(0)
        after = before + torch.cat([summed, torch.full_like(summed[:, :1], seen)], dim=1)
        means = after[:, :-1] / after[:, -1:]
        field_ml, covariates = (part.expand(count, *part.shape[1:]) for part in known)
        embedded = network.embedding(means, field_ml, covariates)
        if not self.passes:
            return logits, network.head(embedded), after
        each = torch.split(masks[1], list(self.head_widths), dim=1)
        own = [mask[:, :width] for mask, width in zip(each, network.head.widths, strict=True)]
        return logits, network.head.with_masks(embedded, own), after


def exported_prognosis(settings: PrognosisSettings, network: Any) -> ExportedPrognosis:
    """The network, or several joined, with what their settings say stands around them."""
    joined = isinstance(network, JoinedPrognosis)
    return ExportedPrognosis(
        list(network.networks) if joined else [network],
        # Of one model the risk is told as it is; its centre is taken off where answers are made.
        network.get_buffer("centres") if joined else torch.zeros(1),
        suv_scale(settings),
        covariates=covariate_inputs(settings.model.known_covariates) > 0,
        passes=settings.infer.passes > 0,
        head_widths=skeleton(settings).head.widths,
    )


def joined_prognosis(members: Sequence[Model]) -> JoinedPrognosis:
    """Models that answer as one. Raises UsageError where they see other images, or are of another
    shape.
    """
    first, *others = [_shape_key(member.task.settings.as_dict()) for member in members]
    for number, other in enumerate(others, start=2):
        if other != first:
            raise UsageError(
                "Models of other images, shapes or covariates cannot become one file.",
                met=f"model {number}, {members[number - 1].name}, differs from the first",
                wanted="models of the same [data.preparation], [model] and [infer]",
                how="optimise each alone.",
            )
    centres = [decided_of(member.document).centre for member in members]
    return JoinedPrognosis([member.network for member in members], centres)


def _shape_key(preset: Mapping[str, Any]) -> str:
    data, model = preset["data"], {k: v for k, v in preset["model"].items() if k != "weights"}
    return repr((data["preparation"], data["label_ids"], model, preset["infer"]))


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
