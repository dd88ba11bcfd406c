"""What check and preprocess begin with: a task under its preset, and what it shall look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtool.config import Resolved, resolve
from medtool.core.errors import InputError
from medtool.core.files import nearest_path
from medtool.core.progress import Reporter
from medtool.core.records import Source
from medtool.core.registry import load_task
from medtool.core.task import Task
from medtool.data.cohort import LabelledCohort
from medtool.data.series_table import source_of


@dataclass(frozen=True)
class DataOptions:
    """Which task, under which preset, on which data; None means: as the preset says."""

    task: str
    data: Path | None = None
    labels: Path | None = None
    series: Path | None = None
    preset: str | None = None
    assignments: Sequence[str] = ()


def resolved_task(options: DataOptions) -> tuple[Task, Resolved]:
    """The task with its settings. Raises UnknownNameError, PresetError, MachineError."""
    task_class = load_task(options.task)
    resolved = resolve(task_class, options.preset, assignments=options.assignments)
    return task_class(resolved.settings), resolved


def data_source(options: DataOptions, task: Task) -> Source:
    """Where to look. Raises InputError when there is no such folder, LabelsError."""
    folder = options.data if options.data is not None else task.settings.data.folder
    require_data(folder, task)
    return source_of([folder], labels=options.labels, series=options.series)


def require_data(folder: Path, task: Task) -> None:
    """Raises InputError when there is nothing of this name."""
    if not folder.exists():
        raise InputError(
            "There is no such data.",
            where=str(folder),
            wanted=task.layout or "a folder with scans",
            nearest=nearest_path(folder),
            how="name it with --data, or in medtool.toml ([data] folder).",
        )


def folder_of_folds(task: Task, folder: Path) -> Path | None:
    """Where a ``splits_final.json`` may lie beside the data; only data of masks have one."""
    return folder if task.reference != "label" and folder.is_dir() else None


def no_usable_study(found: LabelledCohort, folder: Path, task: Task) -> InputError | None:
    """The refusal of a folder in which no study can be used; None where one can."""
    if found.cases:
        return None
    refused = Counter(study.code for study in found.cohort.refused)
    skipped = Counter(str(entry["code"]) for entry in found.cohort.intake.get("skipped", ()))
    met = "no files"
    if refused:
        met = f"{refused.total()} studies that cannot be used ({_counts(refused)})"
    elif skipped:
        met = f"{skipped.total()} files, none of them a scan ({_counts(skipped)})"
    return InputError(
        "There is no study here that can be used.",
        where=str(folder.resolve()),
        met=met,
        wanted=task.layout or "a folder with scans",
        how=f"'medtool check {task.name} {folder}' says of everything there what it is."
        if refused or skipped
        else "name the folder with --data, or in medtool.toml ([data] folder).",
    )


def _counts(codes: Counter[str]) -> str:
    return ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))


def warn_of_timeout(workers: int | None, case_timeout_s: float | None, reporter: Reporter) -> None:
    """A process cannot give itself up: say that a timeout is not kept without workers."""
    if workers == 0 and case_timeout_s is not None:
        reporter.warn("--case-timeout needs a worker process: with --workers 0 it is not kept.")
