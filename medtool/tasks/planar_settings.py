"""The sections of a preset of a segmentation slice by slice; tasks extend them.

The defaults are those of a classic U-Net at 256 x 256 pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medtool.config.sections import Section
from medtool.tasks.segmentation_settings import (
    Count,
    MaskInferSection,
    Positive,
    SegmentationDataSection,
    SegmentationMetricsSection,
    SegmentationSettings,
    SegmentationTrainSection,
)

# Prepared masks hold bytes.
LARGEST_ID = 255

Probability = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PlanarPreparationSection(Section):
    """How slices are brought to one size and one scale."""

    size_px: Annotated[list[Count], Field(min_length=2, max_length=2)] = [256, 256]
    """Rows and columns that the network sees; slices are resized to it, whatever their aspect."""
    intensity: Literal["auto", "8-bit", "window", "percentiles"] = "auto"
    """What becomes 0 and 1: 0 and 255 of a picture, the ends of a window in HU, or two percentiles
    of the image itself. auto is settled by the training images."""
    window_level_hu: float = 40.0
    """Middle of the window."""
    window_width_hu: Positive = 400.0
    """Width of the window."""
    low_percentile: Percentile = 0.5
    """Percentile of an image that becomes 0."""
    high_percentile: Percentile = 99.5
    """Percentile of an image that becomes 1."""


class PlanarDataSection(SegmentationDataSection):
    """Where images and masks are, and what the labels mean."""

    # Slices have a preparation of their own.
    preparation: PlanarPreparationSection = PlanarPreparationSection()  # type: ignore[assignment]
    """How slices are prepared; the cache depends on this table."""


class PlanarModelSection(Section):
    """A U-Net for slices: of two convolutions a level, or with a timm model as its encoder."""

    input_channels: Literal[1, 3] = 1
    """1 for grey images, 3 for colour; grey images are then repeated."""
    first_features: Count = 64
    """Features at full resolution; they double from level to level."""
    levels: Annotated[int, Field(ge=2, le=8)] = 5
    """Levels of resolution, the bottleneck among them."""
    encoder: str = ""
    """Name of a timm model that takes the place of the encoder; "" for none."""
    attention_gates: bool = False
    """Whether the decoder weighs what it takes over from the encoder."""
    encoder_dropout: Share = 0.0
    """Share of the encoder's feature maps that are dropped while training."""
    dropout: Share = 0.0
    """Share of the decoder's feature maps that are dropped while training."""


class PlanarMetricsSection(SegmentationMetricsSection):
    """What is measured of masks."""

    primary: Literal["dice", "loss"] = "dice"
    """What chooses the best checkpoint, on the selection part: the Dice, or the loss."""


class PlanarAugmentSection(Section):
    """Random changes of training slices, image and mask together."""

    kind: Literal["random", "fourfold", "none"] = "random"
    """random: each change by its own probability; fourfold: an epoch shows every slice as it is,
    with its columns flipped, its rows flipped, and turned (train.examples_per_case has to be 4)."""
    flip_rows_probability: Probability = 0.5
    """How often up and down change places."""
    flip_columns_probability: Probability = 0.5
    """How often left and right change places."""
    rotation_probability: Probability = 0.5
    """How often a slice is turned."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Largest angle, in either direction."""

    def without_mirrors(self) -> tuple[str, ...]:
        """Assignments after which nothing is mirrored any more; () where nothing is."""
        flips = ("augment.flip_rows_probability=0", "augment.flip_columns_probability=0")
        if self.kind == "fourfold":
            return ("augment.kind=random", *flips)
        often = (self.flip_rows_probability, self.flip_columns_probability)
        some = self.kind == "random" and any(often)
        return tuple(f for f, p in zip(flips, often, strict=True) if p) if some else ()


class PlanarTrainSection(SegmentationTrainSection):
    """The training run of a segmentation slice by slice."""

    epochs: Count = 40
    """Epochs."""
    batch_cases: Count = 32
    """Slices of one step on each device."""
    accumulate: Count = 1
    """Steps whose gradients are added before the weights move."""
    examples_per_case: Count = 1
    """Slices of each case that an epoch shows; of volumes those are drawn at random."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """The optimiser."""
    learning_rate: Positive = 1e-3
    """Rate of all groups where no stages are given."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of weights; biases and norms have none."""
    schedule: Literal["constant", "cosine", "poly", "plateau"] = "plateau"
    """How rates change within the run, as a factor on the rates of the stage."""
    gradient_clip: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0 for none."""
    foreground_share: Probability = 0.5
    """Share of the slices of a volume that are drawn among those with a label."""
    loss: Literal[
        "dice+cross-entropy", "dice", "cross-entropy", "focal", "tversky", "focal-tversky"
    ] = "dice+cross-entropy"
    """What is minimised; of one structure the cross-entropy is the binary one."""
    batch_dice: bool = True
    """Whether the Dice loss sums over the slices of a step first."""
    dice_smooth: Positive = 1e-5
    """What is added to overlaps, above and below, in the Dice and Tversky losses."""


class PlanarInferSection(MaskInferSection):
    """How a trained network answers, several slices at a time."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability over which a pixel belongs to a structure, where structures do not share one
    softmax."""
    batch_slices: Count = 8
    """Slices that pass the network at a time."""
    least_volumes_ml: dict[str, list[Positive]] = {}
    """By label, volumes under which pieces may be removed; each is tried on the selection part,
    and the best is kept where it helped."""


class PlanarSettings(SegmentationSettings):
    """A resolved preset of a segmentation slice by slice."""

    data: PlanarDataSection = PlanarDataSection()
    """Where images and masks are, and how slices are prepared."""
    # The plan of volumes has no place here.
    model: PlanarModelSection = PlanarModelSection()  # type: ignore[assignment]
    """The network."""
    metrics: PlanarMetricsSection = PlanarMetricsSection()
    """What is measured."""
    augment: PlanarAugmentSection = PlanarAugmentSection()  # type: ignore[assignment]
    """Random changes of training slices."""
    train: PlanarTrainSection = PlanarTrainSection()
    """The training run."""
    # Nothing is answered window by window.
    infer: PlanarInferSection = PlanarInferSection()  # type: ignore[assignment]
    """How a trained network answers."""

    @model_validator(mode="after")
    def _can_work(self) -> PlanarSettings:
        largest = max((i for ids in self.data.label_ids.values() for i in ids), default=0)
        if max(largest, self.data.ignore_id or 0) > LARGEST_ID:
            raise ValueError(f"data.label_ids and data.ignore_id go up to {LARGEST_ID}")
        if self.augment.kind == "fourfold":
            # Listing tasks must do without numpy.
            from medtool.nets.augment.planar import FOURFOLD

            if self.train.examples_per_case != FOURFOLD:
                raise ValueError(
                    f"augment.kind fourfold needs train.examples_per_case = {FOURFOLD}, "
                    f"not {self.train.examples_per_case}"
                )
        return self
