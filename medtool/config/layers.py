"""From layers to settings: schema defaults, preset, medtool.toml, command line; later wins.

Tables are merged key by key, everything else (lists as well) is replaced. Relative paths start
from the folder of the file that says them. All faults of all layers are reported at once.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from medtool.config.assignments import OF_THE_FILE, assigned_documents
from medtool.config.document import Document, read_document
from medtool.config.faults import Fault, quoted, refuse
from medtool.config.find import DEFAULT_PRESET, PresetFile, find_preset, is_path, presets_of
from medtool.config.project import Paths, read_project
from medtool.config.schema import Model, anchored_values, dotted, field_at, unknown_keys
from medtool.config.sections import TaskSettings
from medtool.config.toml_lines import KeyPath
from medtool.core.errors import UnknownNameError
from medtool.core.names import nearest_name

if TYPE_CHECKING:
    from medtool.core.task import Task

SCHEMA_DEFAULT = "schema default"

# What ``Document.place`` writes: label, line, perhaps a remark.
_PLACE = re.compile(r"(.*):(\d+)(?: \(.*\))?$")


@dataclass(frozen=True)
class Resolved:
    """Settings, and the origin of each value by its dotted key.

    ``preset_name`` is "" where only schema defaults and medtool.toml speak; ``files`` are those
    that were read, in the order in which they were applied.
    """

    settings: TaskSettings
    origins: Mapping[str, str]
    preset_name: str
    files: tuple[Path, ...]
    paths: Paths


def resolve(
    task_class: type[Task],
    preset: str | None,
    *,
    folder: Path = Path(),
    assignments: Sequence[str] = (),
) -> Resolved:
    """The settings of a task in the working folder ``folder``.

    ``preset`` is a name or a path; None takes the preset "default" where there is one.
    ``assignments`` are ``key.sub=value``. Raises PresetError (all faults), UnknownNameError (no
    such preset).
    """
    model = task_class.settings_type
    chain, name = _preset_chain(task_class, preset, folder)
    project, paths, project_faults = read_project(folder, task_class.name, model)
    assigned, assigned_faults = assigned_documents(assignments, model, folder)
    documents = [*chain, *project, *assigned]
    faults = [
        *(fault for document in documents for fault in unknown_keys(model, document)),
        *project_faults,
        *assigned_faults,
    ]
    merged: dict[str, Any] = {}
    said: dict[KeyPath, Document] = {}
    for document in [_schema_defaults(model, folder), *documents]:
        values = anchored_values(model, document.values, document.folder)
        _merge(merged, values, (), document, said)
    if chain:
        # What a base preset says of itself is not true of the preset that changes it.
        for key in OF_THE_FILE:
            merged.pop(key, None)
        if "description" in chain[-1].values:
            merged["description"] = chain[-1].values["description"]
    settings, value_faults = _validated(model, merged, said)
    reported = {(fault.place, fault.key) for fault in faults}
    faults += [fault for fault in value_faults if (fault.place, fault.key) not in reported]
    if settings is None or faults:
        raise refuse(
            _in_order(faults, documents),
            how=f"'medtool presets {task_class.name} --schema' says what every key may be.",
        )
    return Resolved(
        settings,
        dict(_origins(settings.as_dict(), (), said)),
        name,
        tuple(document.file for document in documents if document.file is not None),
        paths,
    )


def task_from_document(name: str, preset: Mapping[str, Any], *, label: str = "the preset") -> Task:
    """The task ``name`` built from a resolved preset, as a checkpoint or a run keeps it.

    Nothing is looked up, nothing is run. Raises PresetError (a key or value that this version
    does not know), UnknownNameError (no such task), MachineError (its plugin is broken).
    """
    from medtool.core.registry import load_task

    task_class = load_task(name)
    return task_class(settings_from_document(task_class, preset, label=label))


def settings_from_document(
    task_class: type[Task], preset: Mapping[str, Any], *, label: str = "the preset"
) -> TaskSettings:
    """A resolved preset's values as settings; raises PresetError with all its faults."""
    model = task_class.settings_type
    document = Document(preset, label, Path())
    faults = list(unknown_keys(model, document))
    merged = copy.deepcopy(dict(preset))
    said = {path: document for path, _ in _leaves(merged, ())}
    settings, value_faults = _validated(model, merged, said)
    reported = {fault.key for fault in faults}
    faults += [fault for fault in value_faults if fault.key not in reported]
    if settings is None or faults:
        raise refuse(faults, how=f"it was written by another version of '{task_class.name}'.")
    return settings


