"""Where things are on this machine: what a preset says of it, and a checkpoint does not.

A folder may be named after a hospital or a patient, and is of no use elsewhere. So checkpoints
keep every setting but paths; those of a run stand in its own ``preset.toml``, which stays where
the run was.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config.document import read_document
from medtool.config.layers import task_from_document
from medtool.config.schema import Model, anchored, field_at, path_values, put
from medtool.config.sections import TaskSettings
from medtool.config.toml_lines import KeyPath
from medtool.core.checkpoint import (
    CHECKPOINTS_FOLDER,
    PRESET_FILE,
    CheckpointHeader,
    read_header,
)
from medtool.core.ensemble import MEMBERS
from medtool.core.errors import MedtoolError
from medtool.core.registry import load_task

if TYPE_CHECKING:
    from medtool.core.task import Task

# Stands for a path where a key must have one, or where others stand beside it.
NOWHERE = "."
PRESET = "preset"


def without_places(model: Model, preset: Mapping[str, Any]) -> dict[str, Any]:
    """A preset without the paths that it names; ``model`` says which of its keys are paths."""
    kept = copy.deepcopy(dict(preset))
    for path, _ in list(path_values(model, kept)):
        field = field_at(model, path)
        if field is None or field.is_required() or isinstance(path[-1], int):
            put(kept, path, NOWHERE)
        else:
            _at(kept, path[:-1]).pop(path[-1])
    return kept


def portable_preset(settings: TaskSettings) -> dict[str, Any]:
    """What a checkpoint keeps of settings: plain values, none of them a path."""
    return without_places(type(settings), settings.as_dict())


def portable_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's document, and those of its members, without paths.

    For what is made of a checkpoint that may still have them. Of a task that is not installed those
    keys are known that all tasks share.
    """
    model = _settings_type(str(document.get("task", "")))
    kept = dict(document)
    if PRESET in kept:
        kept[PRESET] = without_places(model, kept[PRESET])
    if MEMBERS in kept:
        kept[MEMBERS] = [
            {**member, "document": portable_document(member["document"])}
            for member in kept[MEMBERS]
        ]
    return kept


def _settings_type(task: str) -> Model:
    try:
        return load_task(task).settings_type
    except MedtoolError:
        return TaskSettings


def known_preset(header: CheckpointHeader, model: Model) -> dict[str, Any]:
    """The preset of a checkpoint, with the paths that its run names where it lies in one.

    Paths that the checkpoint itself still holds stay. Raises PresetError where the run's own
    preset cannot be read.
    """
    preset = copy.deepcopy(dict(header.document[PRESET]))
    inner = header.path.absolute().parent
    folder = inner.parent
    file = folder / PRESET_FILE
    if inner.name != CHECKPOINTS_FOLDER or not file.is_file():
        return preset
    for path, text in path_values(model, read_document(file, str(file)).values):
        if _lacks(preset, path):
            put(preset, path, anchored(text, folder))
    return preset


def known_task(header: CheckpointHeader) -> Task:
    """The task of a checkpoint as its run, where it lies in one, knows it.

    Raises as ``task_from_document`` and ``known_preset``.
    """
    model = load_task(header.task).settings_type
    return task_from_document(header.task, known_preset(header, model))


def known_header(path: Path) -> CheckpointHeader:
    """The head of a checkpoint with the preset that ``known_preset`` gives."""
    header = read_header(path)
    preset = known_preset(header, load_task(header.task).settings_type)
    return replace(header, document={**header.document, PRESET: preset})


def _lacks(values: Any, path: KeyPath) -> bool:
    """Whether a path can be set there, and none is."""
    table = _at(values, path[:-1])
    if isinstance(table, list):
        return isinstance(path[-1], int) and path[-1] < len(table) and table[path[-1]] == NOWHERE
    return isinstance(table, dict) and table.get(path[-1], NOWHERE) == NOWHERE


def _at(values: Any, path: KeyPath) -> Any:
    """What stands there; None where there is nothing."""
    for part in path:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
