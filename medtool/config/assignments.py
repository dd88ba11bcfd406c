"""Single settings from the command line: ``key.sub=value``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medtool.config.document import Document
from medtool.config.faults import Fault, quoted
from medtool.config.schema import Model, field_at

COMMAND_LINE = "command line"
# These say something of a preset file, and change none of its settings: what to do instead.
OF_THE_FILE = {
    "extends": "nothing: to take another preset, name it: --preset NAME, or presets TASK NAME",
    "description": "nothing: it describes a preset file, and only the file says it",
}


def assigned_documents(
    assignments: Sequence[str], model: Model, folder: Path
) -> tuple[list[Document], list[Fault]]:
    """One document an assignment, in their order, and the faults of those that are none."""
    documents, faults = [], []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = tuple(part.strip() for part in key.split("."))
        if not equals or not all(parts):
            faults.append(Fault(COMMAND_LINE, assignment, "", "KEY=VALUE, as in train.epochs=10"))
            continue
        if parts[0] in OF_THE_FILE:
            faults.append(Fault(COMMAND_LINE, key, quoted(text.strip()), OF_THE_FILE[parts[0]]))
            continue
        values: Any = _value(text.strip(), parts, model)
        for part in reversed(parts):
            values = {part: values}
        documents.append(Document(values, COMMAND_LINE, folder))
    return documents, faults


def _value(text: str, path: tuple[str, ...], model: Model) -> Any:
    """The first reading that the key accepts: as TOML writes it, else the bare text."""
    readings = list(_readings(text))
    field = field_at(model, path)
    if field is not None:
        adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        for reading in readings:
            try:
                adapter.validate_json(json.dumps(reading, default=str), strict=True)
            except ValidationError:
                continue
            return reading
    return readings[0]


def _readings(text: str) -> Iterator[Any]:
    try:
        value = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        value = {}
    if set(value) == {"value"}:
        yield value["value"]
    yield text
