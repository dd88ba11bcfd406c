"""The task: outline tumours on PET/CT, rank patients by risk, and say how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medtool.core.progress import Reporter
from medtool.tasks.prognosis import PrognosisTask


class Petct(PrognosisTask):
    """Tumours with uptake of FDG or another tracer, in studies of PET and CT."""

    name: ClassVar[str] = "petct"
    summary: ClassVar[str] = "Outlines tumours on PET/CT and ranks patients by risk."
    structure: ClassVar[str] = "tumour"

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """A synthetic PET/CT cohort with outcomes: see ``medtool_petct.demo``."""
        from medtool_petct.demo import write_cohort

        write_cohort(folder, seed, reporter=reporter)
