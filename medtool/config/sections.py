"""The sections of a preset that tasks share, with the defaults and meaning of every key.

A task's settings are a ``TaskSettings`` subclass that replaces sections with its own; each field
has a type, a range, its unit in its name and one line of meaning (its description).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from medtool.config.optimize_section import OptimizeSection
from medtool.config.section import NotNegative as NotNegative
from medtool.config.section import Positive as Positive
from medtool.config.section import Section as Section
from medtool.config.section import Share as Share


class DataSection(Section):
    """Where cases and references are, and which columns name them."""

    # Whether classes have names of their own, beside positive and negative.
    names_classes: ClassVar[bool] = False
    # Keys, none of them a path, that say how a table of labels is read.
    label_keys: ClassVar[tuple[str, ...]] = (
        "id_column",
        "label_column",
        "positive_values",
        "negative_values",
    )

    folder: Path = Path()
    """Folder of the data; relative to the working folder."""
    labels: Path | None = None
    """Table of labels; by default the one labels*.csv beside the scans."""
    id_column: str | None = None
    """Column of the case, patient, accession or study id; by default recognised."""
    label_column: str | None = None
    """Column of the label; by default recognised."""
    positive_values: list[str] = ["1", "yes", "y", "pos", "positive", "true"]
    """Values of the label column that mean positive (upper or lower case)."""
    negative_values: list[str] = ["0", "no", "n", "neg", "negative", "false"]
    """Values of the label column that mean negative (upper or lower case)."""
    patient_key: Literal["patient-id", "folder", "case"] = "patient-id"
    """What tells patients apart: PatientID, the top folder below the data, or the case itself."""
    split_file: Path | None = None
    """A CSV with columns case or patient, and part (train, selection, test), to be honoured; or
    nnU-Net's splits_final.json, whose val of the fold is the test part."""
    preparation: Section = Section()
    """How a case is prepared; the cache depends on this table."""

    def class_values(self) -> Mapping[str, Sequence[str]]:
        """Values of the label column that mean each class, in the order of the classes' numbers.

        Empty where classes are not known yet: then every value is a class of its own.
        """
        return {"negative": self.negative_values, "positive": self.positive_values}


class ModelSection(Section):
    """The network and where its weights come from."""

    backbone: str = "resnet50"
    """Name of a timm model."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of features dropped in the head while training."""


class MetricsSection(Section):
    """What is measured, and how the threshold is chosen."""

    primary: str = "auroc"
    """The metric that chooses the best checkpoint and is shown first."""
    threshold_rule: Literal["youden", "f1", "sensitivity", "specificity", "cost", "fixed"] = "f1"
    """How the decision threshold is chosen on the selection part."""
    threshold_target: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Target of the rules sensitivity and specificity, or the value of the rule fixed."""
    cost_false_positive: Positive = 1.0
    """Cost of a false positive, for the rule cost."""
    cost_false_negative: Positive = 1.0
    """Cost of a false negative, for the rule cost."""
    bootstrap_draws: Annotated[int, Field(ge=100)] = 2000
    """Draws of the bootstrap by patient."""
    confidence: Share = 0.95
    """Level of the intervals."""
    subgroups: list[str] = ["manufacturer", "kernel", "thickness_mm"]
    """Facts of the cases by which tables of subgroups are made."""


class StageSection(Section):
    """From an epoch on, which groups of the network learn at what rate."""

    from_epoch: Annotated[int, Field(ge=0)]
    """First epoch of the stage, counted from 0."""
    rates: dict[str, Positive]
    """Learning rate of each group that learns; groups not named are frozen."""


class TrainSection(Section):
    """The training run."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs."""
    batch_cases: Annotated[int, Field(ge=1)] = 4
    """Cases of one step on each device."""
    examples_per_case: Annotated[int, Field(ge=1)] = 1
    """How often an epoch shows each case, changed at random anew each time."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Steps whose gradients are added before the weights move."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    """The optimiser."""
    weight_decay: NotNegative = 1e-4
    """Weight decay of weights; biases and norms have none."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd."""
    schedule: Literal["constant", "cosine", "poly", "plateau"] = "constant"
    """How rates change within the run, as a factor on the rates of the stage."""
    warmup_epochs: NotNegative = 0
    """Epochs over which a group's rate rises from 0 after it begins to learn."""
    plateau_factor: Share = 0.1
    """Factor of the schedule plateau."""
    plateau_patience: Annotated[int, Field(ge=1)] = 10
    """Epochs without a better value before the schedule plateau lowers the rates."""
    plateau_least_rate: NotNegative = 0.0
    """Rate below which the schedule plateau lowers none."""
    gradient_clip: NotNegative = 1.0
    """Largest norm of the gradient; 0 for none."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Arithmetic of the network: auto is 32 on a CPU and bf16 where a GPU has it."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights; 0 for none."""
    early_stopping_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better primary metric before the run ends; 0 for never."""
    sampling: Literal["natural", "balanced"] = "natural"
    """Every case once an epoch, or classes drawn alike."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of splits, weights and augmentation."""
    split: Literal["auto", "folds", "three-part", "two-part", "nnunet"] = "auto"
    """auto: folds below 500 patients when several are asked for, else three-part; nnunet: the
    folds that nnU-Net makes of the same cases."""
    selection_share: Share = 0.15
    """Share of the training patients that chooses checkpoint and threshold."""
    test_share: Share = 0.15
    """Share of the patients that only scores."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds of the split folds."""
    checkpoint_every_epochs: Annotated[int, Field(ge=0)] = 0
    """A milestone every so many epochs, beside best, last and the ends of stages; 0 for none."""
    keep: Annotated[int, Field(ge=1)] = 5
    """Milestones kept beside best and last."""
    stages: list[StageSection] = []
    """The stages; without any, everything learns at learning_rate."""
    learning_rate: Positive = 1e-4
    """Rate of all groups where no stages are given."""


class InferSection(Section):
    """How a trained model answers."""

    by: Literal["case", "patient"] = "case"
    """One answer a case, or pooled over the cases of a patient."""
    case_timeout_s: Positive = 600.0
    """Seconds after which reading and preparing one case is given up."""


class ReportSection(Section):
    """The report."""

    worst_cases: Annotated[int, Field(ge=0)] = 12
    """Cases with pictures, worst first."""


class TaskSettings(Section):
    """A whole resolved preset; tasks replace sections with their own."""

    extends: str | None = None
    """Name or path of the preset that this one changes."""
    description: str = ""
    """One line on what the preset is for."""
    data: DataSection = DataSection()
    """Where cases and references are, and how a case is prepared."""
    model: ModelSection = ModelSection()
    """The network."""
    metrics: MetricsSection = MetricsSection()
    """What is measured."""
    augment: Section = Section()
    """Random changes of training examples."""
    train: TrainSection = TrainSection()
    """The training run."""
    infer: InferSection = InferSection()
    """How a trained model answers."""
    report: ReportSection = ReportSection()
    """The report."""
    optimize: OptimizeSection = OptimizeSection()
    """How a trained model is made smaller and faster."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without keys that are None: what a preset file holds."""
        return self.model_dump(mode="json", exclude_none=True)