def changed_task(task: Task, assignments: Sequence[str]) -> Task:
    """``task`` with single settings changed (``key.sub=value``), as a checkpoint's are at use.

    Raises PresetError with all faults.
    """
    if not assignments:
        return task
    model = type(task).settings_type
    documents, faults = assigned_documents(assignments, model, Path())
    faults += [fault for document in documents for fault in unknown_keys(model, document)]
    merged = copy.deepcopy(task.settings.as_dict())
    said: dict[KeyPath, Document] = {}
    for document in documents:
        values = anchored_values(model, document.values, document.folder)
        _merge(merged, values, (), document, said)
    settings, value_faults = _validated(model, merged, said)
    reported = {fault.key for fault in faults}
    faults += [fault for fault in value_faults if fault.key not in reported]
    if settings is None or faults:
        raise refuse(faults, how=f"'medtool presets {task.name} --schema' says what keys may be.")
    return type(task)(settings)


# --- the chain of a preset ----------------------------------------------------------------------
def _preset_chain(
    task_class: type[Task], preset: str | None, folder: Path
) -> tuple[list[Document], str]:
    """The preset and what it extends, base first; and its name."""
    task, module = task_class.name, task_class.__module__
    if preset is None:
        names = {found.name for found in presets_of(task, module, folder)}
        if DEFAULT_PRESET not in names:
            return [], ""
        preset = DEFAULT_PRESET
    chain: list[Document] = []
    seen: list[Path] = []
    wanted, beside, name = preset, folder, ""
    while True:
        document, stem = _named(task, module, wanted, beside, folder)
        name = name or stem
        file = (document.file or Path()).resolve()
        if file in seen:
            raise refuse(
                [
                    Fault(
                        chain[0].place(("extends",)),
                        "extends",
                        quoted(wanted),
                        "a base that does not lead back here",
                    )
                ],
                how="a preset must not extend itself, nor one that extends it.",
            )
        seen.append(file)
        chain.insert(0, document)
        base = document.values.get("extends")
        if not isinstance(base, str):
            return chain, name
        wanted, beside = base, document.folder


def _named(task: str, module: str, name: str, beside: Path, folder: Path) -> tuple[Document, str]:
    if not is_path(name):
        found = find_preset(task, module, name, folder)
        return read_document(found.file, found.label, remark=found.remark), found.name
    file = Path(os.path.normpath(beside / Path(name).expanduser()))
    if not file.is_file():
        near = [other.name for other in file.parent.glob("*.toml")] if file.parent.is_dir() else []
        raise UnknownNameError(
            "There is no preset file of that name.",
            met=str(file),
            wanted="a file in TOML, or the name of a preset",
            nearest=nearest_name(file.name, near),
            how=f"'medtool presets {task}' lists the presets that have a name.",
        )
    return read_document(file, file.as_posix()), file.stem


def preset_description(preset: PresetFile) -> str:
    """Its line of description; raises PresetError when the file is no TOML."""
    said = read_document(preset.file, preset.label, remark=preset.remark).values.get(
        "description", ""
    )
    return said if isinstance(said, str) else ""


