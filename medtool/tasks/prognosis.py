"""The family of tasks that outline disease on PET/CT, rank patients by risk, and doubt themselves.

A segmentation (``medtool.tasks.segmentation``) of two channels, SUV and CT, whose network has a
head for survival and answers many times with dropout: ``prognosis_find``, ``prognosis_outcomes``,
``prognosis_reading``, ``prognosis_preparation`` (data), ``prognosis_network``,
``prognosis_examples``, ``prognosis_learning`` (learning), ``prognosis_predict``,
``prognosis_answers``, ``prognosis_decide`` (answering), ``prognosis_judged``,
``prognosis_scores``, ``prognosis_pictures`` (judging). A case without an outcome teaches the
segmentation alone, one without a mask the survival alone.

torch is imported inside methods only: listing tasks and preparing cases do without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medtool.core.records import (
    Batch,
    Case,
    Cohort,
    DeploymentSpec,
    Finding,
    Prediction,
    Prepared,
    Scores,
    Source,
    Truth,
)
from medtool.tasks.prognosis_settings import PrognosisSettings
from medtool.tasks.segmentation import SegmentationTask
from medtool.tasks.segmentation_labels import MASK

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from medtool.core.progress import Reporter
    from medtool.data.matching import Labelled
    from medtool.predict.engines.contract import Engine


class PrognosisTask(SegmentationTask):
    """A PET/CT study in; a mask, a risk and how sure both are out."""

    settings_type = PrognosisSettings
    layout = (
        "DICOM studies with a PET and a CT, NIfTI pairs (NAME_suv, NAME_ct), a table manifest.csv "
        "with columns case, image_pet, image_ct, mask, time_days and event, or the layouts of "
        "HECKTOR and autoPET"
    )
    reference = "mask or outcome"
    reads_labels: ClassVar[bool] = True
    labels_patterns: ClassVar[tuple[str, ...]] = ("labels*.csv", "outcomes*.csv")
    # No plan of nnU-Net's describes these networks.
    imports = ()
    exports = ()
    # What masks show whose labels neither the data set nor the preset names.
    structure: ClassVar[str] = "tumour"

    settings: PrognosisSettings

    def __init__(self, settings: PrognosisSettings) -> None:
        super().__init__(settings)
        from medtool.tasks.prognosis_answers import prognosis_columns

        self.columns = prognosis_columns(settings)
        # What a checkpoint keeps of the outcomes of its training patients.
        self.learned: Mapping[str, Any] = {}
        # How many models an exported file stands for.
        self.models = 1

    # --- data -----------------------------------------------------------------------------
    def find(self, source: Source) -> Cohort:
        """DICOM studies, NIfTI pairs, manifests and the layouts of HECKTOR and autoPET."""
        from medtool.tasks.prognosis_find import find_pet_ct

        return find_pet_ct(source, self.settings.data)

    def labelled(self, cases: Sequence[Case], file: Path) -> Labelled:
        """``cases`` with their outcomes and covariates from a table."""
        from medtool.tasks.prognosis_tables import attach_outcomes

        return attach_outcomes(cases, file, self.settings.data)

    def has_reference(self, case: Case) -> bool:
        """Whether a mask or an outcome is known."""
        return super().has_reference(case) or case.outcome is not None

    def informed(self, intake: Mapping[str, Any]) -> PrognosisTask:
        """The task with the labels that the data set declares, or one of its own."""
        from medtool.tasks.prognosis_labels import settled_labels

        data = settled_labels(self.settings.data, intake.get("dataset"), self.structure)
        return type(self)(self.settings.model_copy(update={"data": data}))

    def planned(
        self,
        cases: Sequence[Case],
        *,
        intake: Mapping[str, Any],
        folder: Path,
        workers: int | None = None,
        reporter: Reporter | None = None,
    ) -> PrognosisTask:
        """The task with its labels, and what covariates are like, settled by the data.

        Raises LabelsError where nothing of what is to be learned has a reference.
        """
        from medtool.core.progress import Silent
        from medtool.tasks.prognosis_covariates import with_known_covariates
        from medtool.tasks.prognosis_outcomes import require_references

        settings = with_known_covariates(self.informed(intake).settings, cases)
        require_references(cases, settings.train.objectives, reporter or Silent())
        task = type(self)(settings)
        task.tell_of_labels(reporter)
        return task

    def with_document(self, document: Mapping[str, Any]) -> PrognosisTask:
        """The task with what the checkpoint keeps of the outcomes of its training patients."""
        from medtool.tasks.prognosis_decided import HAZARD

        task = type(self)(self.settings)
        task.learned = document.get(HAZARD) or {}
        return task

    def check(self, case: Case) -> list[Finding]:
        """What only voxels show: no SUV, no HU, masks that are empty or elsewhere."""
        from medtool.tasks.prognosis_preparation import check_pet_ct

        return check_pet_ct(case, self.settings.data)

    def prepare(self, case: Case) -> Prepared:
        """SUV and CT on one grid, and the SUV that is measured. Raises CaseRefused."""
        from medtool.tasks.prognosis_preparation import prepare_pet_ct

        return prepare_pet_ct(case, self.settings.data)

    def preparation_key(self) -> Mapping[str, Any]:
        """What every segmentation says, and which structures of DICOM masks are taken."""
        return {**super().preparation_key(), "structures": dict(self.settings.data.structures)}

    def truth(self, case: Case) -> Truth:
        """The outcome, and the mask on the grid that answers are given on."""
        from medtool.tasks.prognosis_reading import read_pet_ct_truth

        return read_pet_ct_truth(case, self.settings.data)

    # --- learning -------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """The network of the preset, with random weights."""
        from medtool.tasks.prognosis_network import build_prognosis_network

        return build_prognosis_network(self.settings)

    def groups(self, network: nn.Module) -> dict[str, list[nn.Module]]:
        """Encoder, decoder and the head of survival, as far as there are any."""
        from medtool.tasks.prognosis_network import network_groups

        return network_groups(network)

    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> Dataset[Any]:
        """Slices or patches of studies; in training drawn and changed at random."""
        from medtool.tasks.prognosis_examples import StudyExamples

        return StudyExamples(self.settings, cases, prepared, training=training)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``loss``: that of the masks and that of the outcomes, weighted."""
        from medtool.tasks.prognosis_learning import study_losses

        return study_losses(self.settings, network, batch)

    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Per case: voxels that are right, too many and missing, and the risk."""
        from medtool.tasks.prognosis_learning import study_facts

        return study_facts(self.settings, network, batch)

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """loss, dice, Harrell's C, and the metric that chooses."""
        from medtool.tasks.prognosis_learning import summarise_studies

        return summarise_studies(self.settings, facts)

    # --- answering ------------------------------------------------------------------------
    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """Mask, uptake, risk, survival and uncertainty of one study."""
        from medtool.tasks.prognosis_predict import predict_study

        return predict_study(self.settings, model, prepared, case)

    def predict_together(self, model: Any, prepared: Sequence[Prepared], case: Case) -> Prediction:
        """The same by several models, whose answers differ where the study is hard."""
        from medtool.tasks.prognosis_predict import predict_study_together

        return predict_study_together(model, prepared, case)

    def companions(self) -> Mapping[str, Path]:
        """None: studies are looked at whole."""
        return {}

    def write(self, prediction: Prediction, case: Case, folder: Path) -> dict[str, Any]:
        """The mask and the maps as NIfTI, and the row."""
        from medtool.tasks.prognosis_answers import write_study

        return write_study(self.settings, prediction, case, folder)

    def restored(self, row: Mapping[str, Any], folder: Path) -> Prediction:
        """The prediction with its mask and maps read back."""
        from medtool.tasks.prognosis_answers import read_study

        return read_study(self.settings, row, folder)

    def picture(
        self, prediction: Prediction, prepared: Prepared, case: Case, folder: Path
    ) -> list[Path]:
        """Six panels: CT, PET, reference, answer, uncertainty, and the risk with its interval."""
        from medtool.tasks.prognosis_pictures import draw_study

        return draw_study(self.settings, prediction, prepared, case, folder)

    def settles(self, case: Case) -> bool:
        """Whether the outcome of the case has a say in the baseline hazard."""
        return self.settings.train.objectives != "segmentation" and case.outcome is not None

    def write_dicom(
        self, prediction: Prediction, case: Case, folder: Path, model: Any
    ) -> list[Path]:
        """A DICOM SEG that refers to the series on whose grid the mask is."""
        if MASK not in prediction.arrays:
            return []
        answered = self.settings.data.preparation.answer_grid
        series = replace(case, inputs={answered: case.inputs[answered]})
        return super().write_dicom(prediction, series, folder, model)

    def settle(self, answers: Iterable[tuple[Case, Prediction]]) -> Mapping[str, Any]:
        """The baseline hazard of the training patients, for the checkpoint."""
        from medtool.tasks.prognosis_decide import settle_study

        return settle_study(self.settings, answers)

    def baselines(self) -> Mapping[str, Sequence[str]]:
        """The outlines alone and survival alone, where the preset asks for baselines."""
        from medtool.tasks.prognosis_baselines import ALONE

        return ALONE if self.settings.train.baselines else {}

    def decide(
        self, predictions: Sequence[Prediction], truths: Sequence[Truth]
    ) -> Mapping[str, Any]:
        """Temperature, conformal quantiles and when a case is to be reviewed."""
        from medtool.tasks.prognosis_decide import decide_study

        return decide_study(self.settings, predictions, truths)

    def score(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Scores:
        """Masks, survival and uncertainty, each where its reference is known."""
        from medtool.tasks.prognosis_scores import score_prognosis

        return score_prognosis(self.settings, predictions, truths, self.learned)

    def deployment(self) -> DeploymentSpec:
        """A prepared slice or patch in; logits and risk out."""
        from medtool.tasks.prognosis_network import prognosis_deployment

        return prognosis_deployment(self.settings)

    def exported(self, network: nn.Module) -> nn.Module:
        """The images of a patient to outlines and a risk, with the masks of passes as inputs."""
        from medtool.tasks.prognosis_exported import exported_prognosis

        return exported_prognosis(self.settings, network)

    def exported_deployment(self) -> DeploymentSpec:
        """Images of a patient in; logits, probabilities and the patient's risk out."""
        from medtool.tasks.prognosis_exported import exported_deployment

        return exported_deployment(self.settings, self.models)

    def joined(self, members: Sequence[Any]) -> nn.Module:
        """Each with its own passes, its risks beside those of its training patients."""
        from medtool.tasks.prognosis_exported import joined_prognosis

        return joined_prognosis(members)

    def standing_for(self, models: int) -> PrognosisTask:
        """The task whose exported file has the passes of so many models."""
        task = copy(self)
        task.models = models
        return task

    def answered_by(self, engine: Engine) -> nn.Module:
        """The passes over a patient, by another engine."""
        from medtool.tasks.prognosis_answered import AnsweredPrognosis

        return AnsweredPrognosis(engine, self.settings, self.models)

    def model_card(self) -> Mapping[str, Any]:
        """Grid, SUV, window, passes and labels."""
        from medtool.tasks.model_cards import prognosis_card

        return prognosis_card(self.settings)

    def audit(self, cases: Sequence[Case], prepared: Mapping[str, Path]) -> dict[str, Any]:
        """Nothing is planned from images."""
        return {}
