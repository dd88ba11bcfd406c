"""The section [optimize] of a preset: how a trained model is made smaller and faster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medtool.config.prune_section import PruneSection
from medtool.config.section import Section

Format = Literal["int8", "openvino", "litert", "float16", "weights8"]
Method = Literal["minmax", "percentile", "entropy"]


class OptimizeSection(Section):
    """What 'medtool optimize' makes, and how good it has to be."""

    formats: list[Format] = ["int8", "openvino"]
    """Files beside the float one: INT8 for ONNX Runtime, the same for OpenVINO where that is
    installed, two for LiteRT (phones), and two that are only smaller: weights in float16, weights
    in eight bits."""
    methods: Annotated[list[Method], Field(min_length=1)] = ["minmax", "percentile", "entropy"]
    """Ways to find the range of activations that are tried; the best one on the selection part
    is taken."""
    percentile: Annotated[float, Field(gt=50, lt=100)] = 99.99
    """Share of the values, in percent, that the method percentile keeps."""
    calibration_inputs: Annotated[int, Field(ge=2)] = 64
    """Inputs of training cases on which ranges are measured."""
    calibration_cases: Annotated[int, Field(ge=1)] = 32
    """Training cases, at most, from which they are taken."""
    choice_cases: Annotated[int, Field(ge=1)] = 24
    """Cases of the selection part, at most, on which ways and layers are compared."""
    float_layers: list[str] = []
    """Layers that stay in float whatever they cost; the last ones always do, and of networks of
    volumes those that see one channel alone."""
    most_float_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the layers that may be left in float to keep the metric."""
    reduce_range: Literal["auto", "always", "never"] = "auto"
    """Whether weights leave one bit unused: auto where this processor sums products of eight bits
    in sixteen, which can overflow."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None
    """By how much each judged metric may fall; by default Dice and AUROC 0.005, Harrell's C and
    macro F1 0.01."""
    judged_by: Literal["estimate", "interval"] = "estimate"
    """What must not fall further: the metric itself, or the far end of its interval too."""
    passes_cases: Annotated[int, Field(ge=1)] = 8
    """Cases, at most, of each part on which Monte Carlo passes are compared with PyTorch's."""
    passes_mean: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """By how much the mean of the passes may differ from PyTorch's, averaged over the voxels of a
    case in which either is at least 0.05."""
    passes_correlation: Annotated[float, Field(ge=-1, lt=1)] = 0.95
    """Rank correlation that the maps of uncertainty have to have with PyTorch's."""
    measure_runs: Annotated[int, Field(ge=0)] = 50
    """Calls of which latency is the median; 0 measures nothing."""
    measure_seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds that the calls of one measurement may take, by default as many as they do; where that
    is not enough fewer are counted, at least 5, and it is said how many."""
    measure_batches: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [1, 8]
    """Images of one call at which time and memory are measured."""
    prune: PruneSection = PruneSection()
    """What is taken out of the network first; nothing where the share is 0."""
