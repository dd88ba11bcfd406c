"""The network of a prognosis: a U-Net on PET and CT with a head for the risk on its bottleneck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from medtool.core.errors import UsageError
from medtool.core.plan import NetworkPlan
from medtool.core.records import DeploymentSpec
from medtool.nets.classic_unet import CONVOLUTIONS_PER_LEVEL
from medtool.nets.convolutions import ConvolutionStyle
from medtool.nets.encoders import PlainEncoder, divide_first_level
from medtool.nets.loss_weights import LossWeights
from medtool.nets.patient_risks import EmbeddingMemory
from medtool.nets.survival_head import SurvivalHead
from medtool.nets.unet import UNet, build_unet, unet_channel_paths
from medtool.tasks.prognosis_covariates import covariate_inputs
from medtool.tasks.prognosis_labels import CHANNELS
from medtool.tasks.segmentation_labels import has_regions, output_count

if TYPE_CHECKING:
    from medtool.tasks.prognosis_settings import PrognosisModelSection, PrognosisSettings

# What is learned, in the order of the weights of its losses.
OBJECTIVES = ("segmentation", "survival")
# A probe of a network of volumes has so many voxels at the bottleneck, along each axis.
PROBE_VOXELS = 2
# Of the voxels of a slice with tumour.
EXPECTED_SHARE = 0.01


class Answer(NamedTuple):
    """What the network says of images (n): logits (n, outputs, ...), and risks (n)."""

    logits: Tensor
    risks: Tensor


class PrognosisNetwork(nn.Module):
    """``encoder``, ``decoder`` and ``head``; ``memory`` and ``weights`` where training has them.

    ``uptake_channel`` is that of the SUV of the image itself, and ``exclusive`` says whether the
    outputs share one softmax, the background first.
    """

    def __init__(
        self,
        unet: UNet,
        head: SurvivalHead,
        *,
        uptake_channel: int,
        exclusive: bool,
        memory: EmbeddingMemory | None = None,
        weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = unet.encoder, unet.decoder, head
        self.uptake_channel = uptake_channel
        self.exclusive = exclusive
        self.memory = memory
        self.weights = weights

    def look(self, images: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (n, outputs, ...) of images (n, channels, ...), and the head's rows (n, ...)."""
        skips = self.encoder(images, keys)
        logits: Tensor = self.decoder(skips, keys)[0]
        return logits, self.rows(skips[-1], logits, images)

    def rows(self, bottleneck: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The head's rows (n, ...) of images that were looked at."""
        place = self.uptake_channel
        return self.head.rows(bottleneck, self.tumour(logits), images[:, place : place + 1])

    def tumour(self, logits: Tensor) -> Tensor:
        """The probability (n, 1, ...) that a voxel is tumour of any kind."""
        if self.exclusive:
            return 1 - logits.float().softmax(1)[:, :1]
        return logits.float().sigmoid().amax(1, keepdim=True)

    def embedding(self, rows: Tensor, field_ml: Tensor, covariates: Tensor) -> Tensor:
        """(n, ...) what the risk of patients is read from: their mean rows (n, ...), the volumes
        (n) of their images, and their covariates (n, inputs).
        """
        embedded = self.head.embedding(rows, field_ml)
        return torch.cat([embedded, covariates.to(embedded.dtype)], dim=1)

    def channel_paths(self, images: Tensor, *others: Tensor) -> list[Tensor]:
        """Ends of all ways through the U-Net; what the head pools is one, so that it stays whole.

        For tracing which channels belong together (``medtool.optimize.prune``).
        """
        skips = self.encoder(images)
        return [*unet_channel_paths(self.decoder, skips), skips[-1]]

    def forward(self, images: Tensor, field_ml: Tensor, covariates: Tensor | None = None) -> Answer:
        """Each image (n, channels, ...) as a patient of its own: what is exported and probed."""
        logits, rows = self.look(images)
        known = rows.new_zeros(len(rows), 0) if covariates is None else covariates
        return Answer(logits, self.head(self.embedding(rows, field_ml, known)))


def build_prognosis_network(settings: PrognosisSettings) -> PrognosisNetwork:
    """The network of the preset, initialised from torch's stream.

    Raises UsageError where the size of slices or patches does not fit its levels.
    """
    model, train = settings.model, settings.train
    plan, style = network_plan(model), _style(model)
    channels = input_channels(model)
    shares = [0.0] * (model.levels - 1)
    shares[model.dropout_level - 1] = model.dropout
    unet = build_unet(
        plan, channels, output_count(settings.data), decoder_dropout=shares, style=style
    )
    if model.stems == "two" and isinstance(unet.encoder, PlainEncoder):
        divide_first_level(unet.encoder, plan, channels, style, len(CHANNELS))
    _require_fitting(settings, unet)
    _expect_little(unet, regions=has_regions(settings.data))
    head = SurvivalHead(
        plan.features[-1],
        model.head_features,
        pooling=model.pooling,
        covariates=covariate_inputs(model.known_covariates),
        dropout=model.head_dropout,
        # The encoder and the decoder have taken the numbers before.
        first_layer=2 * model.levels - 1,
    )
    return PrognosisNetwork(
        unet,
        head,
        uptake_channel=model.neighbour_slices,
        exclusive=not has_regions(settings.data),
        memory=EmbeddingMemory(train.memory_patients, head.width, oldest=train.memory_epochs)
        if train.risk_sets == "memory"
        else None,
        weights=LossWeights(len(OBJECTIVES)) if train.weighting == "learned" else None,
    )


def _expect_little(unet: UNet, *, regions: bool) -> None:
    """Begin with the share of voxels that are tumour: else hundreds of steps would learn just that
    (Lin 2017).
    """
    last = list(unet.decoder.seg_layers.values())[-1]
    bias = last.get_parameter("bias")
    with torch.no_grad():
        if regions:
            bias.fill_(math.log(EXPECTED_SHARE / (1 - EXPECTED_SHARE)))
        else:
            bias[0] = math.log(len(bias) / EXPECTED_SHARE)


def input_channels(model: PrognosisModelSection) -> int:
    """Channels of the network: SUV of a slice and its neighbours, then HU of the same."""
    return len(CHANNELS) * (2 * model.neighbour_slices + 1)


def network_plan(model: PrognosisModelSection) -> NetworkPlan:
    """The levels of the preset, in two dimensions or three."""
    dimensions = len(model.patch_size_vox) or 2
    levels = model.levels
    return NetworkPlan(
        kind=model.kind,
        features=tuple(
            min(model.first_features * 2**level, model.most_features) for level in range(levels)
        ),
        kernel_sizes=((3,) * dimensions,) * levels,
        strides=((1,) * dimensions, *((2,) * dimensions,) * (levels - 1)),
        encoder_blocks=(CONVOLUTIONS_PER_LEVEL,) * levels,
        decoder_convolutions=(CONVOLUTIONS_PER_LEVEL,) * (levels - 1),
    )


def _style(model: PrognosisModelSection) -> ConvolutionStyle:
    return ConvolutionStyle(
        model.normalisation,
        "relu" if model.kind == "plain" else "leaky-relu",
        "max-pool" if model.kind == "plain" else "stride",
    )


def seen_size_vox(settings: PrognosisSettings) -> tuple[int, ...]:
    """What the network sees at a time: rows and columns, or (z, y, x) of a patch."""
    return tuple(settings.model.patch_size_vox or settings.data.preparation.size_px)


def _require_fitting(settings: PrognosisSettings, unet: UNet) -> None:
    size, volumes = seen_size_vox(settings), bool(settings.model.patch_size_vox)
    deepest = [divmod(side, step) for side, step in zip(size, unet.size_multiple, strict=True)]
    # Norms cannot learn from a single value.
    if any(rest for _, rest in deepest) or math.prod(voxels for voxels, _ in deepest) < 2:
        raise UsageError(
            "Images of this size cannot be halved as often as the network does.",
            where="model.patch_size_vox" if volumes else "data.preparation.size_px",
            met=" x ".join(map(str, size)),
            wanted="multiples of "
            + " x ".join(map(str, unet.size_multiple))
            + ", and more than one voxel at the bottleneck",
        )


def network_groups(network: nn.Module) -> dict[str, list[nn.Module]]:
    """Encoder, decoder, survival (the head), and weighting where losses' weights are learned."""
    parts: PrognosisNetwork = network  # type: ignore[assignment]
    groups: dict[str, Sequence[nn.Module]] = {
        "encoder": [parts.encoder],
        "decoder": [parts.decoder],
        "survival": [parts.head],
        "weighting": [] if parts.weights is None else [parts.weights],
    }
    return {name: list(modules) for name, modules in groups.items() if modules}


def prognosis_deployment(settings: PrognosisSettings) -> DeploymentSpec:
    """An image as the examples give it, its volume and covariates in; logits and a risk out."""
    model = settings.model
    size = seen_size_vox(settings)
    if model.patch_size_vox:
        size = (2 ** (model.levels - 1) * PROBE_VOXELS,) * len(size)
    inputs: dict[str, tuple[int, ...]] = {
        "image": (1, input_channels(model), *size),
        "field_ml": (1,),
    }
    if covariate_inputs(model.known_covariates):
        inputs["covariates"] = (1, covariate_inputs(model.known_covariates))
    return DeploymentSpec(
        inputs=inputs,
        outputs=Answer._fields,
        inside=("encoder", "decoder", "survival head"),
        stochastic_from=f"decoder level {model.dropout_level} of {model.levels - 1}",
    )
