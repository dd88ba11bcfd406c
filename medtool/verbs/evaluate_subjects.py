"""What ``evaluate`` is pointed at, read into one form: rows with a probability and a threshold."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config.sections import DataSection, MetricsSection
from medtool.core.checkpoint import SUFFIX, find_checkpoint, read_header
from medtool.core.deployed import find_deployed, same_model
from medtool.core.errors import CheckpointError, LeakageError, UnknownNameError, UsageError
from medtool.core.names import counted
from medtool.core.records import SELECTION_OPTIMISTIC, Case, Prediction
from medtool.data.cohort import shared_patients
from medtool.data.patient_hashes import seen_patients
from medtool.data.predictions import ELEMENTS_FILE, read_predictions, read_table
from medtool.data.run_folder import RunFolder, fold_folders
from medtool.verbs.infer_model import answering_hashes

if TYPE_CHECKING:
    from medtool.core.task import Task

# The part of a run that is evaluated: the most honest one that was predicted.
PARTS_BY_HONESTY = ("test", "selection")
SEEN_OPTIMISTIC = "includes {n} patients seen in training, optimistic"
# Ids that a refusal shows before it counts the rest.
IDS_SHOWN = 8
PSEUDONYMS = (
    "Whether patients were seen in training is not known: these predictions hold pseudonyms in"
    " place of their ids."
)
NOT_CHECKED = (
    "Whether patients were seen in training was not checked: no checkpoint was named beside these"
    " predictions (--checkpoint)."
)


def facts_of(case: Case) -> dict[str, Any]:
    """What is known of a case besides its label."""
    hidden = ("synthetic",)
    return {k: v for k, v in {**case.covariates, **case.facts}.items() if k not in hidden}


def require_facts(facts: Iterable[Mapping[str, Any]], asked: Sequence[str]) -> set[str]:
    """The names of facts that some case has. Raises UsageError for one that none has."""
    known = {name for fact in facts for name, value in fact.items() if value not in (None, "")}
    for name in asked:
        if name not in known:
            raise UsageError(
                f"There is no fact '{name}' to make subgroups by.",
                wanted="one of: " + ", ".join(sorted(known)) if known else "facts of the cases",
            )
    return known


@dataclass(frozen=True)
class Row:
    """One answered case."""

    case: Case
    probability: float
    threshold: float | None
    elements: tuple[Mapping[str, Any], ...] = ()
    scalars: Mapping[str, str] = field(default_factory=dict)
    fold: str = ""


@dataclass(frozen=True)
class Subject:
    """One model's answers. ``cases`` are all that it met, with what is known of them.

    ``header`` is the document of the checkpoint, where one is named; ``folders`` hold pictures
    and slices. Where it is ``pseudonymised``, its patients are not those that training knew.
    """

    name: str
    rows: tuple[Row, ...]
    cases: tuple[Case, ...]
    silent: Mapping[str, str]
    folders: tuple[Path, ...]
    optimistic: str = ""
    header: Mapping[str, Any] | None = None
    task_name: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    selection: tuple[Row, ...] = ()
    pseudonymised: bool = False
    # Ids that are no patient's own, as the answers say, and why.
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def known_task_name(self) -> str:
        """The name of the task that answered; "" where it is not known."""
        return self.task_name if self.header is None else str(self.header["task"])

    def _stated(self) -> Mapping[str, Any]:
        """The preset that answered, as far as it is known."""
        return self.preset if self.header is None else self.header["preset"]

    def data(self) -> DataSection | None:
        """How its preset says that labels are read; None where it says nothing of that.

        Of a task that is not installed, what all tasks share. Raises PresetError as ``task`` does.
        """
        stated = self._stated().get("data")
        if not stated:
            return None
        try:
            return self.task().settings.data
        except UnknownNameError:
            shared = {key: stated[key] for key in DataSection.label_keys if key in stated}
            return DataSection.model_validate(shared)

    def metrics(self) -> MetricsSection:
        """How its preset says that answers are measured; the defaults where no preset is known.

        Of a task that is not installed, what all tasks share. Raises PresetError as ``task`` does.
        """
        preset = self._stated()
        if not preset:
            return MetricsSection()
        try:
            return self.task().settings.metrics
        except UnknownNameError:
            stated = preset.get("metrics", {})
            shared = {key: stated[key] for key in MetricsSection.model_fields if key in stated}
            return MetricsSection.model_validate(shared)

    def task(self) -> Task:
        """The task that made the answers. Raises UsageError where it is not known."""
        from medtool.config import task_from_document

        if self.header is not None:
            return task_from_document(str(self.header["task"]), self.header["preset"])
        if self.task_name:
            return task_from_document(self.task_name, self.preset)
        raise UsageError(
            "It is not known which task made these predictions.",
            where=self.name,
            how="name the checkpoint with --checkpoint.",
        )


def is_run(path: Path) -> bool:
    """Whether ``path`` is the folder of a training run (or of its folds)."""
    return (path / "preset.toml").is_file() or bool(fold_folders(path)) if path.is_dir() else False


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` looks like a checkpoint file, or an optimised model."""
    return path.suffix == SUFFIX or find_deployed(path) is not None


