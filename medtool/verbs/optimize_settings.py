"""The [optimize] that a model is made smaller by: its own, changed by --prune and options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import Resolved, changed_task, presets_of, resolve
from medtool.config.find import DEFAULT_PRESET
from medtool.config.layers import SCHEMA_DEFAULT
from medtool.config.optimize_section import OptimizeSection
from medtool.config.places import known_task
from medtool.core.checkpoint import CheckpointHeader
from medtool.core.ensemble import member_header, members_of
from medtool.core.progress import Reporter
from medtool.verbs.optimize_options import OptimizeOptions

if TYPE_CHECKING:
    from medtool.core.task import Task

SECTION, PRUNE = "optimize.", "prune."


def asked_task(header: CheckpointHeader, options: OptimizeOptions, reporter: Reporter) -> Task:
    """The task with its [optimize] as it is asked for.

    A preset of --prune changes what it says, and nothing else of what the model was trained with.
    """
    members = members_of(header)
    own = known_task(member_header(header, members[0]) if members else header)
    if options.prune is None:
        return changed_task(own, options.changes())
    resolved = resolve(type(own), options.prune)
    said = _said(resolved, type(own))
    section = _with(own.settings.optimize, said)
    task = type(own)(own.settings.model_copy(update={"optimize": section}))
    task = changed_task(task, options.changes())
    _tell(own.settings.optimize, task.settings.optimize, said, reporter)
    return task


def _said(resolved: Resolved, task_class: type[Task]) -> dict[str, Any]:
    """Keys of [optimize] that a preset, what it extends or medtool.toml sets, and their values.

    Not what the task's default preset says, which nearly all extend: the model may have been
    trained with another one.
    """
    unsaid = {SCHEMA_DEFAULT}
    if resolved.preset_name != DEFAULT_PRESET:
        named = presets_of(task_class.name, task_class.__module__, Path())
        unsaid |= {one.label for one in named if one.name == DEFAULT_PRESET}
    return {
        key.removeprefix(SECTION): _value(resolved.settings.optimize, key.removeprefix(SECTION))
        for key, place in resolved.origins.items()
        # The file, without the line.
        if key.startswith(SECTION) and place.partition(":")[0] not in unsaid
    }


def _value(section: OptimizeSection, key: str) -> Any:
    inner = key.startswith(PRUNE)
    return getattr(section.prune if inner else section, key.removeprefix(PRUNE))


def _with(own: OptimizeSection, said: Mapping[str, Any]) -> OptimizeSection:
    whole = {key: value for key, value in said.items() if not key.startswith(PRUNE)}
    prune = {key.removeprefix(PRUNE): said[key] for key in said if key.startswith(PRUNE)}
    return own.model_copy(update={**whole, "prune": own.prune.model_copy(update=prune)})


def _tell(
    own: OptimizeSection, asked: OptimizeSection, said: Mapping[str, Any], reporter: Reporter
) -> None:
    """Say what the preset of --prune changed, and warn where it lets more be lost."""
    # What the command line changed once more is not the preset's.
    changed = [
        key for key, value in said.items() if _value(asked, key) == value != _value(own, key)
    ]
    if changed:
        told = [f"{key} = {_text(said[key])} (was {_text(_value(own, key))})" for key in changed]
        reporter.say(f"--prune changes of the model's [optimize]: {', '.join(told)}.")
    for line in _looser(own, asked, changed):
        reporter.warn(f"--prune lets more be lost than the model's own preset: {line}.")


def _looser(own: OptimizeSection, asked: OptimizeSection, changed: list[str]) -> Iterator[str]:
    """Where the gate of ``asked`` is wider than one that the model's own preset set."""
    wider = {
        # Where the model sets none, it is the preset that is to say what pruning may cost.
        "tolerance": own.tolerance is not None
        and asked.tolerance is not None
        and asked.tolerance > own.tolerance,
        "judged_by": (own.judged_by, asked.judged_by) == ("interval", "estimate"),
        "passes_mean": asked.passes_mean > own.passes_mean,
        "passes_correlation": asked.passes_correlation < own.passes_correlation,
    }
    for key in changed:
        if wider.get(key):
            yield f"{key} {_text(_value(asked, key))} in place of {_text(_value(own, key))}"


def _text(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
