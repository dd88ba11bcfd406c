"""What a preset of brainmet may say, with defaults: the values of the method as published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medtool.config.sections import DataSection, NotNegative, Positive, Section
from medtool.config.weights import WeightsSection
from medtool.tasks.bag_settings import BagAugmentSection, BagModelSection, BagSettings


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the lower bound stands above the upper one")
    return bounds


Bounds = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]


class ExtractionSection(Section):
    """Stage 1: the brain by HU and 3D morphology."""

    low_hu: float = -50.0
    """Least density of what may be brain."""
    high_hu: float = 100.0
    """Largest density of what may be brain; denser holes inside are filled."""
    bone_hu: float = 200.0
    """What is denser is bone; 300 where contrast medium was given."""
    bone_closing_mm: Positive = 3.0
    """Radius with which gaps of the skull are closed."""
    erosion_mm: Positive = 4.0
    """Radius of the erosion that parts the brain from what hangs on it; at 3 an eye may stay."""
    least_volume_ml: NotNegative = 900.0
    """A smaller brain in a whole head is not believed."""
    largest_volume_ml: Positive = 1900.0
    """A larger brain is not believed."""


class QualitySection(Section):
    """Stage 4: which slices the network sees."""

    least_brain_share: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Slices with less brain in their pixels are dropped (little-brain)."""
    noise_factor: Positive = 3.0
    """Slices noisier than this many times the series' median are dropped (noise)."""
    correlation_factor: NotNegative = 0.5
    """Slices that correlate with their neighbours less than this x median are dropped (motion)."""
    asymmetry_percentile: Annotated[float, Field(ge=0, le=100)] = 90.0
    """Slices above this percentile of the series' asymmetry stay, whatever the others say."""
    least_slices: Annotated[int, Field(ge=1)] = 3
    """A study with fewer slices left is refused."""


class PreparationSection(Section):
    """Stages 1 to 4: what the cache holds."""

    extraction: ExtractionSection = ExtractionSection()
    """Stage 1: the brain by HU and 3D morphology."""
    window_level_hu: float = 40.0
    """Stage 2: middle of the window."""
    window_width_hu: Positive = 80.0
    """Stage 2: width of the window."""
    size_px: Annotated[int, Field(ge=32, le=1024)] = 256
    """Stage 3: rows and columns of a slice."""
    field_mm: NotNegative = 240.0
    """Stage 3: side of the square around the brain that is cut out; 0 takes the whole image."""
    quality: QualitySection = QualitySection()
    """Stage 4: which slices the network sees."""


class BrainmetDataSection(DataSection):
    """Where studies and labels are, and how a study is prepared."""

    preparation: PreparationSection = PreparationSection()
    """Stages 1 to 4: how a study is prepared; the cache depends on this table."""


class ChangesSection(Section):
    """Random changes of a slice; each happens with ``probability``, its strength is uniform."""

    probability: Probability = 0.5
    """Probability of each change."""
    gamma: Bounds = (1.0, 1.0)
    """Exponent on the window's share; [1, 1] for none."""
    blur_sigma_px: Bounds = (0.0, 0.0)
    """Deviation of a Gaussian blur of 3 x 3 pixels; [0, 0] for none."""
    clahe_clip: Bounds = (0.0, 0.0)
    """Clip limit (OpenCV's unit) of adaptive histogram equalisation; [0, 0] for none."""
    clahe_tiles: Annotated[int, Field(ge=1)] = 8
    """Tiles of the equalisation along each side."""
    sharpen_amount: Bounds = (0.0, 0.0)
    """Amount of unsharp masking; [0, 0] for none."""


class BrainmetAugmentSection(BagAugmentSection):
    """Stage 5: random changes of training slices."""

    by_class: bool = True
    """Change positives and negatives differently; false changes all as ``both`` says."""
    positive: ChangesSection = ChangesSection(
        probability=0.7, gamma=(0.95, 1.05), blur_sigma_px=(0.3, 0.8)
    )
    """Changes of slices of positive studies."""
    negative: ChangesSection = ChangesSection(
        probability=0.5, gamma=(0.9, 1.1), clahe_clip=(1.0, 2.0), sharpen_amount=(0.5, 2.0)
    )
    """Changes of slices of negative studies."""
    both: ChangesSection = ChangesSection(
        probability=0.5,
        gamma=(0.9, 1.1),
        blur_sigma_px=(0.3, 0.8),
        clahe_clip=(1.0, 2.0),
        sharpen_amount=(0.5, 2.0),
    )
    """Changes of all slices, where by_class is false."""
    audit_shuffles: Annotated[int, Field(ge=0)] = 10
    """Shuffles of the labels in the test whether changes give the label away; 0 for no test."""


class BrainmetModelSection(BagModelSection):
    """The network, and how its input is scaled."""

    normalisation: Literal["brain_zscore", "radimagenet"] = "brain_zscore"
    """Stage 6: mean 0 and deviation 1 inside each slice's brain, or the window as -1 to 1."""
    weights: WeightsSection = WeightsSection(
        repository="Lab-Rasool/RadImageNet",
        file="ResNet50.pt",
        licence="repository of the authors: MIT; terms of the weights not verified",
    )
    """The weights of the backbone."""


class BrainmetSettings(BagSettings):
    """A resolved preset of brainmet."""

    data: BrainmetDataSection = BrainmetDataSection()
    """Where studies and labels are, and how a study is prepared."""
    model: BrainmetModelSection = BrainmetModelSection()
    """The network, and how its input is scaled."""
    augment: BrainmetAugmentSection = BrainmetAugmentSection()
    """Stage 5: random changes of training slices."""
