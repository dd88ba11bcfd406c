"""What a run that goes on takes from its begin: where its data are, its cases, its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import Resolved, settings_from_document
from medtool.config.document import read_document
from medtool.config.layers import SCHEMA_DEFAULT
from medtool.config.places import known_preset
from medtool.config.schema import anchored_values
from medtool.config.sections import TaskSettings
from medtool.core.checkpoint import read_header
from medtool.core.errors import InputError, UsageError
from medtool.core.nested import flat_values
from medtool.data.preparation import CaseFailure
from medtool.data.run_folder import RunFolder
from medtool.verbs.train_options import TrainOptions

if TYPE_CHECKING:
    from medtool.core.task import Task

# Of cases in a message.
MOST_NAMED = 5


def same_data(options: TrainOptions, run: RunFolder) -> TrainOptions:
    """A run that goes on finds its data where it found them, unless told otherwise."""
    begun = run.read_run().get("data", {})
    return replace(
        options,
        data=options.data or (Path(begun["folder"]) if begun.get("folder") else None),
        labels=options.labels or (Path(begun["labels"]) if begun.get("labels") else None),
    )


def kept_of_begin(run: RunFolder) -> dict[str, Any]:
    """What the run.json of a run that goes on keeps of its begin; {} where it begins."""
    earlier = run.read_run() if run.exists() else {}
    kept = ("started_utc", "estimate", "split", "audit", "planned_keys", "failures")
    return {key: earlier[key] for key in kept if key in earlier}


# --- cases ---------------------------------------------------------------------------------------
def failures_of_begin(run: RunFolder) -> tuple[CaseFailure, ...]:
    """The cases that could not be prepared when the run began: it goes on without them.

    A lost worker or too little time may have been the reason, so that they could be prepared now.
    But the order of the training cases, and who chooses the checkpoint, hang on who is there.
    """
    return tuple(
        CaseFailure(row["case"], row["status"], row["code"], row["message"])
        for row in run.read_run().get("failures", ())
    )


def require_same_cases(run: RunFolder, failures: Sequence[CaseFailure]) -> None:
    """Raises InputError where cases that the run has had so far cannot be prepared any more."""
    if not failures:
        return
    named = ", ".join(f"{one.case_id} ({one.code})" for one in failures[:MOST_NAMED])
    raise InputError(
        "Cases that this run began with cannot be prepared any more.",
        where=str(run.path),
        met=f"{len(failures)}: {named}",
        wanted="the same cases from its begin to its end",
        how="where time or memory ran out, go on with a higher --case-timeout or fewer --workers; "
        "mend what changed; or begin a new run.",
    )


# --- settings ------------------------------------------------------------------------------------
def settings_of_run(
    task_class: type[Task], resolved: Resolved, resume: Path, options: TrainOptions
) -> Resolved:
    """The settings that the run began with; refuses others that were asked for."""
    header = read_header(resume)
    document = header.document
    if document["task"] != task_class.name:
        raise UsageError(
            "This run is of another task.",
            where=str(resume),
            met=str(document["task"]),
            wanted=task_class.name,
        )
    begun = settings_from_document(task_class, known_preset(header, task_class.settings_type))
    if _asked(options):
        _require_same(resolved, begun, resume, RunFolder(resume.parent.parent))
    name = str(document.get("preset_name", ""))
    return replace(resolved, settings=begun, preset_name=name)


def settings_of_begin(
    task_class: type[Task], resolved: Resolved, run: RunFolder, options: TrainOptions
) -> Resolved:
    """As ``settings_of_run``, for a run that was killed before its first checkpoint.

    Its parts were dealt by its settings, so others are refused here as well. The same ones are
    given as they were asked for: what they leave to the data is planned once more, with its
    reasons.
    """
    if not run.exists() or not run.preset_file.is_file():
        return resolved
    values = read_document(run.preset_file, str(run.preset_file)).values
    model = task_class.settings_type
    begun = settings_from_document(
        task_class, anchored_values(model, values, run.path.absolute()), label=str(run.preset_file)
    )
    if _asked(options):
        _require_same(resolved, begun, run.preset_file, run)
    elif _changed(resolved, begun, run):
        return replace(resolved, settings=begun, preset_name=str(run.read_run().get("preset", "")))
    return resolved


def _asked(options: TrainOptions) -> bool:
    return options.preset is not None or bool(options.all_assignments())


def _require_same(resolved: Resolved, begun: TaskSettings, where: Path, run: RunFolder) -> None:
    changed = _changed(resolved, begun, run)
    if not changed:
        return
    key, (_, had) = next(iter(changed.items()))
    met = [f"{name} = {asked}" for name, (asked, _) in changed.items()]
    raise UsageError(
        "A run cannot go on with other settings.",
        where=str(where),
        met="; ".join(met[:5]),
        wanted=f"{key} = {had}, as the run began",
        how="leave out --preset and --set to go on, or begin another run.",
    )


def _changed(
    resolved: Resolved, begun: TaskSettings, run: RunFolder
) -> dict[str, tuple[object, object]]:
    """Key -> the value that is asked for now, and the one that the run began with."""
    # A path may be said as seen from the run or from the working folder: it is the same one.
    asked, had = (
        flat_values(anchored_values(type(begun), settings.as_dict(), Path.cwd()))
        for settings in (resolved.settings, begun)
    )
    free = {"train.keep", "description", "extends", *_left_to_the_data(resolved, run)}
    return {
        key: (asked.get(key), had.get(key))
        for key in sorted((asked.keys() | had.keys()) - free)
        if asked.get(key) != had.get(key) and not key.startswith("data.folder")
    }


def _left_to_the_data(resolved: Resolved, run: RunFolder) -> list[str]:
    """Keys that the run planned, and that are left to the data again: they were not asked for."""
    planned = run.read_run().get("planned_keys", ()) if run.exists() else ()
    return [k for k in planned if resolved.origins.get(k, SCHEMA_DEFAULT) == SCHEMA_DEFAULT]
