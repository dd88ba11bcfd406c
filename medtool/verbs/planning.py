"""Settling, before anything is prepared, what a preset leaves to the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import Resolved, write_preset
from medtool.core.files import replace_text
from medtool.core.nested import flat_values
from medtool.core.records import Case

if TYPE_CHECKING:
    from medtool.core.progress import Reporter
    from medtool.core.task import Task

# Below the cache of a task: what was measured of each case for the plan.
FINGERPRINTS_FOLDER = "fingerprints"
PLANNED_ORIGIN = "planned from the data"
# Below the cache of a task: each plan with its reasons, and the preset that holds it.
PLANS_FOLDER = "plans"
PLAN_FILE, PLANNED_PRESET_FILE = "plan.json", "preset.toml"


@dataclass(frozen=True)
class KeptPlan:
    """A plan as files: what was decided and why, and a preset to train with."""

    document: Mapping[str, Any]
    file: Path
    preset: Path

    @property
    def decisions(self) -> tuple[tuple[str, str, str], ...]:
        """What was decided, the value, and why: of the data, then of the chosen configuration."""
        chosen = self.document.get("chosen", {})
        listed = [*self.document.get("decisions", ()), *chosen.get("decisions", ())]
        return tuple((str(one["what"]), str(one["value"]), str(one["why"])) for one in listed)


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


def keep_plan(resolved: Resolved, task: Task, root: Path) -> KeptPlan | None:
    """Write the plan of ``task`` below ``root``, the folder of all caches; None where it has none.

    ``resolved`` has the planned settings. The same plan goes to the same place.
    """
    plan = dict(task.plan_document())
    if not plan:
        return None
    preparation = task.settings.as_dict()["data"]["preparation"]
    chosen = plan.get("configurations", {}).get(preparation.get("configuration"), {})
    document = {"task": task.name, **plan, "chosen": chosen}
    text = json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n"
    whole = text + json.dumps(task.settings.as_dict(), sort_keys=True, default=str)
    key = hashlib.blake2b(whole.encode(), digest_size=6).hexdigest()
    folder = root / task.name / PLANS_FOLDER / key
    kept = KeptPlan(document, folder / PLAN_FILE, folder / PLANNED_PRESET_FILE)
    write_preset(resolved.settings, kept.preset, origins=resolved.origins)
    replace_text(kept.file, text)
    return kept
