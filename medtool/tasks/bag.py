"""The family of tasks that call a study positive or negative from its slices, seen as one bag.

A subclass says how a study becomes slices and how a slice is changed and scaled; everything else
is here and in the modules beside it (``studies``, ``bag_network``, ``bag_examples``,
``bag_learning``, ``bag_predict``, ``bag_features``).

What ``prepare`` has to give:

- ``arrays["slices"]``: (used slices, rows, columns), ordered as read, not yet normalised;
- ``arrays["mask"]``, where the task has one: bool, same shape;
- ``elements``: one row for every slice that was read, in order, with ``slice_index`` (from 0),
  ``instance_number``, ``position_mm`` (along the normal), ``sop_instance_uid``, ``used`` (bool)
  and ``reason`` (why not used, or why kept; else empty). The k-th row with ``used`` true belongs
  to ``arrays["slices"][k]``.

torch is imported inside methods only: listing tasks and preparing cases do without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medtool.core.errors import CaseRefused
from medtool.core.progress import Reporter
from medtool.core.records import (
    Batch,
    Case,
    Cohort,
    DeploymentSpec,
    Prediction,
    Prepared,
    Scores,
    Source,
    Truth,
)
from medtool.core.task import Task
from medtool.dicom.body_part import BodyPart
from medtool.tasks.bag_settings import BagSettings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from medtool.predict.engines.contract import Engine
    from medtool.tasks.bag_examples import BagExamples

# name -> (type, unit, meaning); the common columns of predictions.csv stand before these.
BAG_COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "probability": ("float", "", "probability of the positive class, 0 to 1"),
    "decision": (
        "text",
        "",
        "positive when the probability is at least the threshold, or negative",
    ),
    "threshold": ("float", "", "decision threshold, from the checkpoint"),
    "logit": ("float", "", "log(P / (1 - P)) of the probability, clipped to -30..30"),
    "slices_read": ("int", "slices", "slices of the series that were read"),
    "slices_used": ("int", "slices", "slices that the network saw"),
    "top_slice_index": (
        "int",
        "",
        "index from 0, as read, of the slice that speaks most for positive",
    ),
    "top_slice_instance": ("int", "", "InstanceNumber of that slice; empty where there is none"),
    "top_slice_position_mm": ("float", "mm", "position of that slice along the stack's normal"),
    "top_slice_uid": ("text", "", "SOPInstanceUID of that slice; empty where there is none"),
}


class BagTask(Task):
    """One study, one answer; ``modalities`` are those that ``find`` takes."""

    settings_type = BagSettings
    layout = (
        "CTs/<patient>/... with DICOM or NIfTI files (or patients' folders right there), "
        "and one labels*.csv with an id and a 0/1, yes/no or pos/neg column"
    )
    columns = BAG_COLUMNS
    modalities: ClassVar[tuple[str, ...]] = ("CT",)
    # The key of ``Case.inputs`` under which the chosen series, or a path of NIfTI, stands.
    channel: ClassVar[str] = "ct"
    # Where the task looks: of a study that shows more, the series of this part is taken.
    body_part: ClassVar[BodyPart | None] = None

    settings: BagSettings

    # --- what a subclass gives ------------------------------------------------------------
    @abstractmethod
    def prepare(self, case: Case) -> Prepared:
        """A study as slices (see the module); begins with ``self.input_of(case)``."""

    @abstractmethod
    def normalise(
        self, slices: NDArray[Any], masks: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """Slices (n, rows, columns) as the network's input (n, channels, rows, columns)."""

    def draw_augmentation(
        self, rng: np.random.Generator, label: float | None
    ) -> Mapping[str, float]:
        """Parameters of one slice's change in training, drawn from ``rng`` alone."""
        return {}

    def apply_augmentation(
        self,
        image: NDArray[Any],
        mask: NDArray[np.bool_] | None,
        parameters: Mapping[str, float],
    ) -> NDArray[Any]:
        """One slice (rows, columns) changed as ``parameters`` say; {} changes nothing."""
        return image

    # --- data -----------------------------------------------------------------------------
    def find(self, source: Source) -> Cohort:
        """Studies below ``source``: DICOM in any order, NIfTI files, or a manifest CSV."""
        from medtool.tasks.studies import find_studies

        return find_studies(
            source,
            patient_key=self.settings.data.patient_key,
            modalities=self.modalities,
            channel=self.channel,
            classes=self.label_classes(),
            body_part=self.body_part,
        )

    def label_classes(self) -> dict[str, float]:
        """Values of a label, in lower case, and the class of each."""
        data = self.settings.data
        negative = {value.lower(): 0.0 for value in data.negative_values}
        return {**negative, **{value.lower(): 1.0 for value in data.positive_values}}

    def input_of(self, case: Case) -> Any:
        """The chosen series (or path) of ``case``; raises CaseRefused where there is none."""
        if self.channel in case.inputs:
            return case.inputs[self.channel]
        refusals = [finding for finding in case.findings if finding.severity == "refusal"]
        code = refusals[0].code if refusals else "no-usable-series"
        what = refusals[0].message if refusals else "No series of this study can be used."
        raise CaseRefused(code, what, wanted=f"a readable {' or '.join(self.modalities)} series")

    def truth(self, case: Case) -> Truth:
        """The study's label (0 or 1), or None where none is known."""
        return Truth(case.case_id, case.patient_id, label=case.label)

    # --- learning -------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """Backbone, head and pooling as the preset says, with random weights."""
        from medtool.tasks.bag_network import build_network

        return build_network(self.settings.model, size_px=self.input_size_px())

    def groups(self, network: nn.Module) -> dict[str, list[nn.Module]]:
        """The backbone's parts from the stem on, then ``head`` (with the pooling)."""
        from medtool.tasks.bag_network import network_groups

        return network_groups(network)

    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> BagExamples:
        """Bags from the cache; in training augmented and, with ``max_slices``, thinned.

        Where ``prepared`` names the files of ``precompute``, bags of features.
        """
        from medtool.tasks.bag_examples import BagExamples
        from medtool.tasks.bag_features import FeatureExamples, is_feature_file

        if cases and all(is_feature_file(prepared[case.case_id]) for case in cases):
            return FeatureExamples(self, cases, prepared, training=training)
        return BagExamples(self, cases, prepared, training=training)

    def precompute(
        self,
        network: nn.Module,
        training: Sequence[Case],
        selection: Sequence[Case],
        prepared: Mapping[str, Path],
        folder: Path,
        *,
        learning: Collection[str],
        device: torch.device,
        reporter: Reporter | None = None,
    ) -> Mapping[str, Path]:
        """With ``train.feature_copies``, files with the features of parts that never learn."""
        from medtool.tasks.bag_features import precompute_features

        return precompute_features(
            self,
            network,
            training,
            selection,
            prepared,
            folder,
            learning=learning,
            device=device,
            reporter=reporter,
        )

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``loss``: one a study, each patient counting once, mean over the batch."""
        from medtool.tasks.bag_learning import bag_losses

        return bag_losses(self.settings, network, batch)

    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Per case: case, patient, label, logit, loss and its weight."""
        from medtool.tasks.bag_learning import bag_facts

        return bag_facts(self.settings, network, batch)

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """loss, auroc, f1, sensitivity, specificity and the threshold that they are at."""
        from medtool.tasks.bag_learning import summarise_facts

        return summarise_facts(self.settings.metrics, facts)

    # --- answering ------------------------------------------------------------------------
    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """Every used slice through the network in chunks; the row of the study and its slices."""
        from medtool.tasks.bag_predict import predict_bag

        return predict_bag(self, model, prepared, case)

    def picture(
        self, prediction: Prediction, prepared: Prepared, case: Case, folder: Path
    ) -> list[Path]:
        """The slices with the highest logits, one PNG each."""
        from medtool.tasks.bag_pictures import draw_top_slices

        return draw_top_slices(prediction, prepared, folder)

    def pool(self, predictions: Sequence[Prediction]) -> Prediction:
        """One answer for the studies of a patient, as if all their slices were one bag."""
        from medtool.tasks.bag_predict import pool_studies

        return pool_studies(self.settings.model, predictions)

    def decide(
        self, predictions: Sequence[Prediction], truths: Sequence[Truth]
    ) -> Mapping[str, Any]:
        """The decision threshold, by the preset's rule."""
        from medtool.tasks.bag_learning import decide_threshold

        return decide_threshold(self.settings.metrics, predictions, truths)

    def score(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Scores:
        """The metrics of a binary classification, at the threshold of the predictions."""
        from medtool.tasks.bag_learning import score_predictions

        return score_predictions(self.settings.metrics, predictions, truths)

    def deployment(self) -> DeploymentSpec:
        """A chunk of normalised slices in, one logit a slice out; pooling stays outside."""
        channels, size = self.settings.model.channels, self.input_size_px()
        return DeploymentSpec(
            inputs={"slices": (1, channels, size, size)},
            outputs=("slice_logits",),
            inside=("backbone", "head"),
        )

    def exported(self, network: nn.Module) -> nn.Module:
        """The slices of a study to its probability."""
        from medtool.tasks.bag_exported import ExportedBag

        return ExportedBag(network, self.normalisation())  # type: ignore[arg-type]

    def exported_deployment(self) -> DeploymentSpec:
        """Slices of a study in; logits of each and of the study out."""
        from medtool.tasks.bag_exported import bag_deployment

        return bag_deployment(self)

    def joined(self, members: Sequence[Any]) -> nn.Module:
        """None: a study is answered by one model."""
        self.require_together([member.task for member in members])
        raise NotImplementedError

    def answered_by(self, engine: Engine) -> nn.Module:
        """The slices of a study, some at a time, by another engine."""
        from medtool.tasks.bag_exported import AnsweredBag

        return AnsweredBag(engine, self)

    def model_card(self) -> Mapping[str, Any]:
        """Slices, pooling and classes; a subclass adds how a study becomes slices."""
        from medtool.tasks.model_cards import bag_card

        return bag_card(
            self.settings.model,
            "the threshold",
            self.input_size_px(),
            normalised=self.normalisation() is not None,
        )

    def normalisation(self) -> nn.Module | None:
        """``normalise`` as a layer: slices and masks (n, rows, columns), masks 0 or 1, to the
        network's input. None where there is none; then the exported file takes normalised slices.
        """
        return None

    def input_size_px(self) -> int:
        """Rows and columns of a prepared slice."""
        return 256
