"""The part of a preset that says which weights a network starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medtool.config.sections import ModelSection, Section

# Below the user's home folder, so that every working folder and cluster job finds them.
WEIGHTS_FOLDER = Path("~/.medtool/weights")


class WeightsSection(Section):
    """Where the weights of the backbone come from; nothing is downloaded unless asked."""

    repository: str = ""
    """Repository on the Hugging Face hub that 'medtool fetch' takes the file from."""
    file: str = ""
    """Name of the file in that repository (.safetensors, .pt, .pth or .bin)."""
    revision: str = "main"
    """Branch, tag or commit of the repository; what it resolves to is recorded."""
    licence: str = ""
    """What is known of the licence of the weights, recorded beside what the hub says."""
    path: Path | None = None
    """A file on this machine to use in place of the repository."""
    folder: Path = WEIGHTS_FOLDER
    """Where 'medtool fetch' keeps what it fetched."""
    layout: Literal["auto", "torchvision", "sequential"] = "auto"
    """Names in the file: torchvision (conv1, layer1, ...), sequential (backbone.0, ...) or auto."""


class PretrainedModelSection(ModelSection):
    """A network whose backbone may start from weights that others trained."""

    channels: Annotated[int, Field(ge=1)] = 1
    """Channels of the input; the stem of weights for three is summed to one."""
    from_scratch: bool = False
    """Start from random weights, everything trains, also where stages would freeze parts."""
    weights: WeightsSection = WeightsSection()
    """The weights of the backbone."""
