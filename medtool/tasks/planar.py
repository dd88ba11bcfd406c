"""The family of tasks that outline structures in images slice by slice: pictures, frames, stacks.

The two-dimensional sibling of ``medtool.tasks.segmentation``: a U-Net sees whole slices of one
size. A subclass names what masks show that nobody explains (``structure``), its presets and its
demo; everything else is here and in the modules beside it (``planar_find``, ``planar_reading``,
``planar_planning``, ``planar_preparation``, ``planar_examples``, ``planar_learning``,
``planar_predict``).

torch is imported inside methods only: listing tasks and preparing cases do without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medtool.core.errors import CaseRefused
from medtool.core.records import (
    Batch,
    Case,
    CheckedCase,
    Cohort,
    DeploymentSpec,
    Finding,
    Prediction,
    Prepared,
    Source,
    Truth,
)
from medtool.tasks.planar_settings import PlanarSettings
from medtool.tasks.segmentation import SegmentationTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medtool.core.progress import Reporter
    from medtool.nets.scaling import ChannelScale
    from medtool.tasks.planar_examples import SliceExamples


class PlanarTask(SegmentationTask):
    """Slices in, a mask at their own size out."""

    settings_type = PlanarSettings
    layout = (
        "folders images and masks with files of the same names, or a table manifest.csv with "
        "columns case, patient, image and mask"
    )
    # No plan of nnU-Net's describes these networks.
    imports = ()
    exports = ()
    # What masks show whose labels neither the data set nor the preset names.
    structure: ClassVar[str] = "foreground"

    settings: PlanarSettings

    def __init__(self, settings: PlanarSettings) -> None:
        super().__init__(settings)
        # What ``planned`` decided, with reasons; none where the preset left nothing open.
        self.decisions: tuple[Mapping[str, str], ...] = ()

    # --- data -----------------------------------------------------------------------------
    def find(self, source: Source) -> Cohort:
        """Pairs, manifests and data sets; without masks pictures, frames, series and volumes."""
        from medtool.tasks.planar_find import find_slices

        return find_slices(source, self.settings.data, self.structure)

    def informed(self, intake: Mapping[str, Any]) -> PlanarTask:
        """The task with the channels and labels that the data set declares, or its own."""
        from medtool.tasks.planar_planning import settled_data

        data = settled_data(self.settings.data, intake.get("dataset"), self.structure)
        return type(self)(self.settings.model_copy(update={"data": data}))

    def planned(
        self,
        cases: Sequence[Case],
        *,
        intake: Mapping[str, Any],
        folder: Path,
        workers: int | None = None,
        reporter: Reporter | None = None,
    ) -> PlanarTask:
        """The task with channels, labels and the scale of its images settled by the data."""
        from medtool.tasks.planar_planning import planned_slices

        settings, decisions = planned_slices(
            self.settings, cases, intake=intake, structure=self.structure, reporter=reporter
        )
        task = type(self)(settings)
        task.decisions = decisions
        task.tell_of_labels(reporter)
        return task

    def check(self, case: Case) -> list[Finding]:
        """What only pixels show: sizes that differ, masks in colour, ids undeclared, no mask."""
        from medtool.tasks.planar_preparation import check_slices

        return list(check_slices(case, self.settings).findings)

    def checked(self, case: Case) -> CheckedCase:
        """As ``check``, with what tells images that are there twice, and axes."""
        from medtool.tasks.planar_preparation import check_slices

        if type(self).check is not PlanarTask.check:
            return super().checked(case)
        return check_slices(case, self.settings)

    def prepare(self, case: Case) -> Prepared:
        """The slices at one size and on one scale. Raises CaseRefused."""
        from medtool.tasks.planar_preparation import prepare_slices

        if not case.inputs:
            raise CaseRefused("channels-differ", "The case has no image.", wanted="one")
        return prepare_slices(case, self.settings)

    def preparation_key(self) -> Mapping[str, Any]:
        """What every segmentation says, and whether colour is taken."""
        return {**super().preparation_key(), "input_channels": self.settings.model.input_channels}

    def truth(self, case: Case) -> Truth:
        """The mask at its own size, binarised where it shows one structure."""
        from medtool.tasks.planar_reading import read_slices_truth

        return read_slices_truth(case, self.settings.data)

    # --- learning -------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """The U-Net of the preset, with random weights."""
        from medtool.tasks.planar_learning import build_planar_network

        return build_planar_network(self.settings)

    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> SliceExamples:
        """Slices from the cache; in training drawn and changed at random."""
        from medtool.tasks.planar_examples import SliceExamples

        return SliceExamples(self.settings, cases, prepared, training=training)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and of the slices of the step ``dice`` and ``accuracy``."""
        from medtool.tasks.planar_learning import slice_losses

        return slice_losses(self.settings, network, batch)

    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Per case: pixels that are right, too many and missing, by label."""
        from medtool.tasks.planar_learning import slice_facts

        return slice_facts(self.settings, network, batch)

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """loss, dice (mean over labels of all slices together), dice_<label>, accuracy."""
        from medtool.tasks.planar_learning import summarise_slices

        return summarise_slices(self.settings.data, facts)

    # --- answering ------------------------------------------------------------------------
    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """The mask at the input's own size, several slices at a time."""
        from medtool.tasks.planar_predict import predict_slices

        return predict_slices(self.settings, model, prepared, case)

    def predict_together(self, model: Any, prepared: Sequence[Prepared], case: Case) -> Prediction:
        """The mask of the mean of all members' logits."""
        from medtool.tasks.planar_predict import predict_slices_together

        return predict_slices_together(model, prepared, case)

    def companions(self) -> Mapping[str, Path]:
        """None: slices are looked at whole."""
        return {}

    def picture(
        self, prediction: Prediction, prepared: Prepared, case: Case, folder: Path
    ) -> list[Path]:
        """The slice with the answer and, where known, the reference; of stacks three planes."""
        from medtool.tasks.planar_predict import draw_slices

        return draw_slices(self.settings.data, prediction, case, folder)

    def deployment(self) -> DeploymentSpec:
        """A prepared slice in, logits out."""
        from medtool.tasks.planar_learning import planar_probe_shape

        return DeploymentSpec(
            inputs={"image": planar_probe_shape(self.settings)},
            outputs=("logits",),
            inside=("encoder", "decoder"),
        )

    def model_card(self) -> Mapping[str, Any]:
        """Size, scale and labels."""
        from medtool.tasks.model_cards import planar_card

        return planar_card(self.settings)

    def input_scale(self) -> ChannelScale:
        """The part of the scale that the exported file does itself: none for percentiles."""
        from medtool.tasks.planar_learning import planar_scale

        return planar_scale(self.settings)

    def window_shape(self) -> tuple[int, ...]:
        """One slice as the network sees it: (1, channels, rows, columns)."""
        from medtool.tasks.planar_learning import planar_probe_shape

        return planar_probe_shape(self.settings)

    def audit(self, cases: Sequence[Case], prepared: Mapping[str, Path]) -> dict[str, Any]:
        """What was settled by the data, each decision with its reason."""
        return {"plan": {"decisions": list(self.decisions)}} if self.decisions else {}
