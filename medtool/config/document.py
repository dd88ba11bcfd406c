"""A TOML file as values and the line of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool.config.faults import Fault, refuse
from medtool.config.toml_lines import KeyPath, key_lines

_LINE_OF_ERROR = re.compile(r"\(at line (\d+)")

# Far above any preset; a file that is larger is something else.
LARGEST_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Document:
    """One layer of settings: values, and where each of them was said.

    ``label`` is what a person calls it, ``remark`` where it comes from when that is not plain;
    its relative paths start from ``folder``.
    """

    values: Mapping[str, Any]
    label: str
    folder: Path
    file: Path | None = None
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    remark: str = ""

    def place(self, path: KeyPath) -> str:
        """``label:line`` of a key, or of the nearest table above it that has a line."""
        line = self.line(path)
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.label}:{line}{remark}" if line else f"{self.label}{remark}"

    def line(self, path: KeyPath) -> int:
        """The line alone; 0 where there is none."""
        for length in range(len(path), 0, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return line
        return 0


def read_document(file: Path, label: str, *, remark: str = "") -> Document:
    """Read a TOML file; raises PresetError with the line when it is none."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise refuse(
            [Fault(label, "the file", type(error).__name__, "a file that can be read")],
            how="check its name and your permissions.",
        ) from error
    if len(content) > LARGEST_FILE_BYTES:
        raise refuse(
            [
                Fault(
                    label,
                    "the file",
                    f"{len(content)} bytes",
                    f"at most {LARGEST_FILE_BYTES} bytes",
                )
            ],
            how="a preset is a short text file in TOML.",
        )
    try:
        # Windows' editors put a byte-order mark before the text.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse(
            [Fault(f"{label}:{line}", "the text", f"byte {content[error.start]:#04x}", "UTF-8")],
            how="save the file as UTF-8.",
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise refuse([_syntax_fault(error, text, label)], how="mend the line.") from error
    return Document(values, label, file.parent, file, key_lines(text), remark)


def _syntax_fault(error: tomllib.TOMLDecodeError, text: str, label: str) -> Fault:
    lines = text.splitlines()
    match = _LINE_OF_ERROR.search(str(error))
    number = int(match.group(1)) if match else max(1, len(lines))
    line = lines[number - 1].strip() if number <= len(lines) else ""
    said = _LINE_OF_ERROR.split(str(error))[0].strip()
    wanted = f"TOML ({said})"
    if "\\" in line and '"' in line:
        wanted += "; write paths with forward slashes or in single quotes"
    return Fault(f"{label}:{number}", line[:60] or "the end of the file", "", wanted)
