"""Settling, before anything is prepared, what a preset leaves to the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.records import Case

if TYPE_CHECKING:
    from medtool.core.progress import Reporter
    from medtool.core.task import Task

# Below the cache of a task: what was measured of each case for the plan.
FINGERPRINTS_FOLDER = "fingerprints"


def planned_task(
    task: Task,
    cases: Sequence[Case],
    root: Path,
    *,
    intake: Mapping[str, Any],
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Task:
    """The task as planned from ``cases`` of the cohort with this ``intake``.

    ``root`` is the folder of all caches.
    """
    folder = root / task.name / FINGERPRINTS_FOLDER
    return task.planned(cases, intake=intake, folder=folder, workers=workers, reporter=reporter)
