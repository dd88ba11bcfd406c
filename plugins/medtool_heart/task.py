"""The task: outline the heart, or what the masks of it show."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medtool.core.progress import Reporter
from medtool.tasks.planar import PlanarTask


class Heart(PlanarTask):
    """The heart, its cavities or anything else that masks of slices outline."""

    name: ClassVar[str] = "heart"
    summary: ClassVar[str] = "Outlines the heart slice by slice, in pictures, MR and CT."
    structure: ClassVar[str] = "heart"

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """Synthetic short-axis slices as NIfTI, masks as PNG: see ``medtool_heart.demo``."""
        from medtool_heart.demo import write_cohort

        write_cohort(folder, seed, reporter=reporter)
