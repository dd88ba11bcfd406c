"""What a segmentation data set is made of, whatever layout it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medtool.core.records import Finding, Part, RefusedStudy

Layout = Literal["nnunet", "msd", "manifest", "pairs"]

BACKGROUND = "background"
# The name that nnU-Net gives to voxels that nobody labelled.
IGNORE = "ignore"


@dataclass(frozen=True)
class ImageReference:
    """One image: a file (or a folder of DICOM slices), or a part of a file.

    ``component`` is the channel of a 4D file or of a colour picture, the page of a TIFF or the
    frame of a DICOM file, counted from 0; None stands for the whole file.
    """

    path: Path
    component: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.component is None else f"{self.path}[{self.component}]"


@dataclass(frozen=True)
class SegmentationCase:
    """Images of one case, one a channel, with what is known of them.

    ``mask`` is None where there is none; ``label`` is the class of the case as text, "" where it
    is not known; ``part`` is None where the data set does not say.
    """

    case_id: str
    patient_id: str
    images: tuple[ImageReference, ...]
    mask: ImageReference | None = None
    label: str = ""
    part: Part | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelScheme:
    """The labels of masks: name -> ids, more than one id where the label is a region.

    ``BACKGROUND`` is among ``ids``, the ignored id is not. ``regions_order`` are the ids that
    regions are written with, one a region in the order of ``ids`` without the background; empty
    where no label is a region. Later regions overwrite earlier ones (nnU-Net's
    ``regions_class_order``).
    """

    ids: Mapping[str, tuple[int, ...]]
    regions_order: tuple[int, ...] = ()
    ignore_id: int | None = None

    @property
    def has_regions(self) -> bool:
        """Whether labels overlap, so that each is an answer of its own."""
        return bool(self.regions_order)

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of all labels but the background."""
        return tuple(name for name in self.ids if name != BACKGROUND)

    @property
    def is_binary(self) -> bool:
        """Whether masks say yes or no, so that pictures of them may be cut at half."""
        return self.declared == {0, 1}

    @property
    def declared(self) -> frozenset[int]:
        """Every id that may stand in a mask."""
        ignored = () if self.ignore_id is None else (self.ignore_id,)
        return frozenset([*(i for ids in self.ids.values() for i in ids), *ignored])


@dataclass(frozen=True)
class SegmentationDataset:
    """A data set as it was found. ``channels`` are names such as CT; cases are in order of id.

    ``refused`` are cases that lack an image; ``file_ending`` is "" where files have several.
    ``synthetic``: nobody was scanned (the description has a key of that name).
    """

    layout: Layout
    root: Path
    name: str
    channels: tuple[str, ...]
    labels: LabelScheme
    cases: tuple[SegmentationCase, ...]
    findings: tuple[Finding, ...] = ()
    refused: tuple[RefusedStudy, ...] = ()
    file_ending: str = ""
    synthetic: bool = False
