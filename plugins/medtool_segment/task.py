"""The task: outline what the data set's masks outline."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medtool.core.progress import Reporter
from medtool.tasks.segmentation import SegmentationTask


class Segment(SegmentationTask):
    """Any segmentation data set, 2D or 3D, with any channels, labels and regions."""

    name: ClassVar[str] = "segment"
    summary: ClassVar[str] = "Segmentation of any data set, planned from its images and masks."
    imports: ClassVar[tuple[str, ...]] = ("nnunet",)

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """A synthetic MR data set in nnU-Net's layout: see ``medtool_segment.demo``."""
        from medtool_segment.demo import write_dataset

        write_dataset(folder, seed, reporter=reporter)
