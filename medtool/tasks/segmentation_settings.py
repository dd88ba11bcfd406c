"""The sections of a preset that every segmentation has; tasks extend them.

What is empty or 0 is planned from the training data (``medtool.data.planning``) and then stands in
the preset of the run and in its checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medtool.config.sections import (
    DataSection,
    InferSection,
    MetricsSection,
    Section,
    TaskSettings,
    TrainSection,
)
from medtool.core.errors import UsageError

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# A coded concept of DICOM: code, scheme, meaning.
CodeText = Annotated[list[str], Field(min_length=3, max_length=3)]


class IntensitiesSection(Section):
    """Values of one channel inside the labels of the training cases, pooled."""

    mean: float
    """Mean."""
    median: float
    """Median."""
    std: Annotated[float, Field(ge=0)]
    """Standard deviation."""
    low: float
    """Lowest value."""
    high: float
    """Highest value."""
    percentile_00_5: float
    """Percentile 0.5: lower values are clipped to it."""
    percentile_99_5: float
    """Percentile 99.5: higher values are clipped to it."""


class SegmentationPreparationSection(Section):
    """How images are brought to one grid and one scale."""

    configuration: Literal["auto", "2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"] = "auto"
    """Which network is planned; auto: 3d_fullres, and 2d where images are slices."""
    orientation: Literal["stored", "ras"] = "stored"
    """Axes as files have them, or turned first so that they run to the Superior, the Anterior and
    the Right, as models of nnU-Net's NibabelIOWithReorient want it."""
    axes_forward: list[int] = []
    """Order of the array axes, the coarsest first; [] is planned."""
    spacing_mm: list[Positive] = []
    """Voxel spacing that images are resampled to, in that order; [] is planned."""
    normalisation: list[Literal["ct", "z-score", "rescale-0-1", "rgb-0-1", "none"]] = []
    """How the values of each channel are scaled; [] is planned."""
    mask_for_normalisation: list[bool] = []
    """Whether a channel is scaled inside its non-zero voxels only; [] is planned."""
    intensities: list[IntensitiesSection] = []
    """Pooled values of each channel, for the normalisation ct; [] is planned."""


class SegmentationDataSection(DataSection):
    """Where images and masks are, and what the labels mean."""

    patient_pattern: str = ""
    """Regular expression over case ids whose first group is the patient; "" for none."""
    channels: list[str] = []
    """Names of the channels, in order; [] is taken from the data set."""
    label_ids: dict[str, list[int]] = {}
    """Ids of each label in the masks, several where it is a region; {} is taken from the data."""
    regions_order: list[int] = []
    """Id to write for each region, later ones over earlier; [] where labels do not overlap."""
    ignore_id: Annotated[int, Field(ge=0)] | None = None
    """Id of voxels that nobody labelled: nothing is learned from them."""
    preparation: SegmentationPreparationSection = SegmentationPreparationSection()
    """How images are prepared; the cache depends on this table."""


class SegmentationModelSection(Section):
    """A U-Net whose shape is planned from the data."""

    planner: Literal["default", "residual-m", "residual-l", "residual-xl"] = "default"
    """Rules of the plan: nnU-Net's, or those of its residual encoder presets."""
    budget: Literal["auto", "cpu", "gpu"] = "auto"
    """Machine that the plan is for; auto: gpu where there is one, else cpu."""
    memory_gb: Positive | None = None
    """Memory of the GPU that the plan is for; by default the planner's own."""
    kind: Literal["planned", "plain", "residual"] = "planned"
    """Kind of the encoder."""
    features: list[Count] = []
    """Features of each stage, the full resolution first; [] is planned."""
    kernel_sizes: list[list[Count]] = []
    """Kernel of each stage; [] is planned."""
    strides: list[list[Count]] = []
    """Stride at the begin of each stage; [] is planned."""
    encoder_blocks: list[Count] = []
    """Convolutions, or residual blocks, of each stage of the encoder; [] is planned."""
    decoder_convolutions: list[Count] = []
    """Convolutions of each stage of the decoder, the deepest first; [] is planned."""
    patch_size_vox: list[Count] = []
    """Size of the patches that the network sees; [] is planned."""
    deep_supervision: bool = True
    """Whether lower resolutions learn as well."""
    attention_gates: bool = False
    """Whether the decoder weighs what it takes over from the encoder."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the decoder's feature maps that are dropped while training."""


class SegmentationMetricsSection(MetricsSection):
    """What is measured of masks."""

    primary: str = "dice"
    """The metric that chooses the best checkpoint and is shown first."""
    nsd_tolerance_mm: Positive = 2.0
    """Distance within which surfaces count as equal, for the normalised surface Dice."""
    nsd_tolerances_mm: dict[str, Positive] = {}
    """The same by label, for those that have one of their own."""
    lesions: list[str] = []
    """Labels of which each piece is a lesion: counted as found, missed or invented, the last two
    with their volumes; [] for none."""
    lesion_neighbours: Literal[6, 18, 26] = 26
    """Which voxels of a lesion touch: by a face (6), by an edge too (18), by a corner too (26)."""
    lesion_rule: Literal["touch", "covered", "iou"] = "touch"
    """When a lesion is found: one voxel of it is enough, a share of it is needed, or a lesion of
    the answer has a least IoU with it."""
    lesion_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """That share, or that IoU."""
    subgroups: list[str] = []
    """Facts of the cases by which tables of subgroups are made."""