def run_subject(path: Path) -> Subject:
    """The held-out answers of a run, with the labels and facts of its cases.csv.

    Raises UsageError where a fold has none, InputError where a file of the run is damaged.
    """
    folds = fold_folders(path)
    if not folds:
        return _run_part(RunFolder(path))
    parts = [_of_fold(_run_part(run), run.path.name) for run in folds]
    first = parts[0]
    if any(part.optimistic for part in parts):
        raise UsageError(
            "A fold of this run has no predictions of its held-out part.",
            where=str(path),
            how="finish the training of every fold first.",
        )
    return replace(
        first,
        name=str(path),
        rows=tuple(row for part in parts for row in part.rows),
        cases=tuple(case for part in parts for case in part.cases),
        silent={case: code for part in parts for case, code in part.silent.items()},
        folders=tuple(folder for part in parts for folder in part.folders),
        notes=(f"Out-of-fold predictions of {len(folds)} folds, each at its own threshold.",),
        selection=tuple(row for part in parts for row in part.selection),
    )


def _of_fold(subject: Subject, fold: str) -> Subject:
    """``subject`` with its rows marked as those of one fold."""
    rows, selection = (
        tuple(replace(row, fold=fold) for row in some) for some in (subject.rows, subject.selection)
    )
    return replace(subject, rows=rows, selection=selection)


def _run_part(run: RunFolder) -> Subject:
    for part in PARTS_BY_HONESTY:
        folder = run.predictions_folder / part
        if (folder / "predictions.csv").is_file():
            break
    else:
        raise UsageError(
            "This run holds no predictions yet.",
            where=str(run.predictions_folder),
            how="let 'medtool train' finish, or evaluate its checkpoint with --data.",
        )
    known = {row["case"]: _case_of_run(row) for row in run.read_cases()}
    subject = replace(
        predictions_subject(folder, known),
        name=str(run.path),
        optimistic=SELECTION_OPTIMISTIC if part == "selection" else "",
        # The split of the run keeps its parts apart: that is the check.
        notes=(),
    )
    chosen = run.predictions_folder / "selection"
    if part == "test" and (chosen / "predictions.csv").is_file():
        subject = replace(subject, selection=predictions_subject(chosen, known).rows)
    return _with_threshold(subject, _selected_threshold(run))


def _asked_of_run(run: RunFolder) -> tuple[str, Mapping[str, Any]]:
    """The task and the preset of a run."""
    import tomllib

    document = run.read_run() if run.run_file.is_file() else {}
    preset = tomllib.loads(run.preset_file.read_text(encoding="utf-8"))
    return str(document.get("task", "")), preset


def _made_by(record: Mapping[str, Any], folder: Path) -> tuple[str, Mapping[str, Any]]:
    """The task and the preset of predictions: of the run that keeps them, else of their record."""
    above = folder.absolute().parent
    run = RunFolder(above.parent)
    kept = run.preset_file.is_file() and run.run_file.is_file()
    if kept and above == run.predictions_folder:
        return _asked_of_run(run)
    checkpoint = record.get("checkpoint") or {}
    return str(record.get("task", "")), checkpoint.get("preset") or {}


def _selected_threshold(run: RunFolder) -> float | None:
    rows = run.read_checkpoints() if run.checkpoints_file.is_file() else []
    best = next((row for row in rows if row.get("kind") == "best"), {})
    value = best.get("threshold")
    return float(value) if isinstance(value, (int, float)) else None


def _case_of_run(row: Mapping[str, str]) -> Case:
    names = ("case", "patient", "study_uid", "accession", "study_date", "folder", "part", "label")
    facts = {key: _plain(value) for key, value in row.items() if key not in names}
    label = row.get("label", "")
    return Case(
        case_id=row["case"],
        patient_id=row["patient"],
        study_uid=row.get("study_uid", ""),
        inputs={},
        accession=row.get("accession", ""),
        study_date=row.get("study_date", ""),
        folder=row.get("folder", ""),
        label=float(label) if label else None,
        facts=facts,
    )


