"""The sections of a preset of a prognosis: outlines, risks, and how sure they are; tasks extend it.

The defaults are those of the reference: a classic U-Net at 256 x 256 pixels whose bottleneck also
says the risk.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medtool.config.sections import NotNegative, Section
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.segmentation_settings import (
    Count,
    MaskInferSection,
    Positive,
    SegmentationMetricsSection,
    SegmentationSettings,
    SegmentationTrainSection,
)

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
# A share that is some, and not all.
Part = Annotated[float, Field(gt=0, lt=1)]


class CovariateSection(Section):
    """A covariate as the training cases have it: a number with its spread, or a word of several."""

    name: str
    """Its column."""
    mean: float = 0.0
    """Mean of the numbers; cases without one are taken to have it."""
    spread: Positive = 1.0
    """Standard deviation of the numbers."""
    levels: list[str] = []
    """Words that occur, each with an input of its own; [] where the column holds numbers."""


class PrognosisModelSection(Section):
    """A U-Net for PET and CT, and a head on its bottleneck that says the risk."""

    kind: Literal["plain", "residual"] = "plain"
    """Kind of the encoder."""
    first_features: Count = 64
    """Features at full resolution; they double from level to level."""
    levels: Annotated[int, Field(ge=2, le=8)] = 5
    """Levels of resolution, the bottleneck among them."""
    most_features: Count = 1024
    """Where the doubling of features ends."""
    normalisation: Literal["batch", "instance"] = "batch"
    """What stands behind each convolution; batch norms of few patches learn badly."""
    patch_size_vox: Annotated[list[Count], Field(max_length=3)] = []
    """Patches (z, y, x) that a network of three dimensions sees; [] for whole slices."""
    neighbour_slices: Annotated[int, Field(ge=0)] = 0
    """Slices on each side that are seen with a slice, as further channels."""
    stems: Literal["one", "two"] = "one"
    """one: PET and CT enter together; two: each has a first level of its own."""
    suv_scale: Positive = 5.0
    """SUV that the network sees as 1."""
    dropout: Share = 0.3
    """Share of feature maps that are dropped in the decoder."""
    dropout_level: Count = 2
    """Level of the decoder, from the deepest as 1, after which they are dropped: the later, the
    cheaper are many passes."""
    pooling: Literal["global", "lesion", "both"] = "global"
    """What the risk is read from: the mean over the image, or over what is taken for tumour, with
    its volume and uptake."""
    head_features: list[Count] = [512, 64]
    """Features of each hidden layer of the head that says the risk."""
    head_dropout: Share = 0.3
    """Share of features that are dropped before each layer of that head."""
    covariates: list[str] = []
    """Columns of the table of patients that the risk is read from as well."""
    known_covariates: list[CovariateSection] = []
    """What their values are like; [] is planned."""


class PrognosisMetricsSection(SegmentationMetricsSection):
    """What is measured of masks, risks and uncertainties."""

    primary: Literal["dice_and_c_index", "dice", "harrell_c", "loss"] = "dice_and_c_index"
    """What chooses the best checkpoint, on the selection part: the mean of Dice and Harrell's C
    (of one of them, where the other is not defined), one of both, or the loss."""
    lesions: list[str] = []
    """Labels of which each piece is a lesion: counted as found, missed or invented, the last two
    with their volumes; [] for all."""
    lesion_neighbours: Literal[6, 18, 26] = 18
    """Which voxels of a lesion touch: by a face (6), by an edge too (18, as autoPET counts), by a
    corner too (26)."""
    horizons_days: Annotated[list[Positive], Field(min_length=1)] = [365.0, 730.0, 1095.0]
    """Times at which survival is predicted and judged."""


class PrognosisAugmentSection(Section):
    """Random changes of training slices or patches; PET, CT and mask are turned together."""

    enabled: bool = True
    """Whether they are changed at all."""
    flips: list[Literal["columns", "rows", "slices"]] = ["columns"]
    """What may change its direction: columns run from right to left, rows from front to back."""
    flip_probability: Probability = 0.5
    """How often each does."""
    rotation_probability: Probability = 0.5
    """How often they are turned, in the plane of the slices."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest angle, in either direction."""
    suv_change: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """SUV is multiplied by up to so much more or less than 1: more would be another patient."""
    suv_noise: NotNegative = 0.1
    """Largest standard deviation of noise that is added, in SUV."""
    ct_gamma: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """The curve of the CT is bent by a power of up to so much more or less than 1."""
    ct_noise: NotNegative = 0.02
    """Largest standard deviation of noise that is added, as a share of half the window of HU."""

    def without_mirrors(self) -> tuple[str, ...]:
        """Assignments after which left stays left; () where it does."""
        if not (self.enabled and self.flip_probability and "columns" in self.flips):
            return ()
        others = ", ".join(f'"{flip}"' for flip in self.flips if flip != "columns")
        return (f"augment.flips=[{others}]",)


