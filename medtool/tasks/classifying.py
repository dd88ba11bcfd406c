"""The family of tasks that outline structures and name the class of what they outline.

A segmentation (``medtool.tasks.segmentation``) whose network has a head for the classes of cases:
``classifying_classes`` (where classes come from, their weights), ``classifying_examples``,
``classifying_learning``, ``classifying_predict``, ``classifying_scores``. Where no classes are
given the head is off, which is said, and everything is that of the segmentation.

torch is imported inside methods only: listing tasks and preparing cases do without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from medtool.core.errors import UsageError
from medtool.core.records import (
    Batch,
    Case,
    Cohort,
    DeploymentSpec,
    Prediction,
    Prepared,
    Scores,
    Truth,
)
from medtool.core.task import Task
from medtool.tasks.classifying_classes import (
    decisions,
    known_classes,
    planned_classes,
    planned_pieces,
    probability_column,
    scored_structures,
    with_classes,
)
from medtool.tasks.classifying_settings import ClassifyingSettings
from medtool.tasks.segmentation import SegmentationTask

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from medtool.core.progress import Reporter
    from medtool.predict.engines.contract import Engine


class ClassifyingSegmentationTask(SegmentationTask):
    """Images in; a mask on the image's own grid, and a class with probabilities out."""

    settings_type = ClassifyingSettings
    layout = f"{SegmentationTask.layout}; classes in a table labels*.csv beside it"
    reads_labels: ClassVar[bool] = True

    settings: ClassifyingSettings

    def __init__(self, settings: ClassifyingSettings) -> None:
        super().__init__(settings)
        if self.has_head:
            self.columns = {**self.columns, **self._class_columns()}
        # What ``planned`` decided of the classes, with reasons.
        self.decided: list[dict[str, Any]] = []

    @property
    def has_head(self) -> bool:
        """Whether the network names classes: whether there are any."""
        return bool(self.settings.data.classes)

    def _class_columns(self) -> dict[str, tuple[str, str, str]]:
        return {
            "class": ("text", "", "the most probable class"),
            **{
                probability_column(name): ("float", "", f"probability of {name}, 0 to 1")
                for name in self.settings.data.classes
            },
        }

    def _scored(self) -> Mapping[str, tuple[int, ...]]:
        """The labels, and all of them together."""
        return scored_structures(self.settings)

    # --- data -----------------------------------------------------------------------------
    def self_labelled(self, cohort: Cohort) -> Cohort:
        """The cohort with the classes that a manifest or the names of the cases give."""
        return with_classes(cohort, self.settings.data)

    def informed(self, intake: Mapping[str, Any]) -> ClassifyingSegmentationTask:
        """The task with the channels, labels and classes of the data set."""
        informed = cast(ClassifyingSegmentationTask, super().informed(intake))
        return type(self)(known_classes(informed.settings, intake))

    def planned(
        self,
        cases: Sequence[Case],
        *,
        intake: Mapping[str, Any],
        folder: Path,
        workers: int | None = None,
        reporter: Reporter | None = None,
    ) -> ClassifyingSegmentationTask:
        """The task as a segmentation is planned, with its classes and how much each weighs."""
        known = type(self)(known_classes(self.settings, intake))
        planned = SegmentationTask.planned(
            known, cases, intake=intake, folder=folder, workers=workers, reporter=reporter
        )
        settings = cast(ClassifyingSettings, planned.settings)
        task = type(self)(planned_pieces(planned_classes(settings, cases)))
        task.plan = planned.plan
        if task.settings != self.settings:
            # A run that goes on, or a planned preset, decides nothing anew.
            task.decided = decisions(task.settings, cases)
        return task

    def truth(self, case: Case) -> Truth:
        """The mask as it lies on the disk, and the number of the class."""
        return replace(super().truth(case), label=case.label)

    # --- learning -------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """The planned U-Net with its head. Raises UsageError before it is planned."""
        if not self.has_head:
            return super().network()
        from medtool.tasks.classifying_learning import build_network

        return build_network(self.settings)

    def groups(self, network: nn.Module) -> dict[str, list[nn.Module]]:
        """Encoder, decoder and what is only there for the classes."""
        parts: Any = network
        head = {"classifier": [parts.classifier]} if self.has_head else {}
        return {**super().groups(network), **head}

    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> Dataset[Any]:
        """Patches from the cache, many around the lesion; in training changed at random."""
        if not self.has_head:
            return super().examples(cases, prepared, training=training)
        from medtool.tasks.classifying_examples import ClassifiedPatchExamples

        return ClassifiedPatchExamples(self.settings, cases, prepared, training=training)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``loss``: that of the masks and that of the class, weighted by the epoch."""
        if not self.has_head:
            return super().losses(network, batch)
        from medtool.tasks.classifying_learning import classified_losses

        return classified_losses(self.settings, network, batch)

    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Per case: voxels that are right, too many and missing, and the class."""
        if not self.has_head:
            return super().validate(network, batch)
        from medtool.tasks.classifying_learning import classified_facts

        return classified_facts(self.settings, network, batch)

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """loss, dice, dice_<label>, macro_f1, accuracy, and dice_and_f1, the mean of both."""
        if not self.has_head:
            return super().summarise(facts)
        from medtool.tasks.classifying_learning import summarise_classified

        return summarise_classified(self.settings.data, facts)

    # --- answering ------------------------------------------------------------------------
    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """The mask on the input's own grid, then the class of what it shows."""
        if not self.has_head:
            return super().predict(model, prepared, case)
        from medtool.tasks.classifying_predict import predict_classified

        return predict_classified(self.settings, model, prepared, case)

    def require_together(self, tasks: Sequence[Task]) -> None:
        """Models answer together where channels, labels and classes are the same."""
        super().require_together(tasks)
        first, *others = [", ".join(task.settings.data.class_values()) for task in tasks]
        for other in others:
            if other != first:
                raise UsageError(
                    "Models with different classes cannot answer together.",
                    met=other or "none",
                    wanted=first or "none",
                    how="name models of one data set.",
                )

    def predict_together(self, model: Any, prepared: Sequence[Prepared], case: Case) -> Prediction:
        """The mask of the mean of all members' logits, then the mean of their probabilities."""
        answer = super().predict_together(model, prepared, case)
        if not self.has_head:
            return answer
        from medtool.tasks.classifying_predict import with_class

        members = [(member, member.task.settings) for member in model.members]
        return with_class(
            answer, [(*one, seen) for one, seen in zip(members, prepared, strict=True)]
        )

    def exported(self, network: nn.Module) -> nn.Module:
        """As of a segmentation, with the classes of what each image shows."""
        if not self.has_head:
            return super().exported(network)
        from medtool.tasks.classifying_exported import ExportedClassifying

        return ExportedClassifying(network, self.input_scale(), regions=self.has_regions)

    def exported_deployment(self) -> DeploymentSpec:
        """Windows in; logits and probabilities of labels and of classes out."""
        if not self.has_head:
            return super().exported_deployment()
        from medtool.tasks.classifying_exported import classifying_deployment

        return classifying_deployment(super().exported_deployment())

    def joined(self, members: Sequence[Any]) -> nn.Module:
        """The mean of the logits of labels, and of the probabilities of classes."""
        if not self.has_head:
            return super().joined(members)
        from medtool.tasks.classifying_exported import MeanClassifying
        from medtool.tasks.segmentation_together import networks_of_one_file

        return MeanClassifying(networks_of_one_file(members))

    def answered_by(self, engine: Engine) -> nn.Module:
        """Logits of windows and of classes, by another engine."""
        if not self.has_head:
            return super().answered_by(engine)
        from medtool.tasks.classifying_exported import AnsweredClassifying

        return AnsweredClassifying(engine, self.input_scale())

    def model_card(self) -> Mapping[str, Any]:
        """As of a segmentation, with the classes."""
        if not self.has_head:
            return super().model_card()
        from medtool.tasks.model_cards import classifying_card

        return classifying_card(self.settings)

    def write(self, prediction: Prediction, case: Case, folder: Path) -> dict[str, Any]:
        """The mask as NIfTI; volumes, class and probabilities."""
        return {**super().write(prediction, case, folder), **prediction.scalars}

    def restored(self, row: Mapping[str, Any], folder: Path) -> Prediction:
        """The prediction with its class, and its mask read back."""
        from medtool.tasks.classifying_predict import read_class

        restored = super().restored(row, folder)
        return replace(restored, scalars=read_class(self.settings.data, row))

    def score(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Scores:
        """Overlap, distances and volumes of every label and of all together, and the classes."""
        from medtool.tasks.classifying_scores import score_classified

        return score_classified(self.settings, predictions, truths)

    def plan_document(self) -> dict[str, Any]:
        """The plan with every decision's reason, those on the classes among them."""
        plan = super().plan_document()
        decided = [*plan.get("decisions", ()), *self.decided]
        return {**plan, "decisions": decided} if decided else plan

    def audit(self, cases: Sequence[Case], prepared: Mapping[str, Path]) -> dict[str, Any]:
        """What was planned from the data, and decided of the classes, each with its reason."""
        plan = self.plan_document()
        return {"plan": plan} if plan else {}
