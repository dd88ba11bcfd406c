"""Settling, before anything is prepared, what a preset leaves to the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import Resolved
from medtool.core.nested import flat_values
from medtool.core.records import Case

if TYPE_CHECKING:
    from medtool.core.progress import Reporter
    from medtool.core.task import Task

# Below the cache of a task: what was measured of each case for the plan.
FINGERPRINTS_FOLDER = "fingerprints"
PLANNED_ORIGIN = "planned from the data"


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


def with_planned(resolved: Resolved, task: Task) -> Resolved:
    """The resolved preset with the settings of ``task``; what was planned says so."""
    before = flat_values(resolved.settings.as_dict())
    after = flat_values(task.settings.as_dict())
    changed = {key: PLANNED_ORIGIN for key, value in after.items() if before.get(key) != value}
    return replace(resolved, settings=task.settings, origins={**resolved.origins, **changed})