class PrognosisTrainSection(SegmentationTrainSection):
    """The training run of a prognosis."""

    epochs: Count = 30
    """Epochs."""
    batch_cases: Count = 8
    """Cases of one step on each device; their patients are one another's risk sets."""
    examples_per_case: Count = 1
    """How often an epoch shows each case."""
    slices_per_case: Count = 8
    """Slices, or patches, of a case that are shown at a time; their mean stands for the patient."""
    foreground_share: Probability = 0.5
    """Share of them that is drawn where there is tumour, which the mean takes into account."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """The optimiser."""
    learning_rate: Positive = 1e-4
    """Rate of all groups where no stages are given."""
    weight_decay: NotNegative = 0.0
    """Weight decay of weights; biases, norms and the weights of losses have none."""
    schedule: Literal["constant", "cosine", "poly", "plateau"] = "plateau"
    """How rates change within the run, as a factor on the rates of the stage."""
    early_stopping_epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs without a better primary metric before the run ends; 0 for never."""
    loss: Literal[
        "focal-tversky",
        "focal-tversky+cross-entropy",
        "tversky",
        "dice",
        "dice+cross-entropy",
        "cross-entropy",
        "focal",
    ] = "focal-tversky"  # type: ignore[assignment]
    """What is minimised of the outlines; one structure takes the binary cross-entropy."""
    batch_dice: bool = True
    """Whether overlaps are summed over the slices of a patient first."""
    overlap_smooth: Positive = 1e-5
    """What is added to overlaps, above and below."""
    objectives: Literal["both", "segmentation", "survival"] = "both"
    """What is learned; the other two are what the whole has to be better than."""
    segmentation_weight: Positive = 0.6
    """Weight of the loss of outlines."""
    survival_weight: Positive = 0.4
    """Weight of Cox's loss."""
    weighting: Literal["fixed", "learned"] = "fixed"
    """Whether these weights stay, or are learned with the network (Kendall 2018)."""
    ties: Literal["efron", "breslow"] = "efron"
    """How events at one time are counted in Cox's loss."""
    risk_sets: Literal["cached", "memory", "batch"] = "cached"
    """cached: all patients of the step, one at a time in memory, by two passes; batch: all at
    once; memory: with what earlier steps gave, which is approximate."""
    memory_patients: Count = 128
    """Patients that the memory holds."""
    memory_epochs: Count = 2
    """Epochs after which it forgets one."""
    baselines: bool = False
    """Whether outlines alone and survival alone are trained as well, with the same budget, and Cox
    regressions on the volume alone and on the covariates alone are fitted."""
    baseline_covariates: list[str] = []
    """Columns of that regression; [] takes those that the network sees."""


class PrognosisInferSection(MaskInferSection):
    """How a trained network answers, and how sure it has to be."""

    largest_component: Literal["auto", "always", "never"] = "never"
    """Whether only the largest piece of a label is kept; tumours may have many."""
    probabilities: bool = True
    """Whether the probability of each label is written beside the mask; without it the
    calibration of voxels cannot be judged."""
    passes: Annotated[int, Field(ge=0)] = 30
    """Passes with dropout at work; 0 answers once, without, and says nothing of uncertainty."""
    batch_slices: Count = 8
    """Slices that pass the network at a time."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Step from patch to patch, as a share of it."""
    batch_windows: Count = 2
    """Patches that pass the network at a time."""
    conformal_risk: Part = 0.1
    """How often the sets "lesion present" and the intervals of volumes may be wrong."""
    review_share: Part = 0.2
    """Share of cases like those of the selection part that each reason sends to review."""


class PrognosisSettings(SegmentationSettings):
    """A resolved preset of a prognosis."""

    data: PrognosisDataSection = PrognosisDataSection()
    """Where studies, masks and outcomes are, and how they are prepared."""
    # The plan of volumes has no place here.
    model: PrognosisModelSection = PrognosisModelSection()  # type: ignore[assignment]
    """The network."""
    metrics: PrognosisMetricsSection = PrognosisMetricsSection()
    """What is measured."""
    augment: PrognosisAugmentSection = PrognosisAugmentSection()  # type: ignore[assignment]
    """Random changes of training slices."""
    train: PrognosisTrainSection = PrognosisTrainSection()
    """The training run."""
    infer: PrognosisInferSection = PrognosisInferSection()  # type: ignore[assignment]
    """How a trained network answers."""

    @model_validator(mode="after")
    def _can_work(self) -> PrognosisSettings:
        model, preparation = self.model, self.data.preparation
        volumes = bool(model.patch_size_vox)
        if volumes and (len(model.patch_size_vox) != 3 or not preparation.spacing_mm):
            raise ValueError(
                "model.patch_size_vox has three numbers and needs data.preparation.spacing_mm"
            )
        if not volumes and not preparation.size_px:
            raise ValueError("data.preparation.spacing_mm needs model.patch_size_vox")
        if volumes and model.neighbour_slices:
            raise ValueError("model.neighbour_slices is for slices, not for patches")
        if model.stems == "two" and model.kind != "plain":
            raise ValueError("model.stems = two needs model.kind = plain")
        if not model.dropout_level < model.levels:
            raise ValueError(
                f"model.dropout_level goes up to {model.levels - 1}, the levels of the decoder"
            )
        if self.train.objectives == "survival" and model.pooling != "global":
            raise ValueError("train.objectives = survival needs model.pooling = global")
        return self
