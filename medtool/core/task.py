"""The contract of a task: all that a plugin has to say.

A task is a class built from resolved settings. The families in ``medtool.tasks`` fill most of it;
what has no default here only the task can know. A plugin registers its class in the entry-point
group ``medtool.tasks``; ``medtool.testing.check_task`` checks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medtool.core.errors import UsageError
from medtool.core.progress import Reporter
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
    Section,
    Source,
    Truth,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from medtool.config.sections import TaskSettings
    from medtool.core.foreign import ForeignFolder, ForeignModel
    from medtool.data.matching import Labelled
    from medtool.predict.engines.contract import Engine


class Task(ABC):
    """One clinical question and how it is answered."""

    name: ClassVar[str]
    summary: ClassVar[str]
    settings_type: ClassVar[type[TaskSettings]]
    # What a folder of data has to look like, in one line, for refusals.
    layout: ClassVar[str] = ""
    # Raised whenever ``prepare`` gives other arrays for the same settings: part of the cache key.
    preparation_version: ClassVar[int] = 1
    # The task's columns of predictions.csv, in order: name -> (type, unit, one line of meaning).
    # The kind "file" is a path below the folder of the predictions. An instance may have more.
    columns: Mapping[str, tuple[str, str, str]] = {}
    # What a case needs so that something can be learned from it: one word, for refusals.
    reference: ClassVar[str] = "label"
    # Programs whose models 'medtool import' turns into checkpoints of this task.
    imports: ClassVar[tuple[str, ...]] = ()
    # Whether a table of labels says something to this task; else none is looked for.
    reads_labels: ClassVar[bool] = True
    # Names of tables beside the scans that are taken without being named.
    labels_patterns: ClassVar[tuple[str, ...]] = ("labels*.csv",)
    # Programs for which 'medtool export' writes models of this task.
    exports: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    # --- data -----------------------------------------------------------------------------
    @abstractmethod
    def find(self, source: Source) -> Cohort:
        """The cases under ``source``, and what was not usable and why; reads headers only."""

    def self_labelled(self, cohort: Cohort) -> Cohort:
        """The cohort with the labels that its cases carry themselves, as in their names.

        By default as it is. Asked only where labels matter. Raises LabelsError.
        """
        return cohort

    def labelled(self, cases: Sequence[Case], file: Path) -> Labelled | None:
        """``cases`` with what a table says of them, for a task whose tables hold no classes.

        None by default: then the table is read as one of classes. Raises LabelsError.
        """
        return None

    def check(self, case: Case) -> list[Finding]:
        """What only pixels show. Runs in a worker."""
        return []

    def checked(self, case: Case) -> CheckedCase:
        """What ``check`` says, with what is compared with other cases; by default nothing is.

        Runs in a worker.
        """
        return CheckedCase(case.case_id, case.patient_id, tuple(self.check(case)))

    @abstractmethod
    def prepare(self, case: Case) -> Prepared:
        """Pure and deterministic. Runs in a worker. Raises CaseRefused with a code."""

    def preparation_key(self) -> Mapping[str, Any]:
        """What decides the arrays of ``prepare`` beside the case: part of the cache's key.

        Plain values; by default the table [data.preparation].
        """
        return self.settings.data.preparation.model_dump(mode="json")

    @abstractmethod
    def truth(self, case: Case) -> Truth:
        """The reference on the input's own grid: the only reader of references."""

    def has_reference(self, case: Case) -> bool:
        """Whether something can be learned from ``case``, and its answer scored."""
        return case.label is not None

    def informed(self, intake: Mapping[str, Any]) -> Task:
        """The task with what the data say of themselves, such as names of labels; by default
        itself. ``intake`` is that of their cohort.
        """
        return self

    def planned(
        self,
        cases: Sequence[Case],
        *,
        intake: Mapping[str, Any],
        folder: Path,
        workers: int | None = None,
        reporter: Reporter | None = None,
    ) -> Task:
        """The task with everything settled that its settings leave to the data; itself by default.

        ``cases`` are those that may have a say (never the held-out part), ``intake`` is that of
        their cohort. What was measured of them is kept in ``folder``, of the cache, so that it is
        measured once. The new settings go into the run's preset and its checkpoints, and plan
        nothing anew when they come back.
        """
        return self

    def with_document(self, document: Mapping[str, Any]) -> Task:
        """The task with what a checkpoint's ``document`` keeps beside its settings.

        By default itself. Asked before answers of that checkpoint are scored, as for the outcomes
        of its training patients.
        """
        return self

    def plan_document(self) -> Mapping[str, Any]:
        """What ``planned`` decided, each decision with its reason; {} where nothing was planned.

        ``decisions``, where it has them, are tables with ``what``, ``value`` and ``why``.
        """
        return {}

    # --- learning -------------------------------------------------------------------------
    @abstractmethod
    def network(self) -> nn.Module:
        """The model, with random weights."""

    @abstractmethod
    def groups(self, network: nn.Module) -> dict[str, list[nn.Module]]:
        """Named parts of the network, which stages freeze and give rates; together all of it."""

    @abstractmethod
    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> Dataset[Any]:
        """Samples indexed by ExampleKey; ``prepared`` maps case ids to files of the cache.

        Augmentation parameters are drawn first, from the key alone, then applied. The data set
        has ``collate(list of samples, cases, seed, epoch) -> Batch`` as a method.
        """

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
        """Files that ``examples`` takes in place of ``prepared``, made once before the training.

        For what need not be computed at every step: features of parts of ``network`` (with its
        first weights) that are in no stage's rates (``learning`` names all groups that are).
        Kept in ``folder``, where a resumed run finds them. By default there are none.
        """
        return prepared

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """``loss`` is minimised (mean over the cases of the batch); the rest is logged."""

    @abstractmethod
    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Cheap facts of one batch for every epoch: per case {"case": [...], "logit": [...]}."""

    @abstractmethod
    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The epoch's metrics from the facts of ``validate``; includes the primary metric."""

    def audit(self, cases: Sequence[Case], prepared: Mapping[str, Path]) -> dict[str, Any]:
        """What training on these cases could give away beside the image.

        It goes into run.json; its ``summary``, where it has one, is a line that is printed.
        """
        return {}

    # --- answering ------------------------------------------------------------------------
    @abstractmethod
    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """One case, any size, bounded memory; ``model`` is a medtool.predict.model.Model."""

    def require_together(self, tasks: Sequence[Task]) -> None:
        """Raises UsageError where models of ``tasks``, such as the folds of a run, cannot answer
        as one. They may be planned from different cases.
        """
        raise UsageError(
            f"Models of the task '{self.name}' answer one by one.",
            met=f"{len(tasks)} models in one checkpoint",
            how="name the checkpoint of one fold.",
        )

    def predict_together(self, model: Any, prepared: Sequence[Prepared], case: Case) -> Prediction:
        """As ``predict``, by all of ``model.members`` together; ``prepared`` has one for each."""
        self.require_together([member.task for member in model.members])
        raise NotImplementedError

    def companions(self) -> Mapping[str, Path]:
        """Checkpoints of other models that ``predict`` asks, by name; none by default."""
        return {}

    def write(self, prediction: Prediction, case: Case, folder: Path) -> dict[str, Any]:
        """Masks and pictures into ``folder``; gives the task's columns of the CSV row."""
        return dict(prediction.scalars)

    def picture(
        self, prediction: Prediction, prepared: Prepared, case: Case, folder: Path
    ) -> list[Path]:
        """Overlays that show a person what the answer rests on; none by default."""
        return []

    def write_dicom(
        self, prediction: Prediction, case: Case, folder: Path, model: Any
    ) -> list[Path]:
        """The answer as DICOM objects below ``folder``; none where the input was no DICOM.

        Raises UsageError where the task's answers are none that DICOM has objects for.
        """
        raise UsageError(
            f"Answers of the task '{self.name}' are no masks.",
            met="--dicom-seg",
            how="leave --dicom-seg out.",
        )

    def pool(self, predictions: Sequence[Prediction]) -> Prediction:
        """One answer for the cases of one patient, in the order of study dates.

        Raises UsageError where the task's answers cannot be pooled.
        """
        raise UsageError(
            f"The task '{self.name}' gives its answers by case.",
            wanted="--by case",
            how="leave --by out.",
        )

    def restored(self, row: Mapping[str, str], folder: Path) -> Prediction:
        """The prediction of a row of predictions.csv in ``folder``, as far as it was kept."""
        scalars: dict[str, Any] = {}
        for name, (kind, _, _) in self.columns.items():
            text = row.get(name, "")
            if text != "":
                scalars[name] = float(text) if kind == "float" else text
        return Prediction(row["case"], row["patient"], scalars)

    def decide(
        self, predictions: Sequence[Prediction], truths: Sequence[Truth]
    ) -> Mapping[str, Any]:
        """What the selection part settles (a threshold, rules for masks), for the checkpoint.

        The keys are those of the checkpoint's document that change; none by default. What has
        masks is read from the disk as it is asked for: look at one case at a time.
        """
        return {}

    def settles(self, case: Case) -> bool:
        """Whether the answer for this training case is asked for by ``settle``; no, by default."""
        return False

    def settle(self, answers: Iterable[tuple[Case, Prediction]]) -> Mapping[str, Any]:
        """What the training part settles once the weights are chosen, before ``decide`` is asked.

        ``answers`` come one at a time, of the cases that ``settles`` names; nothing is scored on
        them. The keys are new ones of the checkpoint's document.
        """
        return {}

    def baselines(self) -> Mapping[str, Sequence[str]]:
        """What is trained beside a run, to compare it with: name -> settings that differ, as of
        --set; none by default.
        """
        return {}

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Scores:
        """The metrics that the preset names; look at one case at a time, as in ``decide``."""

    @abstractmethod
    def deployment(self) -> DeploymentSpec:
        """What the network itself takes and gives, with a small example: its probe."""

    def sections(self, run: Any) -> list[Section]:
        """What the report shows beyond the common part; ``run`` is a data.run_folder.RunFolder."""
        return []

    # --- other engines --------------------------------------------------------------------
    def exported(self, network: nn.Module) -> nn.Module:
        """``network`` as it is exported: one call from units to probabilities.

        ``forward`` takes the inputs of ``exported_deployment`` in their order, and gives a tuple
        of its outputs. What does not depend on the whole image (a normalisation by fixed numbers,
        an activation) is inside. Raises UsageError where the task does not say how.
        """
        raise self._not_exported()

    def exported_deployment(self) -> DeploymentSpec:
        """What ``exported`` takes and gives; sizes are those of real use, with one image."""
        raise self._not_exported()

    def joined(self, members: Sequence[Any]) -> nn.Module:
        """The networks of several models (folds; each a medtool.predict.model.Model) as one, which
        ``exported`` of the task that stands for so many takes.

        Raises UsageError where they cannot be.
        """
        raise self._not_exported()

    def standing_for(self, models: int) -> Task:
        """The task as it is exported, and answers, for so many models in one file."""
        return self

    def answered_by(self, engine: Engine) -> nn.Module:
        """What stands in the place of the network in ``predict`` where ``engine`` runs what was
        exported.
        """
        raise self._not_exported()

    def model_card(self) -> Mapping[str, Any]:
        """What somebody has to know who uses the exported file without medtool.

        Plain values: ``inputs``, ``outputs``, ``preparation`` and ``answer`` (sentences, in order),
        and the same in numbers.
        """
        raise self._not_exported()

    def _not_exported(self) -> UsageError:
        return UsageError(
            f"The task '{self.name}' does not say how its network leaves medtool.",
            wanted="a task with the methods exported, answered_by and model_card",
            how="its models answer with PyTorch, from their checkpoints.",
        )

    # --- other programs -------------------------------------------------------------------
    @classmethod
    def foreign_models(
        cls, program: str, folder: Path, *, checkpoint: str, folds: Sequence[str]
    ) -> Iterator[ForeignModel]:
        """The models that ``program``, one of ``imports``, left in ``folder``, one after another.

        ``checkpoint`` is best or final; ``folds`` names those that are wanted, all where it is
        empty. Raises CheckpointError that says in what a model does not fit.
        """
        raise NotImplementedError

    @classmethod
    def write_foreign(
        cls, program: str, models: Sequence[ForeignModel], folder: Path, *, dataset: str
    ) -> ForeignFolder:
        """Write ``models`` for ``program``, one of ``exports``, below ``folder``.

        ``dataset`` is what the program is to call the data; "" leaves it to the task. Raises
        UsageError that says what the program cannot have.
        """
        raise NotImplementedError

    @abstractmethod
    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """A small synthetic cohort in the task's own format, written under a bar."""
