"""On whom a model is calibrated, on whom ways are chosen, and on whom it is judged.

Of a checkpoint in its run these are the run's own parts, proved by its fingerprint. Elsewhere its
list of patients tells those that it learned from, who may calibrate, from all others, who judge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.ensemble import MEMBERS
from medtool.core.errors import CheckpointError, InputError, UsageError
from medtool.core.progress import Reporter
from medtool.core.randomness import key64
from medtool.core.records import SELECTION_OPTIMISTIC, Case
from medtool.data.cache import Cache
from medtool.data.cohort import build_cohort
from medtool.data.patient_hashes import seen_patients
from medtool.data.preparation import prepare_cases
from medtool.data.run_folder import RunFolder
from medtool.data.series_table import source_of
from medtool.data.splits import Split
from medtool.verbs.optimize_folds import nobody_judges_folds, parts_of_folds, tested_by_all
from medtool.verbs.optimize_leaks import (
    SliceHashes,
    require_other_names,
    require_other_pixels,
)
from medtool.verbs.task_data import require_data
from medtool.verbs.train_data import parts_of_run

if TYPE_CHECKING:
    from medtool.core.task import Task

# Of known patients without a run's parts: one in so many chooses between ways.
ONE_CHOOSES_OF = 4
# What cases can be needed for, besides choosing and judging.
CALIBRATION, TRAINING = "calibration", "training"


@dataclass(frozen=True)
class OptimizeData:
    """Cases by what they are for; all of them are prepared in ``cache``.

    A network that lost channels learns again from ``training``: patients that the model knows, with
    references, whoever calibrates; empty where nothing has to learn.
    ``judged`` names the part that ``judging`` are; ``optimistic`` says why their numbers are.
    """

    calibration: tuple[Case, ...]
    choosing: tuple[Case, ...]
    judging: tuple[Case, ...]
    judged: str
    optimistic: str
    cache: Cache
    training: tuple[Case, ...] = ()
    # The parts of the run, of several folds those of each.
    splits: tuple[Split, ...] = ()

    @property
    def cases(self) -> tuple[Case, ...]:
        """All of them, each once."""
        every = (*self.calibration, *self.training, *self.choosing, *self.judging)
        # By object: of two hospitals two cases may have one id.
        return tuple({id(case): case for case in every}.values())


def optimize_data(
    task: Task,
    document: Mapping[str, Any],
    runs: Sequence[RunFolder],
    *,
    data: Path | None,
    labels: Path | None,
    calibration: Path | None,
    needs: Collection[str],
    cache: Path,
    workers: int | None,
    reporter: Reporter,
) -> OptimizeData:
    """The groups, prepared; ``needs`` says whether there is CALIBRATION or TRAINING to be done.

    ``runs`` are the run of the checkpoint, all folds of one, or none.

    Raises InputError (nobody to calibrate or to judge on), UsageError (it is not known where the
    data lie), CheckpointError (they are not those of the run), GateError (patients who calibrate,
    teach or choose would judge), and as the reading of data does.
    """
    store = Cache(cache, task)
    if len(runs) > 1 and data is None and not tested_by_all(runs):
        raise nobody_judges_folds(runs)
    if len(runs) > 1 and tested_by_all(runs):
        found = _of_folds(task, runs, data, labels, store, reporter)
    elif len(runs) == 1:
        found = _of_run(task, runs[0], data, labels, store, reporter)
    else:
        found = _of_data(task, document, data, labels, store, reporter, own=calibration is None)
    if TRAINING not in needs:
        found = replace(found, training=())
    found = _prepared(task, found, workers, reporter)
    hashes = SliceHashes(store)
    if found.splits:
        _require_fingerprints(document, found, runs, hashes)
    if calibration is not None:
        asked = _cases(task, calibration, None, reporter)
        require_other_names(asked, found.judging)
        # By themselves: one of them may have the name of a case that chooses or teaches.
        ready = _ready(task, asked, store, workers, reporter)
        asked = tuple(case for case in asked if case.case_id in ready)
        found = replace(found, calibration=asked)
    require_other_pixels(found, hashes, calibration=calibration, reporter=reporter)
    if CALIBRATION in needs and not found.calibration:
        raise _nobody_calibrates(found)
    if not found.judging:
        raise _nobody_judges(data)
    return found


def _of_run(
    task: Task,
    run: RunFolder,
    data: Path | None,
    labels: Path | None,
    cache: Cache,
    reporter: Reporter,
) -> OptimizeData:
    found = _own_cases(task, run, data, labels, reporter)
    cases, split = parts_of_run(found, run)
    parts = {part: split.cases_of(cases, part) for part in ("train", "selection", "test")}
    judged = "test" if parts["test"] else "selection"
    return OptimizeData(
        calibration=parts["train"],
        choosing=parts["selection"],
        judging=parts[judged],
        judged=f"{judged} part",
        optimistic="" if judged == "test" else SELECTION_OPTIMISTIC,
        cache=cache,
        training=parts["train"],
        splits=(split,),
    )


def _of_folds(
    task: Task,
    folds: Sequence[RunFolder],
    data: Path | None,
    labels: Path | None,
    cache: Cache,
    reporter: Reporter,
) -> OptimizeData:
    """Those that every fold tests judge; of all others some models know each: they calibrate and
    choose.
    """
    parts = parts_of_folds(_own_cases(task, folds[0], data, labels, reporter), folds)
    known = [case for case in parts.cases if case.case_id not in parts.tested]
    return OptimizeData(
        calibration=tuple(case for case in known if not _chooses(case)),
        choosing=tuple(case for case in known if _chooses(case)),
        judging=tuple(case for case in parts.cases if case.case_id in parts.tested),
        judged="test part of every fold",
        optimistic="",
        cache=cache,
        splits=parts.splits,
    )


def _own_cases(
    task: Task, run: RunFolder, data: Path | None, labels: Path | None, reporter: Reporter
) -> list[Case]:
    """Cases with references of the data that a run began with; ``data``: where they lie now."""
    began = run.read_run().get("data", {})
    folder = data or Path(str(began.get("folder", "")))
    table = labels or _labels_of_run(began, data)
    return [case for case in _cases(task, folder, table, reporter) if task.has_reference(case)]


def _labels_of_run(began: Mapping[str, Any], data: Path | None) -> Path | None:
    """The table that the run was begun with; where its data moved to ``data``, it moved along."""
    if not began.get("labels"):
        return None
    table, folder = Path(str(began["labels"])), Path(str(began.get("folder", "")))
    if data is not None and table.is_relative_to(folder):
        return data / table.relative_to(folder)
    return table


def _of_data(
    task: Task,
    document: Mapping[str, Any],
    data: Path | None,
    labels: Path | None,
    cache: Cache,
    reporter: Reporter,
    *,
    own: bool,
) -> OptimizeData:
    """Known patients choose, teach and (where ``own``) calibrate, the others judge."""
    if data is None:
        raise UsageError(
            "It is not known on which patients the model is to be calibrated and judged.",
            wanted="a checkpoint in the folder of its run, or scans with references",
            how="name their folder with --data.",
        )
    cases = _cases(task, data, labels, reporter)
    seen = seen_patients(document.get("patients") or {}, {case.patient_id for case in cases})
    known = [case for case in cases if case.patient_id in seen]
    choosing = [case for case in known if _chooses(case) and task.has_reference(case)]
    learning = [case for case in known if not _chooses(case)]
    others = [case for case in cases if case.patient_id not in seen and task.has_reference(case)]
    return OptimizeData(
        calibration=tuple(learning) if own else (),
        choosing=tuple(choosing),
        judging=tuple(others),
        judged="patients that the model never met",
        optimistic="",
        cache=cache,
        training=tuple(case for case in learning if task.has_reference(case)),
    )


def _chooses(case: Case) -> bool:
    """Whether a known patient chooses between ways, the same at every time."""
    return key64("optimize choice", case.patient_id) % ONE_CHOOSES_OF == 0


def _cases(task: Task, folder: Path, labels: Path | None, reporter: Reporter) -> tuple[Case, ...]:
    require_data(folder, task)
    return build_cohort(task, source_of([folder], labels=labels), reporter=reporter).cases


def _prepared(
    task: Task, found: OptimizeData, workers: int | None, reporter: Reporter
) -> OptimizeData:
    """The same without the cases that cannot be prepared."""
    known = _ready(task, found.cases, found.cache, workers, reporter)

    def ready(cases: Sequence[Case]) -> tuple[Case, ...]:
        return tuple(case for case in cases if case.case_id in known)

    return replace(
        found,
        calibration=ready(found.calibration),
        training=ready(found.training),
        choosing=ready(found.choosing),
        judging=ready(found.judging),
    )


def _ready(
    task: Task, cases: Sequence[Case], cache: Cache, workers: int | None, reporter: Reporter
) -> Collection[str]:
    """Ids of the cases, which have no id in common, that lie prepared in ``cache`` now."""
    report = prepare_cases(
        task,
        cases,
        cache,
        workers=workers,
        case_timeout_s=task.settings.infer.case_timeout_s,
        reporter=reporter,
    )
    if report.failures:
        reporter.warn(f"{len(report.failures)} cases could not be prepared: left out.")
    return report.paths.keys()


def _require_fingerprints(
    document: Mapping[str, Any],
    found: OptimizeData,
    runs: Sequence[RunFolder],
    pixels: SliceHashes,
) -> None:
    """Raises CheckpointError where the data are not those that the run, or a fold, began with."""
    from medtool.train.document import fingerprint

    hashes = {
        case.case_id: list(pixels.of(case))
        for case in found.cases
        if any(case.case_id in split.parts for split in found.splits)
    }
    members = document.get(MEMBERS)
    documents = [one["document"] for one in members] if members else [document]
    for own, split, run in zip(documents, found.splits, runs, strict=True):
        wanted = str((own.get("fingerprint") or {}).get("sha256", ""))
        cases = [case for case in found.cases if case.case_id in split.parts]
        parts = {case.case_id: split.parts[case.case_id] for case in cases}
        if wanted and fingerprint(cases, parts, hashes)["sha256"] != wanted:
            raise _other_data(run, wanted)


def _other_data(run: RunFolder, wanted: str) -> CheckpointError:
    return CheckpointError(
        "These are not the data that the model learned from.",
        where=str(run.cases_file),
        met="another fingerprint: ids, labels, parts or pixels differ",
        wanted=f"fingerprint {wanted[:16]}...",
        how="name the folder of the run's own data with --data; a checkpoint outside its run "
        "takes any.",
    )


def _nobody_calibrates(found: OptimizeData) -> InputError:
    return InputError(
        "There is nothing to calibrate on.",
        met=f"{len(found.cases)} cases, none of a patient that the model learned from",
        wanted="at least one case of the training part that can be prepared",
        how="name the training data with --data, or other patients' scans with --calibration.",
    )


def _nobody_judges(data: Path | None) -> InputError:
    return InputError(
        "There is nobody to judge the smaller model on.",
        where=str(data) if data else "",
        met="no case with a reference of a patient that the model never met",
        wanted="scans with references of other patients, or a run with its parts",
        how="name the run's folder as CHECKPOINT, or a folder that holds other patients too.",
    )