# --- merging and checking -----------------------------------------------------------------------
def _schema_defaults(model: Model, folder: Path) -> Document:
    """The lowest layer: what the task's schema says of every key that has a default."""
    values = model.model_construct().model_dump_json(exclude_none=True, warnings=False)
    return Document(json.loads(values), SCHEMA_DEFAULT, folder)


def _merge(
    below: dict[str, Any],
    above: Mapping[str, Any],
    path: KeyPath,
    document: Document,
    said: dict[KeyPath, Document],
) -> None:
    for key, value in above.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            if not isinstance(below.get(key), dict):
                below[key] = {}
            said[here] = document
            _merge(below[key], value, here, document, said)
        else:
            below[key] = value
            said[here] = document


def _validated(
    model: Model, merged: Mapping[str, Any], said: Mapping[KeyPath, Document]
) -> tuple[TaskSettings | None, list[Fault]]:
    # JSON mode is strict about types ("3" is no number) yet takes text for a path.
    text = json.dumps(merged, default=str)
    try:
        settings = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        return None, _value_faults(model, merged, said, error.errors(include_url=False))
    if not isinstance(settings, TaskSettings):
        raise TypeError(f"{model.__name__} is no TaskSettings")
    return settings, []


def _value_faults(
    model: Model,
    merged: Mapping[str, Any],
    said: Mapping[KeyPath, Document],
    errors: Sequence[ErrorDetails],
) -> list[Fault]:
    # Alternatives of one key give an error each: they are one fault with several ways out.
    wanted: dict[KeyPath, list[str]] = {}
    nearest: dict[KeyPath, str] = {}
    for error in errors:
        path = tuple(error["loc"])
        missing = error["type"] == "missing"
        while not missing and path and not _exists(merged, path):
            path = path[:-1]
        if error["type"] == "extra_forbidden":
            continue
        text = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        wanted.setdefault(path, []).append("a value; there is none" if missing else text)
        if error["type"] == "literal_error":
            nearest[path] = _nearest_choice(error)
    return [
        _value_fault(model, merged, said, path, " or ".join(texts), nearest.get(path, ""))
        for path, texts in wanted.items()
    ]


def _value_fault(
    model: Model,
    merged: Mapping[str, Any],
    said: Mapping[KeyPath, Document],
    path: KeyPath,
    wanted: str,
    nearest: str,
) -> Fault:
    field = field_at(model, path)
    if field is not None and field.description:
        wanted += f" ({field.description.rstrip('.')})"
    document = _sayer(said, path)
    place = document.place(path) if document else SCHEMA_DEFAULT
    met = quoted(_at(merged, path)) if path and _exists(merged, path) else ""
    return Fault(place, dotted(path) or "the whole", met, wanted, nearest)


def _nearest_choice(error: ErrorDetails) -> str:
    expected = str(error.get("ctx", {}).get("expected", ""))
    choices = [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]
    return nearest_name(str(error["input"]), choices)


def _sayer(said: Mapping[KeyPath, Document], path: KeyPath) -> Document | None:
    for length in range(len(path), 0, -1):
        if path[:length] in said:
            return said[path[:length]]
    return None


def _exists(values: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return False
    return True


def _at(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values[part]
    return values


def _in_order(faults: Sequence[Fault], documents: Sequence[Document]) -> list[Fault]:
    """The faults of each document together, by line."""
    labels = [document.label for document in documents]

    def key(fault: Fault) -> tuple[int, int]:
        match = _PLACE.match(fault.place)
        label, line = match.groups() if match else (fault.place, "0")
        return (labels.index(label) if label in labels else len(labels), int(line))

    return sorted(faults, key=key)


# --- origins ------------------------------------------------------------------------------------
def _origins(
    values: Mapping[str, Any], path: KeyPath, said: Mapping[KeyPath, Document]
) -> Iterator[tuple[str, str]]:
    for here, _ in _leaves(values, path):
        document = said.get(here)
        yield dotted(here), document.place(here) if document else SCHEMA_DEFAULT


def _leaves(values: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        else:
            yield here, value