# Mirrored so that the patient's left side becomes the right one, and in no other way.
LEFT_RIGHT = "left-right"


class SegmentationAugmentSection(Section):
    """Random changes of training patches."""

    enabled: bool = True
    """Whether patches are changed at all."""
    mirror: bool | Literal["left-right"] | None = None
    """Whether patches are mirrored: along all axes, or the patient's left for right alone; by
    default along all where no two labels are left and right of one another."""

    def without_mirrors(self) -> tuple[str, ...]:
        """Assignments after which nothing is mirrored any more; () where nothing is."""
        return ("augment.mirror=false",) if self.enabled and self.mirror else ()


class SegmentationTrainSection(TrainSection):
    """The training run of a segmentation."""

    epochs: Count = 1000
    """Epochs."""
    batch_cases: Annotated[int, Field(ge=0)] = 0
    """Patches of one step on each device; 0 is planned."""
    examples_per_case: Count = 4
    """How often an epoch shows each case, another patch each time."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    """The optimiser."""
    learning_rate: Positive = 2e-3
    """Rate of all groups where no stages are given."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of weights; biases and norms have none."""
    schedule: Literal["constant", "cosine", "poly", "plateau"] = "poly"
    """How rates change within the run, as a factor on the rates of the stage."""
    gradient_clip: Annotated[float, Field(ge=0)] = 12.0
    """Largest norm of the gradient; 0 for none."""
    foreground_share: Annotated[float, Field(ge=0, le=1)] = 1 / 3
    """Share of the patches that are drawn around a voxel of some label."""
    loss: Literal[
        "dice+cross-entropy", "dice", "cross-entropy", "focal", "tversky", "focal-tversky"
    ] = "dice+cross-entropy"
    """What is minimised; regions take the binary cross-entropy."""
    batch_dice: bool | None = None
    """Whether the Dice loss sums over the patches of a step first; by default planned."""
    fp_weight: Positive = 0.3
    """Weight of voxels too many, in the Tversky losses."""
    fn_weight: Positive = 0.7
    """Weight of voxels missed, in the Tversky losses."""
    tversky_exponent: Positive = 0.75
    """Power of the focal Tversky loss."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """How strongly the focal loss turns to hard voxels."""


class MaskInferSection(InferSection):
    """How a trained network answers with masks."""

    probabilities: bool = False
    """Whether the probability of each label is written beside the mask."""
    dicom_category: dict[str, CodeText] = {}
    """By label, what kind of thing it is for DICOM SEG: [code, scheme, meaning]."""
    dicom_type: dict[str, CodeText] = {}
    """By label, what it is for DICOM SEG: [code, scheme, meaning]."""
    dicom_region: dict[str, CodeText] = {}
    """By label, where it is for DICOM SEG: [code, scheme, meaning]."""
    largest_component: Literal["auto", "always", "never"] = "auto"
    """Whether only the largest piece of a label is kept; auto: where that helped selection."""
    removed_becomes: dict[str, str] = {}
    """By label, the label that its removed pieces get; else they become background."""


class SegmentationInferSection(MaskInferSection):
    """How a trained network answers, window by window."""

    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Step from window to window, as a share of the patch."""
    mirror: bool = False
    """Whether answers are averaged over mirrored inputs: slower, a little better."""
    region_checkpoint: Path | None = None
    """A coarse model that is asked first: only around what it finds is looked closely."""
    region_margin_mm: Annotated[float, Field(ge=0)] = 20.0
    """How far around that is looked closely."""
    region_least_ml: Annotated[float, Field(ge=0)] = 1.0
    """Volume under which it found nothing: then the whole volume is looked at closely."""
    batch_windows: Count = 1
    """Windows that pass the network at a time; more take as many times the memory."""
    least_volumes_ml: dict[str, list[Positive]] = {}
    """By label, volumes under which pieces may be removed; each is tried on the selection part,
    and the best is kept where it helped."""


class SegmentationSettings(TaskSettings):
    """A resolved preset of a segmentation."""

    data: SegmentationDataSection = SegmentationDataSection()
    """Where images and masks are, and how they are prepared."""
    # A U-Net has no backbone of a name.
    model: SegmentationModelSection = SegmentationModelSection()  # type: ignore[assignment]
    """The network."""
    metrics: SegmentationMetricsSection = SegmentationMetricsSection()
    """What is measured."""
    augment: SegmentationAugmentSection = SegmentationAugmentSection()
    """Random changes of training patches."""
    train: SegmentationTrainSection = SegmentationTrainSection()
    """The training run."""
    infer: SegmentationInferSection = SegmentationInferSection()
    """How a trained network answers."""


def require_mirrored_training(settings: SegmentationSettings) -> None:
    """Raises UsageError where answers would be averaged over what the model never learned from."""
    augment, infer = settings.augment, settings.infer
    # Families that extend this one change patches in their own ways, and mirror no input.
    own = isinstance(augment, SegmentationAugmentSection)
    if not own or not isinstance(infer, SegmentationInferSection):
        return
    # What is left to the labels is settled by the plan, which asks again.
    if infer.mirror and (not augment.enabled or augment.mirror is False):
        raise UsageError(
            "Mirrored inputs are strange to this model: it learned from none.",
            where="infer.mirror",
            met="true, with augment.mirror = false in training",
            how="leave --mirror away, or train with --set augment.mirror=true (or left-right).",
        )
