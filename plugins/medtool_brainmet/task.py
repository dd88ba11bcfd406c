"""The task: does this head CT show brain metastases?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medtool.core.errors import CaseRefused
from medtool.core.progress import Reporter
from medtool.core.records import Case, Finding, Prepared, Section
from medtool.dicom.body_part import HEAD, BodyPart
from medtool.tasks.bag import BagTask
from medtool_brainmet.settings import BrainmetSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from medtool.data.run_folder import RunFolder


class Brainmet(BagTask):
    """Brain metastases on head CT, one answer per study."""

    name: ClassVar[str] = "brainmet"
    summary: ClassVar[str] = "Brain metastases on head CT: one answer per study."
    settings_type = BrainmetSettings
    preparation_version: ClassVar[int] = 2
    body_part: ClassVar[BodyPart | None] = HEAD

    settings: BrainmetSettings

    def check(self, case: Case) -> list[Finding]:
        """What only pixels show: no HU, no brain, a brain of odd volume, slices left out."""
        if self.channel not in case.inputs:
            return []
        try:
            return list(self.prepare(case).findings)
        except CaseRefused as refusal:
            what = " ".join(part for part in (refusal.what, refusal.met) if part)
            return [Finding(refusal.code, what, "refusal")]

    def prepare(self, case: Case) -> Prepared:
        """Windowed slices of the brain, not yet normalised. Raises CaseRefused."""
        from medtool_brainmet.preparation import prepare_scan
        from medtool_brainmet.reading import read_scan

        scan = read_scan(self.input_of(case))
        return prepare_scan(case, scan, self.settings.data.preparation)

    def normalise(
        self, slices: NDArray[Any], masks: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """Slices (n, rows, columns) as (n, channels, rows, columns), scaled inside the brain."""
        import numpy as np

        from medtool_brainmet.normalisation import normalise_slices

        inside = np.ones(slices.shape, dtype=bool) if masks is None else masks
        scaled = normalise_slices(slices, inside, self.settings.model.normalisation)
        channels = self.settings.model.channels
        return np.repeat(scaled[:, None], channels, axis=1) if channels > 1 else scaled[:, None]

    def normalisation(self) -> nn.Module:
        """Stage 6 as a layer."""
        from medtool_brainmet.normalisation_layer import SliceNormalisation

        model = self.settings.model
        return SliceNormalisation(model.normalisation, model.channels)

    def model_card(self) -> Mapping[str, Any]:
        """How a study becomes windowed slices with masks of the brain."""
        preparation = self.settings.data.preparation
        level, width = preparation.window_level_hu, preparation.window_width_hu
        low, high, size = level - width / 2, level + width / 2, preparation.size_px
        field = f"{preparation.field_mm:g} mm around the brain" if preparation.field_mm else "all"
        return {
            **super().model_card(),
            "preparation": [
                "Make HU of the series and undo the tilt of the gantry.",
                "Outline the brain by density and three-dimensional morphology.",
                f"Make {low:g} to {high:g} HU to 0 to 1 and clip what is beyond.",
                f"Cut out {field} and resize to {size} x {size} pixels, axial, front upwards.",
                f"Leave out slices with under {preparation.quality.least_brain_share:.0%} brain,"
                " with noise and with motion.",
            ],
            "window_hu": [low, high],
            "normalisation": self.settings.model.normalisation,
        }

    def draw_augmentation(
        self, rng: np.random.Generator, label: float | None
    ) -> Mapping[str, float]:
        """Which changes a slice gets, and how strong; by class where the preset says so."""
        from medtool_brainmet.augmentation import changes_for, draw_changes

        return draw_changes(rng, changes_for(self.settings.augment, label))

    def apply_augmentation(
        self,
        image: NDArray[Any],
        mask: NDArray[np.bool_] | None,
        parameters: Mapping[str, float],
    ) -> NDArray[Any]:
        """One windowed slice changed as drawn."""
        from medtool_brainmet.augmentation import apply_changes

        return apply_changes(image, mask, parameters)

    def input_size_px(self) -> int:
        """Rows and columns of a prepared slice."""
        return self.settings.data.preparation.size_px

    def audit(self, cases: Sequence[Case], prepared: Mapping[str, Path]) -> dict[str, Any]:
        """Whether augmentation by class gives the label away, measured on the training cases."""
        from medtool_brainmet.leak import audit_augmentation

        return audit_augmentation(self.settings.augment, cases, prepared, self.settings.train.seed)

    def preview(self, case: Case, folder: Path) -> list[Path]:
        """Pictures of every stage and of augmentations by class; gives the files written."""
        from medtool_brainmet.preview import write_preview

        return write_preview(self, case, folder)

    def sections(self, run: RunFolder) -> list[Section]:
        """The slices that speak most for positive, and the test of the augmentation."""
        from medtool_brainmet.sections import report_sections

        return report_sections(run)

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """A synthetic cohort: see ``medtool_brainmet.demo``."""
        from medtool_brainmet.demo import write_cohort

        write_cohort(folder, seed, reporter=reporter)
