"""What check and preprocess begin with: a task under its preset, and what it shall look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtool.config import Resolved, resolve
from medtool.core.errors import InputError
from medtool.core.progress import Reporter
from medtool.core.records import Source
from medtool.core.registry import load_task
from medtool.core.task import Task
from medtool.data.series_table import read_series_table


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
    if not folder.exists():
        raise InputError(
            "There is no such data.",
            where=str(folder),
            wanted="a folder with scans",
            how="name it with --data, or in medtool.toml ([data] folder).",
        )
    overrides = {} if options.series is None else read_series_table(options.series)
    return Source(
        paths=(folder,),
        labels=options.labels,
        series_overrides=overrides,
        overrides_from="" if options.series is None else str(options.series),
    )


def warn_of_timeout(workers: int | None, case_timeout_s: float | None, reporter: Reporter) -> None:
    """A process cannot give itself up: say that a timeout is not kept without workers."""
    if workers == 0 and case_timeout_s is not None:
        reporter.warn("--case-timeout needs a worker process: with --workers 0 it is not kept.")
