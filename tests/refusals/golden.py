"""Golden texts of refusals: a folder's files, a command, its status and all it says on stderr.

A case is a text file of sections that begin with ``--- ``:

    --- why            a sentence for the reader
    --- setup NAME     a function of setups.py that fills the folder (optional)
    --- file PATH      a text file of the working folder (any number)
    --- command        the words after "medtool", as a shell splits them
    --- status N
    --- stderr         what the user reads; the working folder is written as FOLDER
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

_SECTION = re.compile(r"^--- (\w+) ?(.*)$")


@dataclass
class Golden:
    """One case as it stands in its file."""

    file: Path
    why: str = ""
    setup: str = ""
    files: dict[str, str] = field(default_factory=dict)
    command: str = ""
    status: int = 0
    stderr: str = ""

    def words(self) -> list[str]:
        return shlex.split(self.command)

    def fill(self, folder: Path) -> None:
        """Write the case's files into an empty working folder."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def text(self) -> str:
        parts = ["--- why", self.why]
        if self.setup:
            parts.append(f"--- setup {self.setup}")
        for name, content in self.files.items():
            parts += [f"--- file {name}", content.rstrip("\n")]
        parts += ["--- command", self.command, f"--- status {self.status}", "--- stderr"]
        return "\n".join(parts) + "\n" + self.stderr


def read_golden(file: Path) -> Golden:
    golden = Golden(file)
    name, rest, body = "", "", [""]
    body.clear()

    def store() -> None:
        content = "\n".join(body)
        if name == "file":
            golden.files[rest] = content + "\n"
        elif name in ("why", "command"):
            setattr(golden, name, content.strip())
        elif name == "setup":
            golden.setup = rest
        elif name == "status":
            golden.status = int(rest)
        elif name:
            raise ValueError(f"{file.name} has a section '{name}'")

    text, _, golden.stderr = file.read_text(encoding="utf-8").partition("--- stderr\n")
    for line in text.splitlines():
        if match := _SECTION.match(line):
            store()
            name, rest = match.groups()
            body.clear()
        else:
            body.append(line)
    store()
    return golden


def normalised(text: str, folder: Path) -> str:
    """``text`` with the working folder as FOLDER, slashes forward, times and versions blanked."""
    for path in (folder.resolve(), folder):
        text = text.replace(str(path), "FOLDER")
    if os.sep == "\\":
        text = text.replace("\\", "/")
    text = re.sub(r"error-\d{8}-\d{6}-\d+", "error-TIME", text)
    return re.sub(r"\.py:\d+", ".py:LINE", text)
