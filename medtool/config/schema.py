"""What a task's settings type says about a key: is it known, what may stand there.

Works on the pydantic models of ``medtool.config.sections`` and of plugins.
"""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medtool.config.document import Document
from medtool.config.faults import SYNONYMS, Fault, nearest_key, quoted
from medtool.config.toml_lines import KeyPath

Model = type[BaseModel]

# Where a nearest name is offered, a longer list of keys would only hide it.
MOST_KEYS_LISTED = 8


def dotted(path: KeyPath) -> str:
    """``train.stages[1].rates``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def model_below(annotation: Any) -> Model | None:
    """The one model inside ``Section``, ``Section | None``, ``list[Section]``, ...; else None."""
    found = [kind for kind in _leaves(annotation) if isinstance(kind, type)]
    models = [kind for kind in found if issubclass(kind, BaseModel)]
    return models[0] if len(models) == 1 else None


def holds_paths(annotation: Any) -> bool:
    """Whether text that stands there is the path of a file or folder."""
    return any(isinstance(kind, type) and issubclass(kind, Path) for kind in _leaves(annotation))


def _leaves(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif origin in (Union, types.UnionType, list, tuple, dict, set, frozenset):
        for argument in get_args(annotation):
            yield from _leaves(argument)
    else:
        yield annotation


def field_at(model: Model, path: KeyPath) -> FieldInfo | None:
    """The field that a key belongs to; elements of lists belong to their list."""
    current: Model | None = model
    field: FieldInfo | None = None
    for part in path:
        if isinstance(part, int):
            continue
        if current is None:
            return field
        field = current.model_fields.get(part)
        if field is None:
            return None
        current = model_below(field.annotation)
    return field


def unknown_keys(model: Model, document: Document) -> Iterator[Fault]:
    """A fault for every key of the raw document that the schema does not know."""
    yield from _unknown(model, model, document.values, (), document)


def _unknown(
    root: Model, model: Model, values: Any, path: KeyPath, document: Document
) -> Iterator[Fault]:
    if isinstance(values, list):
        for index, value in enumerate(values):
            yield from _unknown(root, model, value, (*path, index), document)
    if not isinstance(values, Mapping) or model.model_config.get("extra") == "allow":
        return
    for key, value in values.items():
        here = (*path, key)
        field = model.model_fields.get(key)
        if field is None:
            yield _unknown_key(root, model, here, value, document)
            continue
        below = model_below(field.annotation)
        if below is not None and _is_table(field.annotation, below, value):
            yield from _unknown(root, below, value, here, document)


def _is_table(annotation: Any, below: Model, value: Any) -> bool:
    """Whether ``value`` is itself the model, or a list of it; a dict of models is left alone."""
    return isinstance(value, list) or not any(
        get_origin(part) is dict for part in (annotation, *get_args(annotation))
    )


def _unknown_key(root: Model, model: Model, path: KeyPath, value: Any, document: Document) -> Fault:
    key = str(path[-1])
    known = list(model.model_fields)
    near = nearest_key(key, known)
    nearest = dotted((*path[:-1], near)) if near else _elsewhere(root, key)
    section = f"[{dotted(path[:-1])}]" if len(path) > 1 else "a preset"
    if not known:
        wanted = f"nothing: {section} has no keys"
    elif nearest and len(known) > MOST_KEYS_LISTED:
        wanted = f"one of the {len(known)} keys of {section}"
    else:
        wanted = f"one of the keys of {section}: {', '.join(known)}"
    return Fault(document.place(path), dotted(path), quoted(value), wanted, nearest)


def _elsewhere(root: Model, key: str) -> str:
    """``train.epochs`` for ``epochs`` in a wrong section; spelt exactly, or a synonym."""
    for name in (key, *SYNONYMS.get(key, ())):
        for section, field in root.model_fields.items():
            below = model_below(field.annotation)
            if below is not None and name in below.model_fields:
                return f"{section}.{name}"
    return ""


def path_values(
    model: Model, values: Mapping[str, Any], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, str]]:
    """Every text of a nested document that the schema says is a path of a file or folder."""
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        here = (*path, key)
        below = model_below(field.annotation)
        if below is not None:
            whole = isinstance(value, Mapping) and _is_table(field.annotation, below, value)
            for step, element in _elements(value, whole=whole):
                if isinstance(element, Mapping):
                    yield from path_values(below, element, (*here, *step))
        elif holds_paths(field.annotation):
            for step, text in _elements(value, whole=isinstance(value, str)):
                if isinstance(text, str):
                    yield (*here, *step), text


def _elements(value: Any, *, whole: bool) -> Iterator[tuple[KeyPath, Any]]:
    """What stands in a list or table, each with the step to it; of a ``whole`` value itself."""
    if whole:
        yield (), value
    elif isinstance(value, Mapping):
        yield from (((key,), element) for key, element in value.items())
    elif isinstance(value, list):
        yield from (((index,), element) for index, element in enumerate(value))


def put(values: Any, path: KeyPath, value: Any) -> None:
    """Set one value of a nested document; tables on the way are made where they lack."""
    here: Any = values
    for part in path[:-1]:
        here = here.setdefault(part, {}) if isinstance(here, dict) else here[part]
    here[path[-1]] = value


def anchored(text: str, folder: Path) -> str:
    """``text`` as a path that starts from ``folder`` unless it is absolute; ``~`` is the home."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # this machine knows no home folder
        return text
    return os.path.normpath(path if path.is_absolute() else folder / path)


def anchored_values(model: Model, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A nested document with every path made to start from ``folder`` unless it is absolute."""
    moved = copy.deepcopy(dict(values))
    for path, text in list(path_values(model, moved)):
        put(moved, path, anchored(text, folder))
    return moved