def _plain(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text or None


def predictions_subject(path: Path, known: Mapping[str, Case] | None = None) -> Subject:
    """A predictions folder or table; ``known`` says more of the cases than the table does."""
    table = read_predictions(path)
    folder = path if path.is_dir() else path.with_suffix("")
    record = predictions_record(path)
    checkpoint = record.get("checkpoint") or {}
    recorded = checkpoint.get("threshold")
    elements = _elements(folder)
    task_name, preset = _made_by(record, folder if folder.is_dir() else path.parent)
    rows, silent, cases = [], {}, []
    for line in table:
        case = (known or {}).get(line["case"]) or _bare_case(line)
        cases.append(case)
        if line["status"] != "ok":
            silent[case.case_id] = line.get("code") or line["status"]
            continue
        stated = line.get("threshold") or recorded
        rows.append(
            Row(
                case=case,
                probability=_probability(line, path),
                threshold=None if stated in (None, "") else float(stated),
                elements=elements.get(line["case"], ()),
                scalars=line,
            )
        )
    return Subject(
        name=str(path),
        rows=tuple(rows),
        cases=tuple(cases),
        silent=silent,
        folders=(folder,),
        task_name=task_name,
        preset=preset,
        notes=(NOT_CHECKED,),
        pseudonymised=bool(record.get("pseudonymised")),
        shared=_texts(record.get("patients_shared")),
    )


def _texts(said: object) -> dict[str, str]:
    return {str(key): str(why) for key, why in said.items()} if isinstance(said, dict) else {}


def _bare_case(line: Mapping[str, str]) -> Case:
    return Case(line["case"], line["patient"], line["study_uid"], inputs={})


def _probability(line: Mapping[str, str], path: Path) -> float:
    try:
        return float(line["probability"])
    except (KeyError, ValueError) as error:
        raise UsageError(
            "A case that is 'ok' has no probability.",
            where=f"{path}, case '{line['case']}'",
            met=repr(line.get("probability", "no such column")),
            wanted="a number in the column 'probability'",
        ) from error


def predictions_record(path: Path) -> Mapping[str, Any]:
    """The run.json of a folder or table of predictions; empty where there is none."""
    folder = path if path.is_dir() else path.with_suffix("")
    return _record(folder if folder.is_dir() else path.parent)


def _record(folder: Path) -> Mapping[str, Any]:
    file = folder / "run.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _elements(folder: Path) -> dict[str, tuple[Mapping[str, Any], ...]]:
    file = folder / ELEMENTS_FILE
    if not file.is_file():
        return {}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_table(file):
        used = row.get("used", "1") in ("1", "True", "true")
        found.setdefault(row["case"], []).append({**row, "used": used})
    return {case: tuple(rows) for case, rows in found.items()}


def with_checkpoint(subject: Subject, path: Path) -> Subject:
    """``subject`` with the checkpoint that made it: its threshold, task and training patients.

    Raises CheckpointError where the predictions say that another one made them.
    """
    file, _ = find_checkpoint(path)
    document = read_header(file).document
    for folder in subject.folders:
        record = _record(folder)
        stated = record.get("checkpoint") or {}
        # Of an optimised model another file of the folder may have answered, as its engine says.
        found = answering_hashes(file, str(record.get("engine", "")))
        sha256 = str(stated.get("sha256") or "")
        if sha256 and not same_model(stated, found):
            alike = sha256 == found["sha256"]
            raise CheckpointError(
                "This checkpoint did not make these predictions.",
                where=str(file),
                met="predictions of the same file with other weights beside it"
                if alike
                else f"predictions of a checkpoint whose SHA-256 begins {sha256[:12]}",
                how="name the checkpoint that made them, or predict again with 'medtool infer'.",
            )
    threshold = document.get("threshold")
    named = replace(
        subject,
        header=document,
        notes=tuple(note for note in subject.notes if note != NOT_CHECKED),
        optimistic=subject.optimistic,
    )
    return _with_threshold(named, float(threshold) if threshold is not None else None)


def _with_threshold(subject: Subject, threshold: float | None) -> Subject:
    """Rows that state no threshold of their own get this one."""
    if threshold is None:
        return subject
    rows = tuple(
        replace(r, threshold=threshold) if r.threshold is None else r for r in subject.rows
    )
    return replace(subject, rows=rows)


@dataclass(frozen=True)
class Gate:
    """What is known of patients that a model saw in training: whom to leave out, what to say."""

    left_out: frozenset[str] = frozenset()
    optimistic: str = ""
    note: str = ""


def training_gate(
    header: Mapping[str, Any] | None,
    name: str,
    patients: Sequence[str],
    seen: str,
    *,
    pseudonymised: bool = False,
) -> Gate:
    """The gate of ``patients``, one a case: refuse, leave out or report, as ``seen`` says.

    That none of them was seen cannot be said of ``pseudonymised`` ones. Raises LeakageError where
    patients that were seen are refused.
    """
    if header is None:
        return Gate()
    table = header.get("patients") or {}
    if not table.get("hashes"):
        unknown = "Whether patients were seen in training is not known: the checkpoint has no list."
        return Gate(note=unknown)
    known, count = seen_patients(table, patients), len(set(patients))
    if not known and pseudonymised:
        return Gate(note=PSEUDONYMS)
    if not known:
        return Gate(note=f"None of {counted(count, 'patient')} was seen in training.")
    if seen == "refuse":
        raise refused_patients(name, known, count)
    if seen == "leave-out":
        return Gate(left_out=frozenset(known), note=left_out_note(len(known)))
    return Gate(optimistic=SEEN_OPTIMISTIC.format(n=len(known)))


def refused_patients(name: str, seen: Collection[str], patients: int) -> LeakageError:
    """The refusal of patients that the model has seen."""
    names = sorted(seen)
    shown = ", ".join(names[:IDS_SHOWN]) + (", ..." if len(names) > IDS_SHOWN else "")
    return LeakageError(
        "Some of these patients were seen in training.",
        where=name,
        met=f"{len(names)} of {patients} patients: {shown}",
        wanted="patients that neither trained the model nor chose it",
        how="--seen leave-out scores the others; --seen report scores all, labelled as such.",
    )


def left_out_note(count: int) -> str:
    """What is said of patients that were left out."""
    return f"Left out: {counted(count, 'patient')} seen in training."


def pooled(subject: Subject) -> Subject:
    """One answer a patient, pooled as the task says; the label is positive when any study's is.

    Studies under an id that is no patient's own stay apart, which is noted. Raises UsageError where
    the task is not known, or cannot pool.
    """
    task = subject.task()
    shared = _shared(subject)
    rows = _pooled_rows(task, _apart(subject.rows, shared))
    return replace(
        subject,
        rows=rows,
        selection=_pooled_rows(task, _apart(subject.selection, shared)),
        cases=tuple(row.case for row in rows),
        notes=(*subject.notes, *_shared_notes(shared)),
    )


def _shared(subject: Subject) -> dict[str, str]:
    """Ids that are no patient's own, and why: as the answers say, and by all its cases."""
    cases = (*subject.cases, *(row.case for row in subject.selection))
    once = {case.case_id: case for case in cases}
    found = {**shared_patients([*once.values()], by_share=False), **subject.shared}
    # Studies without any id were never pooled, and have nothing to be named by.
    return {patient: why for patient, why in found.items() if patient}


def _shared_notes(shared: Mapping[str, str]) -> list[str]:
    told = [f"'{patient}': {why}" for patient, why in shared.items()]
    if not told:
        return []
    more = "; ..." if len(told) > IDS_SHOWN else ""
    shown = "; ".join(told[:IDS_SHOWN])
    return [f"Not pooled by patient, each study stands for itself: {shown}{more}."]


def _apart(rows: Sequence[Row], shared: Mapping[str, str]) -> list[Row]:
    """``rows``; those under an id that is no patient's own as studies without any."""
    return [
        replace(row, case=replace(row.case, patient_id=""))
        if row.case.patient_id in shared
        else row
        for row in rows
    ]


def _pooled_rows(task: Task, rows: Sequence[Row]) -> tuple[Row, ...]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        # A patient is in the selection parts of several folds: one answer by each model. A study
        # without a patient is its own: pooling strangers would be a guess.
        patient = row.case.patient_id or f"\0{row.case.case_id}"
        groups.setdefault((row.fold, patient), []).append(row)
    return tuple(_pooled_row(task, group) for group in groups.values())


def _pooled_row(task: Task, group: Sequence[Row]) -> Row:
    if len(group) == 1:
        return group[0]
    if not all(row.elements for row in group):
        raise UsageError(
            "Studies of one patient cannot be pooled without their slices.",
            where=f"patient '{group[0].case.patient_id}'",
            wanted=f"{ELEMENTS_FILE} beside the predictions",
        )
    answer = task.pool(
        [
            Prediction(
                row.case.case_id,
                row.case.patient_id,
                {**row.scalars, "probability": row.probability, "threshold": row.threshold},
                elements=row.elements,
            )
            for row in group
        ]
    )
    labels = [row.case.label for row in group if row.case.label is not None]
    case = replace(
        group[0].case,
        case_id=group[0].case.patient_id,
        label=max(labels) if labels else None,
    )
    return Row(case, float(answer.scalars["probability"]), group[0].threshold, fold=group[0].fold)
