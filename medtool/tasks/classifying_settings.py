"""What a preset of a segmentation has besides where it names a class of each case as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from medtool.tasks.segmentation_settings import (
    SegmentationDataSection,
    SegmentationMetricsSection,
    SegmentationModelSection,
    SegmentationSettings,
    SegmentationTrainSection,
)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class ClassifyingDataSection(SegmentationDataSection):
    """Where images, masks and classes are, and what labels and classes mean."""

    names_classes: ClassVar[bool] = True

    classes: list[str] = []
    """Names of the classes, as the table of labels has them; [] is taken from the data."""
    class_pattern: str = ""
    """Regular expression over case ids whose first group is the class; "" for none."""
    lesion: str = ""
    """Label of what is classified; "" for the last one."""

    def class_values(self) -> Mapping[str, Sequence[str]]:
        """Each class by its own name."""
        return {name: (name,) for name in self.classes}


class ClassifyingModelSection(SegmentationModelSection):
    """A U-Net whose shape is planned from the data, and a head for the classes."""

    pooling: Literal["average", "mask", "both"] = "both"
    """What the head sees: the mean of all places, the mean inside the lesion (else inside all
    labels, else of all places), or both."""
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the pooled features that are dropped while training."""
    class_decoder_levels: Count = 0
    """Levels that a second decoder, of the classes alone, climbs; 0 for none: the head then sees
    the bottleneck."""


class ClassifyingMetricsSection(SegmentationMetricsSection):
    """What is measured of masks and classes."""

    primary: str = "dice_and_f1"
    """The metric that chooses the best checkpoint: dice_and_f1 is the mean of Dice and macro F1;
    without classes it becomes dice."""
    organ_name: str = "whole organ"
    """What all labels together are called in tables; "" to leave it out."""
    lesions: list[str] = []
    """Labels of which each piece is a lesion: counted as found, missed or invented, the last two
    with their volumes; [] for the one of data.lesion."""
    targets: dict[str, float] = {}
    """Values that metrics should reach, by the name of the metric; shown beside them."""


class ClassifyingTrainSection(SegmentationTrainSection):
    """The training run of a segmentation with classes."""

    class_weights: list[Annotated[float, Field(ge=0)]] = []
    """Weight of each class, of mean 1 over the training cases; [] is computed from their number."""
    class_weight_power: Share = 0.5
    """Exponent of the inverse frequency in class_weights: 0 for none, 1 for all of it."""
    class_weight_added: Annotated[float, Field(ge=0)] = 0.0
    """Cases that are added to the count of each class before."""
    class_share_first: Share = 0.1
    """Share of the class in the loss at first."""
    class_share_last: Share = 0.5
    """Share of the class in the loss at last."""
    class_hold_epochs: Count = 20
    """Epochs at the first share."""
    class_ramp_epochs: Count = 40
    """Epochs over which it rises to the last share."""
    lesion_share: Share = 0.5
    """Share of the patches that are drawn around a voxel of the lesion, where there is one."""
    least_lesion_vox: Annotated[int, Field(ge=1)] = 50
    """Voxels of the lesion that a patch needs so that its class is learned."""
    true_mask_share: Share = 0.5
    """Share of the patches whose features are pooled by the true masks, not by the network's."""


class ClassifyingSettings(SegmentationSettings):
    """A resolved preset of a segmentation with classes."""

    data: ClassifyingDataSection = ClassifyingDataSection()
    """Where images, masks and classes are, and how they are prepared."""
    model: ClassifyingModelSection = ClassifyingModelSection()
    """The network."""
    metrics: ClassifyingMetricsSection = ClassifyingMetricsSection()
    """What is measured."""
    train: ClassifyingTrainSection = ClassifyingTrainSection()
    """The training run."""
