"""JSON that people wrote by hand: faults are told with their line.

Trailing commas and ``//`` comments change no meaning: they are read over and said. Everything else
that is no JSON refuses, and so does a name that stands twice in one table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.files import nearest_path
from medtool.core.records import Finding

# A data set of a million cases has some 200 MB of names.
LARGEST_JSON_BYTES = 1 << 29
# A string, a comment, or a comma before a closing bracket; strings first, so that what stands in
# them is left alone.
_TOKENS = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|,(?=(?:\s|//[^\n]*)*[}\]])')


class _TwiceError(ValueError):
    """A name that stands twice in one table."""


def read_json(path: Path, *, kind: str) -> tuple[Any, tuple[Finding, ...]]:
    """The document, and a warning a line that no strict reader takes.

    ``kind`` is how refusals call the file. Raises LabelsError.
    """
    text = _text(path, kind)
    plain, findings = _without_extras(text, path.name)
    try:
        return json.loads(plain, object_pairs_hook=_table), findings
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        shown = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else "the end"
        raise LabelsError(
            f"The {kind} is no JSON.",
            where=f"{path}, line {error.lineno}, column {error.colno}",
            met=shown[:80],
            wanted=error.msg[:1].lower() + error.msg[1:],
        ) from error
    except _TwiceError as error:
        raise LabelsError(
            f"The {kind} names something twice.", where=str(path), met=str(error)
        ) from error
    except RecursionError as error:
        raise LabelsError(f"The {kind} is nested without end.", where=str(path)) from error


def _text(path: Path, kind: str) -> str:
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise LabelsError(
                f"The {kind} is far too large for one.",
                where=str(path),
                wanted=f"at most {LARGEST_JSON_BYTES / 1e6:.0f} MB",
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError(f"The {kind} is no text in UTF-8.", where=str(path)) from error
    except OSError as error:
        raise LabelsError(
            f"The {kind} cannot be read.",
            where=str(path),
            met=error.strerror or type(error).__name__,
            nearest="" if path.exists() else nearest_path(path),
        ) from error


def _without_extras(text: str, name: str) -> tuple[str, tuple[Finding, ...]]:
    """Text with comments and trailing commas blanked, in place: lines and columns stay."""
    findings: list[Finding] = []

    def blanked(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith('"'):
            return token
        line = text.count("\n", 0, match.start()) + 1
        what = "a comma before a closing bracket" if token == "," else "a comment"
        message = f"{name}, line {line}: {what} is no JSON; read over"
        findings.append(Finding("json-repaired", message, "warning"))
        return " " * len(token)

    return _TOKENS.sub(blanked, text), tuple(findings)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise _TwiceError(f"'{name}'")
        table[name] = value
    return table
