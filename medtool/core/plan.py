"""What is planned for a segmentation data set, before anything is resampled or learned.

The plan is made from the data alone (``medtool.data.planning``), kept readable in the cache and in
the checkpoint, and read by preparation, networks and inference. Axis order is that of the arrays,
after ``axes_forward``: the axis with the largest spacing first. All sizes are in voxels, all
spacings in mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Orientation = Literal["stored", "ras"]
# What becomes of a channel's values: see methods of nnU-Net (Isensee 2021) and docs of planning.
Normalisation = Literal["ct", "z-score", "rescale-0-1", "rgb-0-1", "none"]


@dataclass(frozen=True)
class NetworkPlan:
    """A U-Net: one entry a stage, the full resolution first, the bottleneck last.

    ``strides[0]`` is 1 along every axis. ``encoder_blocks`` counts convolutions (kind ``plain``) or
    residual blocks (kind ``residual``); ``decoder_convolutions`` has one entry fewer than there are
    stages, the deepest first.
    """

    kind: Literal["plain", "residual"]
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    encoder_blocks: tuple[int, ...]
    decoder_convolutions: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.strides[0])


@dataclass(frozen=True)
class Decision:
    """One thing that was planned, and why: a line of the readable plan."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Configuration:
    """How the data are resampled and cut for one network: ``2d``, ``3d_fullres``, ``3d_lowres``.

    ``spacing_mm`` and ``median_size_vox`` have three entries also in 2D (the slices' own step comes
    first there); ``patch_size_vox`` has as many as the network has dimensions. ``previous`` names
    the configuration whose masks are a further input (a cascade); "" where there is none.
    """

    name: str
    spacing_mm: tuple[float, ...]
    median_size_vox: tuple[int, ...]
    patch_size_vox: tuple[int, ...]
    batch_size: int
    normalisation: tuple[Normalisation, ...]
    mask_for_normalisation: tuple[bool, ...]
    batch_dice: bool
    network: NetworkPlan
    decisions: tuple[Decision, ...] = ()
    previous: str = ""


@dataclass(frozen=True)
class ChannelIntensities:
    """Values of one channel inside the foreground of all training cases, pooled."""

    mean: float
    median: float
    std: float
    low: float
    high: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class Plan:
    """All that was planned for a data set; ``axes_forward[k]`` is the array axis that becomes k.

    ``orientation`` says of which arrays: ``stored`` as files have them, or ``ras`` of those turned
    so that their axes (z, y, x) run to the Superior, the Anterior and the Right.
    """

    planner: str
    axes_forward: tuple[int, int, int]
    original_median_spacing_mm: tuple[float, ...]
    original_median_size_vox: tuple[int, ...]
    intensities: tuple[ChannelIntensities, ...]
    configurations: Mapping[str, Configuration] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    orientation: Orientation = "stored"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``plan_from_dict`` takes them back."""
        return asdict(self)


def plan_from_dict(document: Mapping[str, Any]) -> Plan:
    """The plan whose ``as_dict`` this was, also after a way through JSON."""
    configurations = {
        name: _configuration(entry) for name, entry in document["configurations"].items()
    }
    first, second, third = document["axes_forward"]
    return Plan(
        planner=document["planner"],
        axes_forward=(first, second, third),
        original_median_spacing_mm=tuple(document["original_median_spacing_mm"]),
        original_median_size_vox=tuple(document["original_median_size_vox"]),
        intensities=tuple(ChannelIntensities(**entry) for entry in document["intensities"]),
        configurations=configurations,
        decisions=tuple(Decision(**entry) for entry in document["decisions"]),
        orientation=document.get("orientation", "stored"),
    )


def _configuration(entry: Mapping[str, Any]) -> Configuration:
    plain = {name: _tuples(value) for name, value in entry.items()}
    network = {name: _tuples(value) for name, value in entry["network"].items()}
    decisions = tuple(Decision(**decision) for decision in entry["decisions"])
    return Configuration(**{**plain, "network": NetworkPlan(**network), "decisions": decisions})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list | tuple) else value
