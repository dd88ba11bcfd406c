"""The task: outline pancreas and lesion, and say of which subtype the lesion is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medtool.core.progress import Reporter
from medtool.tasks.classifying import ClassifyingSegmentationTask


class Pancreas(ClassifyingSegmentationTask):
    """Pancreas and lesion in three dimensions, and where classes are known that of the lesion."""

    name: ClassVar[str] = "pancreas"
    summary: ClassVar[str] = "Pancreas and lesion on CT, with the subtype of the lesion."

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """A synthetic CT data set in nnU-Net's layout: see ``medtool_pancreas.demo``."""
        from medtool_pancreas.demo import write_dataset

        write_dataset(folder, seed, reporter=reporter)
