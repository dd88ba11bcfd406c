"""A resolved preset as a TOML file that, read back, gives the same settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from medtool.config.schema import dotted, path_values, put
from medtool.config.sections import TaskSettings
from medtool.config.toml_lines import KeyPath
from medtool.core.files import replace_text


def preset_text(
    settings: TaskSettings,
    *,
    origins: Mapping[str, str] | None = None,
    title: str = "",
    folder: Path | None = None,
) -> str:
    """Every key of the settings in TOML, with the origin of each value as a comment.

    Relative paths are written as seen from ``folder``, where the file will lie; without it they
    start from the working folder.
    """
    values = settings.as_dict()
    if folder is not None:
        for path, text in list(path_values(type(settings), values)):
            put(values, path, _seen_from(folder, text))
    lines = [f"# {line}" for line in title.splitlines()]
    lines.extend(_table(values, (), origins or {}))
    return "\n".join(lines).strip("\n") + "\n"


def write_preset(
    settings: TaskSettings,
    path: Path,
    *,
    origins: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """Write a resolved preset, whole or not at all; raises MachineError where it cannot."""
    text = preset_text(settings, origins=origins, title=title, folder=path.parent)
    replace_text(path, text)


def _seen_from(folder: Path, text: str) -> str:
    """A path from the working folder as a path from ``folder``; absolute ones stay."""
    if Path(text).is_absolute():
        return text
    try:
        return Path(os.path.relpath(text, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return str(Path(text).absolute())


def _table(values: Mapping[str, Any], path: KeyPath, origins: Mapping[str, str]) -> Iterator[str]:
    """The lines of a table: its own keys first, then the tables and arrays of tables below."""
    below = []
    for key, value in values.items():
        if isinstance(value, Mapping) or _is_array_of_tables(value):
            below.append((key, value))
        else:
            origin = origins.get(dotted((*path, key)), "")
            comment = f"  # {origin}" if origin else ""
            yield f"{_pair(key, value)}{comment}"
    for key, value in below:
        here = (*path, key)
        if isinstance(value, Mapping):
            yield from ("", f"[{_header(here)}]")
            yield from _table(value, here, origins)
            continue
        origin = origins.get(dotted(here), "")
        for element in value:
            yield from ("", f"[[{_header(here)}]]" + (f"  # {origin}" if origin else ""))
            # What is nested inside an element of an array is written inline.
            yield from (_pair(name, inner) for name, inner in element.items())


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _header(path: KeyPath) -> str:
    return ".".join(_key(str(part)) for part in path)


def _key(key: str) -> str:
    return _pair(key, 0).removesuffix(" = 0")


def _pair(key: str, value: Any) -> str:
    """``key = value`` on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(_pair(name, item) for name, item in value.items())
        return f"{_key(key)} = {{{inner}}}"
    if isinstance(value, list):
        items = ", ".join(_pair("x", item).removeprefix("x = ") for item in value)
        return f"{_key(key)} = [{items}]"
    return tomli_w.dumps({key: value}).rstrip("\n")
