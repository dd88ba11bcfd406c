"""``medtool.toml`` of the working folder: where things are here, said once.

[paths]
cache = ".medtool/cache"        # prepared cases
runs = "runs"                   # what training writes

[data]                          # sections as in a preset, for every task
folder = "CTs"
labels = "labels1.csv"

[tasks.NAME.train]              # sections for one task only; they win over those above
seed = 7
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from medtool.config.document import Document, read_document
from medtool.config.faults import Fault, nearest_key, quoted, refuse
from medtool.config.schema import Model, anchored
from medtool.core.names import nearest_name
from medtool.core.registry import task_names

PROJECT_FILE = "medtool.toml"
_OWN_TABLES = ("paths", "tasks")
# What people look for under [paths] and what is named beside the rest of the data.
_OF_DATA = {
    "data": "folder, in [data]",
    "folder": "folder, in [data]",
    "labels": "labels, in [data]",
}
# These say something of a preset file; medtool.toml is none.
_NOT_HERE = ("extends", "description")


@dataclass(frozen=True)
class Paths:
    """Folders of medtool's own files, starting from the working folder."""

    cache: Path
    runs: Path


def default_paths(folder: Path) -> Paths:
    """Where things are when nobody says otherwise."""
    return Paths(cache=folder / ".medtool" / "cache", runs=folder / "runs")


def project_paths(folder: Path = Path()) -> Paths:
    """The folders of medtool's own files, for verbs that concern no task.

    Raises PresetError where medtool.toml cannot be read or has faults.
    """
    if not (folder / PROJECT_FILE).is_file():
        return default_paths(folder)
    document = read_document(folder / PROJECT_FILE, PROJECT_FILE)
    paths, faults = _paths(document, folder)
    if faults:
        raise refuse(faults, how=f"mend {PROJECT_FILE}.")
    return paths


def read_project(
    folder: Path, task: str, model: Model
) -> tuple[list[Document], Paths, list[Fault]]:
    """The layers of medtool.toml for a task, its paths, and the faults of its own tables."""
    file = folder / PROJECT_FILE
    if not file.is_file():
        return [], default_paths(folder), []
    whole = read_document(file, PROJECT_FILE)
    paths, faults = _paths(whole, folder)
    sections = [name for name in model.model_fields if name not in _NOT_HERE]
    common: dict[str, Any] = {}
    for name, value in whole.values.items():
        if name in sections:
            common[name] = value
        elif name not in _OWN_TABLES:
            faults.append(_unknown_table(whole, name, value, sections))
    own, own_faults = _of_task(whole, task, sections)
    layers = [Document(common, PROJECT_FILE, folder, file, whole.lines)]
    if own is not None:
        layers.append(own)
    return layers, paths, faults + own_faults


def _unknown_table(document: Document, name: str, value: Any, sections: list[str]) -> Fault:
    allowed = [*sections, *_OWN_TABLES]
    return Fault(
        document.place((name,)),
        name,
        quoted(value),
        f"one of the tables {', '.join(allowed)}",
        nearest_key(name, allowed),
    )


def _of_task(
    document: Document, task: str, sections: list[str]
) -> tuple[Document | None, list[Fault]]:
    tables = document.values.get("tasks")
    if tables is None:
        return None, []
    if not isinstance(tables, Mapping):
        return None, [Fault(document.place(("tasks",)), "tasks", quoted(tables), "a table")]
    faults = list(_unknown_tasks(document, tables, task))
    values = tables.get(task)
    if not isinstance(values, Mapping):
        return None, faults
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in sections:
            kept[name] = value
        else:
            place = document.place(("tasks", task, name))
            key = f"tasks.{task}.{name}"
            allowed = f"one of the sections {', '.join(sections)}"
            near = nearest_key(name, sections)
            faults.append(Fault(place, key, quoted(value), allowed, near))
    lines = {path[2:]: line for path, line in document.lines.items() if path[:2] == ("tasks", task)}
    return Document(kept, PROJECT_FILE, document.folder, None, lines), faults


def _unknown_tasks(document: Document, tables: Mapping[str, Any], task: str) -> Iterator[Fault]:
    others = [name for name in tables if name != task]
    if not others:
        return
    known = {*task_names(), task}
    for name in others:
        if name not in known:
            yield Fault(
                document.place(("tasks", name)),
                f"tasks.{name}",
                quoted(tables[name]),
                f"the name of a task: {', '.join(sorted(known))}",
                nearest_name(name, known),
            )


def _paths(document: Document, folder: Path) -> tuple[Paths, list[Fault]]:
    usual = default_paths(folder)
    table = document.values.get("paths", {})
    if not isinstance(table, Mapping):
        return usual, [Fault(document.place(("paths",)), "paths", quoted(table), "a table")]
    known = [field.name for field in fields(Paths)]
    faults, chosen = [], {}
    for name, value in table.items():
        place, key = document.place(("paths", name)), f"paths.{name}"
        if name not in known:
            allowed = f"one of the keys of [paths]: {', '.join(known)}"
            nearest = _OF_DATA.get(name) or nearest_name(name, known)
            faults.append(Fault(place, key, quoted(value), allowed, nearest))
        elif not isinstance(value, str) or not value:
            faults.append(Fault(place, key, quoted(value), "the path of a folder, as text"))
        else:
            chosen[name] = Path(anchored(value, folder))
    return replace(usual, **chosen), faults
