"""``medtool preprocess``: prepare every case into the cache, or show the stages of a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtool.core.errors import ExitStatus, InputError, OutputExistsError, UsageError
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, RefusedStudy
from medtool.core.task import Task
from medtool.data.cache import Cache
from medtool.data.cohort import LabelledCohort, build_cohort
from medtool.data.preparation import CaseFailure, PreparationReport, prepare_cases
from medtool.data.splits import make_split
from medtool.verbs.options import timeout_of
from medtool.verbs.planning import keep_plan, planned_task, with_planned
from medtool.verbs.task_data import (
    DataOptions,
    data_source,
    folder_of_folds,
    no_usable_study,
    resolved_task,
    warn_of_timeout,
)


@dataclass(frozen=True)
class PreprocessResult:
    """What is in the cache now; ``pictures`` instead, when only a preview was asked for."""

    cache: Path
    report: PreparationReport | None
    refused: tuple[RefusedStudy, ...] = ()
    pictures: tuple[Path, ...] = ()

    @property
    def status(self) -> ExitStatus:
        """0 when every study is ready, 1 when some are, 3 when none is."""
        if self.report is None:
            return ExitStatus.DONE if self.pictures else ExitStatus.NO_INPUT
        if not self.report.paths:
            return ExitStatus.NO_INPUT
        whole = not self.report.failures and not self.refused
        return ExitStatus.DONE if whole else ExitStatus.SOME_CASES_FAILED

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        refused = [
            CaseFailure(one.case_id, "refused", one.code, one.message).as_dict()
            for one in self.refused
        ]
        if self.report is None:
            return {"pictures": [str(path) for path in self.pictures], "failures": refused}
        report = self.report
        return {
            "cache": str(self.cache),
            "prepared": {case: str(path) for case, path in report.paths.items()},
            "reused": list(report.reused),
            "repaired": list(report.repaired),
            "rebuilt": list(report.rebuilt),
            "failures": [*refused, *(failure.as_dict() for failure in report.failures)],
            "seconds": report.seconds,
            "workers": report.workers,
            "stored_bytes": report.stored_bytes,
            "peak_worker_bytes": report.peak_worker_bytes,
            "estimate": None if report.estimate is None else asdict(report.estimate),
        }


def preprocess(
    options: DataOptions,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    case_timeout_s: float | None = None,
    preview: Path | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> PreprocessResult:
    """Prepare what is not in the cache yet; one case that fails is told and stops nothing.

    With ``preview`` nothing is prepared: pictures of every stage, of one case a class, are written
    there. Raises UsageError and its kinds, InputError (no case), MachineError.
    """
    reporter = reporter or Silent()
    task, resolved = resolved_task(options)
    source = data_source(options, task)
    found = build_cohort(task, source, reporter=reporter)
    refusal = no_usable_study(found, source.paths[0], task)
    if refusal is not None:
        raise refusal
    root = cache or resolved.paths.cache
    task = _planned(task, found, source.paths[0], root, workers, reporter)
    keep_plan(with_planned(resolved, task), task, root)
    place = Cache(root, task)
    if preview is not None:
        pictures = _preview(task, found.cases, preview, force=force)
        return PreprocessResult(place.folder, None, found.cohort.refused, pictures)
    for study in found.cohort.refused:
        reporter.warn(f"{study.case_id}: refused, {study.code}: {study.message}")
    warn_of_timeout(workers, case_timeout_s, reporter)
    report = prepare_cases(
        task,
        found.cases,
        place,
        workers=workers,
        case_timeout_s=timeout_of(case_timeout_s, task),
        reporter=reporter,
    )
    return PreprocessResult(place.folder, report, found.cohort.refused)


def _planned(
    task: Task,
    found: LabelledCohort,
    folder: Path,
    root: Path,
    workers: int | None,
    reporter: Reporter,
) -> Task:
    """The task as ``train`` would plan it: from the cases that it would not hold out."""
    known = [case for case in found.cases if task.has_reference(case)]
    try:
        train, data, beside = task.settings.train, task.settings.data, folder_of_folds(task, folder)
        split = make_split(known, train, data, fold=None, beside=beside)
        learners = [case for case in known if split.parts.get(case.case_id, "test") != "test"]
    except UsageError:
        # Too few to train on, or patients that cannot be told apart: nothing is held out then.
        learners = known
    return planned_task(
        task, learners, root, intake=found.cohort.intake, workers=workers, reporter=reporter
    )


def _preview(task: Task, cases: Sequence[Case], folder: Path, *, force: bool) -> tuple[Path, ...]:
    """Pictures of the first case of each class (of the first case without labels)."""
    draw: Callable[[Case, Path], Sequence[Path]] | None = getattr(task, "preview", None)
    if draw is None:
        raise UsageError(f"The task '{task.name}' has no previews.", how="leave --preview out.")
    if folder.exists() and any(folder.iterdir()) and not force:
        raise OutputExistsError(
            "The folder for previews is not empty.", where=str(folder), how="--force writes there."
        )
    if not cases:
        raise InputError("There is no case to preview.")
    folder.mkdir(parents=True, exist_ok=True)
    first: dict[float | None, Case] = {}
    for case in cases:
        first.setdefault(case.label, case)
    labelled = {label: case for label, case in first.items() if label is not None}
    pictures: list[Path] = []
    for case in (labelled or first).values():
        pictures += draw(case, folder)
    return tuple(pictures)
