"""The family of tasks that outline structures in images, on nnU-Net's recipe.

A subclass names its presets' defaults and, where its data have a form of their own, says how they
are found; everything else is here and in the modules beside it (``segmentation_find``,
``segmentation_planning``, ``segmentation_reading``, ``segmentation_examples``,
``segmentation_learning``, ``segmentation_predict``, ``segmentation_scores``).

What ``prepare`` gives is that of ``medtool.data.segmentation_preparation`` (image, label where a
mask is known, places of each label), facts that lead back to the input, and ``grids["image"]``: the
grid of the input, on which masks are written.

torch is imported inside methods only: listing tasks and preparing cases do without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    Scores,
    Source,
    Truth,
)
from medtool.core.task import Task
from medtool.tasks.segmentation_labels import (
    MASK,
    require_known_labels,
    structures,
    volume_column,
)
from medtool.tasks.segmentation_settings import SegmentationSettings, require_mirrored_training

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from medtool.core.foreign import ForeignFolder, ForeignModel
    from medtool.core.plan import Plan
    from medtool.core.progress import Reporter
    from medtool.nets.scaling import ChannelScale
    from medtool.predict.engines.contract import Engine

# name -> (type, unit, meaning); the volumes of the single labels stand behind these.
SEGMENTATION_COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "mask": ("file", "", "the mask on the input's own grid, below the folder of the predictions"),
    "volume_ml": ("float", "mL", "volume of all labels together"),
}

# With ``infer.probabilities`` alone.
PROBABILITY_COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "probabilities": ("file", "", "the probability of each label, in four dimensions"),
}


class SegmentationTask(Task):
    """Images in, a mask on the image's own grid out."""

    settings_type = SegmentationSettings
    layout = (
        "an nnU-Net or MSD data set (a folder with dataset.json), or a table manifest.csv with "
        "columns case, patient, image and mask"
    )
    columns = SEGMENTATION_COLUMNS
    reference = "mask"
    reads_labels = False
    exports: ClassVar[tuple[str, ...]] = ("nnunet",)

    settings: SegmentationSettings

    def __init__(self, settings: SegmentationSettings) -> None:
        super().__init__(settings)
        self._check_names()
        require_mirrored_training(settings)
        chances = PROBABILITY_COLUMNS if settings.infer.probabilities else {}
        self.columns = {**SEGMENTATION_COLUMNS, **self._volume_columns(), **chances}
        # What ``planned`` decided, with reasons; None where the preset held the plan already.
        self.plan: Plan | None = None

    def _check_names(self) -> None:
        """Before any work: a label that is named and that there is not is a slip (UsageError)."""
        if not self.settings.data.label_ids:
            return
        from medtool.tasks.segmentation_codes import check_codes

        check_codes(self)
        require_known_labels(self.settings, self._scored())

    def _scored(self) -> Mapping[str, tuple[int, ...]]:
        """Ids of each structure that scores are told of."""
        return structures(self.settings.data)

    def _volume_columns(self) -> dict[str, tuple[str, str, str]]:
        return {
            volume_column(name): ("float", "mL", f"volume of {name}")
            for name in structures(self.settings.data)
        }

    # --- data -----------------------------------------------------------------------------
    def find(self, source: Source) -> Cohort:
        """Data sets, manifests, DICOM studies and NIfTI files below ``source``."""
        from medtool.tasks.segmentation_find import find_images

        return find_images(source, self.settings.data)

    def has_reference(self, case: Case) -> bool:
        """Whether a mask is known."""
        return MASK in case.references

    def informed(self, intake: Mapping[str, Any]) -> SegmentationTask:
        """The task with the channels and labels that the data set declares."""
        from medtool.tasks.segmentation_planning import with_labels

        dataset = intake.get("dataset")
        if dataset is None:
            return self
        data = with_labels(self.settings.data, dataset)
        return type(self)(self.settings.model_copy(update={"data": data}))

    def planned(
        self,
        cases: Sequence[Case],
        *,
        intake: Mapping[str, Any],
        folder: Path,
        workers: int | None = None,
        reporter: Reporter | None = None,
    ) -> SegmentationTask:
        """The task with channels, labels, grid, patch and network settled by the data."""
        from medtool.tasks.segmentation_planning import planned_settings

        settings, plan = planned_settings(
            self, cases, intake=intake, folder=folder, workers=workers, reporter=reporter
        )
        task = type(self)(settings)
        task.plan = plan
        task.tell_of_labels(reporter)
        return task

    def tell_of_labels(self, reporter: Reporter | None) -> None:
        """What the names of the labels say against the preset: sides, and codes of others."""
        if reporter is None:
            return
        from medtool.tasks.segmentation_codes import tell_of_codes
        from medtool.tasks.segmentation_sides import warn_of_sides

        warn_of_sides(self.settings, reporter)
        tell_of_codes(self, reporter)

    def plan_document(self) -> dict[str, Any]:
        """The plan with every decision's reason; {} where the preset held the plan already."""
        return {} if self.plan is None else self.plan.as_dict()

    def check(self, case: Case) -> list[Finding]:
        """What only voxels show: grids that differ, labels undeclared, empty masks, no HU."""
        from medtool.tasks.segmentation_reading import check_images

        return list(check_images(case, self.settings.data).findings)

    def checked(self, case: Case) -> CheckedCase:
        """As ``check``, with what tells images that are there twice, and axes."""
        from medtool.tasks.segmentation_reading import check_images

        if type(self).check is not SegmentationTask.check:
            # What a task says in its own way is not left out.
            return super().checked(case)
        return check_images(case, self.settings.data)

    def prepare(self, case: Case) -> Prepared:
        """The case on the planned grid. Raises CaseRefused."""
        from medtool.tasks.segmentation_reading import prepare_images

        if not case.inputs:
            raise CaseRefused("channels-differ", "The case has no image.", wanted="one a channel")
        return prepare_images(case, self.settings)

    def preparation_key(self) -> Mapping[str, Any]:
        """The table [data.preparation], and which channels and labels are read."""
        data = self.settings.data
        asked = data.model_dump(
            mode="json", include={"channels", "label_ids", "regions_order", "ignore_id"}
        )
        return {**super().preparation_key(), **asked}

    def truth(self, case: Case) -> Truth:
        """The mask as it lies on the disk, on its own grid."""
        from medtool.tasks.segmentation_reading import read_truth

        return read_truth(case, self.settings.data)

    # --- learning -------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """The planned U-Net, with random weights. Raises UsageError before it is planned."""
        from medtool.tasks.segmentation_learning import build_network

        return build_network(self.settings)

    def groups(self, network: nn.Module) -> dict[str, list[nn.Module]]:
        """Encoder and decoder."""
        parts: Any = network
        return {"encoder": [parts.encoder], "decoder": [parts.decoder]}

    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> Dataset[Any]:
        """Patches from the cache; in training drawn and changed at random."""
        from medtool.tasks.segmentation_examples import PatchExamples

        return PatchExamples(self.settings, cases, prepared, training=training)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``loss``: cross-entropy and Dice over all resolutions."""
        from medtool.tasks.segmentation_learning import patch_losses

        return patch_losses(self.settings, network, batch)

    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Per case: voxels that are right, too many and missing, by label."""
        from medtool.tasks.segmentation_learning import patch_facts

        return patch_facts(self.settings, network, batch)

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """loss, dice (mean over labels of all patches together), dice_<label>."""
        from medtool.tasks.segmentation_learning import summarise_facts

        return summarise_facts(self.settings.data, facts)

    # --- answering ------------------------------------------------------------------------
    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """The mask on the input's own grid, window by window and slab by slab."""
        from medtool.tasks.segmentation_predict import predict_mask

        return predict_mask(self.settings, model, prepared, case)

    def require_together(self, tasks: Sequence[Task]) -> None:
        """Models answer together where channels and labels are the same."""
        from medtool.tasks.segmentation_together import require_alike

        require_alike([task.settings for task in tasks if isinstance(task, SegmentationTask)])

    def predict_together(self, model: Any, prepared: Sequence[Prepared], case: Case) -> Prediction:
        """The mask of the mean of all members' logits."""
        from medtool.tasks.segmentation_together import predict_together

        return predict_together(model, prepared, case)

    def companions(self) -> Mapping[str, Path]:
        """The model of low resolution that says where to look, where the settings name one."""
        from medtool.tasks.segmentation_region import COARSE

        checkpoint = self.settings.infer.region_checkpoint
        return {} if checkpoint is None else {COARSE: checkpoint}

    def write(self, prediction: Prediction, case: Case, folder: Path) -> dict[str, Any]:
        """The mask as NIfTI, and the volumes."""
        from medtool.tasks.segmentation_predict import write_prediction

        return write_prediction(self.settings.data, prediction, case, folder)

    def restored(self, row: Mapping[str, Any], folder: Path) -> Prediction:
        """The prediction with its mask read back."""
        from medtool.tasks.segmentation_predict import read_prediction

        return read_prediction(self.settings.data, row, folder)

    def picture(
        self, prediction: Prediction, prepared: Prepared, case: Case, folder: Path
    ) -> list[Path]:
        """Axial, coronal and sagittal planes with the answer and, where known, the reference."""
        from medtool.tasks.segmentation_predict import draw_prediction

        return draw_prediction(self.settings.data, prediction, case, folder)

    def write_dicom(
        self, prediction: Prediction, case: Case, folder: Path, model: Any
    ) -> list[Path]:
        """A DICOM SEG that refers to the slices of the series that was answered."""
        from medtool.tasks.segmentation_predict import write_dicom_seg

        return write_dicom_seg(self.settings, prediction, case, folder, model)

    def decide(
        self, predictions: Sequence[Prediction], truths: Sequence[Truth]
    ) -> Mapping[str, Any]:
        """Whether keeping the largest piece only helped, over all labels and for each."""
        from medtool.tasks.segmentation_predict import decide_postprocessing

        return decide_postprocessing(self.settings, predictions, truths)

    def score(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Scores:
        """Overlap, distances and volumes of every label, by case and in total."""
        from medtool.tasks.segmentation_scores import score_masks

        return score_masks(self.settings, predictions, truths)

    def deployment(self) -> DeploymentSpec:
        """A small normalised patch in, logits out."""
        from medtool.tasks.segmentation_learning import probe_shape

        return DeploymentSpec(
            inputs={"image": probe_shape(self.settings)},
            outputs=("logits",),
            inside=("encoder", "decoder"),
        )

    # --- other engines --------------------------------------------------------------------
    def exported(self, network: nn.Module) -> nn.Module:
        """From resampled images, in units where training fixed the scale, to probabilities."""
        from medtool.tasks.segmentation_exported import ExportedSegmentation

        return ExportedSegmentation(network, self.input_scale(), regions=self.has_regions)

    def exported_deployment(self) -> DeploymentSpec:
        """Windows in; logits and probabilities out."""
        from medtool.tasks.segmentation_exported import segmentation_deployment

        return segmentation_deployment(
            self.window_shape(), self.input_scale(), regions=self.has_regions
        )

    def joined(self, members: Sequence[Any]) -> nn.Module:
        """The mean of their logits, where they see the same windows of the same image."""
        from medtool.predict.together import MeanNetwork
        from medtool.tasks.segmentation_together import networks_of_one_file

        return MeanNetwork(networks_of_one_file(members))

    def answered_by(self, engine: Engine) -> nn.Module:
        """Logits of windows, by another engine."""
        from medtool.tasks.segmentation_exported import AnsweredSegmentation

        return AnsweredSegmentation(engine, self.input_scale())

    def model_card(self) -> Mapping[str, Any]:
        """Grid, scale, windows and labels."""
        from medtool.tasks.model_cards import segmentation_card

        return segmentation_card(self.settings)

    @property
    def has_regions(self) -> bool:
        """Whether labels overlap, each with a sigmoid of its own."""
        from medtool.tasks.segmentation_labels import has_regions

        return has_regions(self.settings.data)

    def input_scale(self) -> ChannelScale:
        """The part of the normalisation that the exported file does itself."""
        from medtool.tasks.segmentation_exported import fixed_scale

        return fixed_scale(self.settings.data.preparation)

    def window_shape(self) -> tuple[int, ...]:
        """One image as the network sees it in use: (1, channels, ...)."""
        return (1, len(self.settings.data.channels), *self.settings.model.patch_size_vox)

    # --- other programs -------------------------------------------------------------------
    @classmethod
    def foreign_models(
        cls, program: str, folder: Path, *, checkpoint: str, folds: Sequence[str]
    ) -> Iterator[ForeignModel]:
        """The folds of a model folder of nnU-Net v2."""
        from medtool.tasks.segmentation_nnunet import nnunet_models

        yield from nnunet_models(cls.settings_type, folder, checkpoint=checkpoint, folds=folds)

    @classmethod
    def write_foreign(
        cls, program: str, models: Sequence[ForeignModel], folder: Path, *, dataset: str
    ) -> ForeignFolder:
        """A folder of results of nnU-Net v2, with a fold for each model."""
        from medtool.tasks.segmentation_nnunet_export import write_nnunet

        return write_nnunet(models, folder, dataset=dataset)

    def audit(self, cases: Sequence[Case], prepared: Mapping[str, Path]) -> dict[str, Any]:
        """What was planned from the data, each decision with its reason."""
        return {} if self.plan is None else {"plan": self.plan_document()}
