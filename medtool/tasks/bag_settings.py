"""The sections of a preset that every bag classification has; tasks extend them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medtool.config.sections import Section, TaskSettings, TrainSection
from medtool.config.weights import PretrainedModelSection

PoolingName = Literal["max", "mean", "top-k", "lse", "noisy-or", "attention"]


class BagModelSection(PretrainedModelSection):
    """A backbone that sees slices, a head that gives each a logit, and how a bag is pooled."""

    hidden_features: Annotated[int, Field(ge=1)] = 512
    """Width of the head's hidden layer."""
    pooling: PoolingName = "max"
    """How the logits of the slices become the logit of the study."""
    top_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the slices that the pooling top-k averages (at least one slice)."""
    lse_sharpness: Annotated[float, Field(gt=0)] = 4.0
    """Sharpness r of the pooling lse: towards 0 the mean, towards infinity the maximum."""
    attention_features: Annotated[int, Field(ge=1)] = 128
    """Width of the hidden layer of the pooling attention."""
    batch_norm: Literal["auto", "frozen", "learned"] = "auto"
    """frozen: stored statistics, so chunks change nothing; learned: a chunk's own; auto: learned
    where the network starts from scratch, else frozen."""
    chunk_slices: Annotated[int, Field(ge=1)] = 32
    """Slices that pass the network at a time, in training and at inference."""

    @property
    def batch_norm_frozen(self) -> bool:
        """Whether batch norms keep the statistics that they start with."""
        given = bool(self.weights.repository or self.weights.path)
        starts_random = self.from_scratch or not given
        return self.batch_norm == "frozen" or (self.batch_norm == "auto" and not starts_random)


class BagTrainSection(TrainSection):
    """The training run of a bag classification."""

    loss: Literal["bce", "focal"] = "bce"
    """Binary cross-entropy, or focal loss."""
    class_weight: Literal["none", "balanced"] | Annotated[float, Field(gt=0)] = "balanced"
    """Weight of a positive study: none is 1, balanced is negatives over positives."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """How strongly the focal loss turns to hard studies."""
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weight of positives in the focal loss (negatives have 1 - alpha); by default none."""
    max_slices: Annotated[int, Field(ge=0)] = 0
    """Slices of a study drawn at each step of training; 0 for all. Evaluation sees all."""
    feature_copies: Annotated[int, Field(ge=0)] = 0
    """Augmented copies a slice whose features of frozen parts are computed once; 0 for never."""

    @model_validator(mode="after")
    def _prior_corrected_once(self) -> BagTrainSection:
        if self.sampling == "balanced" and self.class_weight != "none":
            raise ValueError(
                "sampling = 'balanced' and a class_weight correct the prior twice: "
                "set class_weight = 'none'"
            )
        if self.loss == "focal" and self.focal_alpha is not None and self.class_weight != "none":
            raise ValueError(
                "focal_alpha and class_weight weight the classes twice: set class_weight = 'none'"
            )
        return self


class BagAugmentSection(Section):
    """Random changes of training slices; tasks add their own keys."""

    enabled: bool = True
    """Whether training slices are changed at all."""


class BagSettings(TaskSettings):
    """A resolved preset of a bag classification."""

    model: BagModelSection = BagModelSection()
    """The network."""
    augment: BagAugmentSection = BagAugmentSection()
    """Random changes of training slices."""
    train: BagTrainSection = BagTrainSection()
    """The training run."""
