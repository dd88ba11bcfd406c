"""A process of another environment that answers questions, one line of JSON each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PeerProcess:
    """The process in which the peers compute; the first thing it says is their versions."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.versions: dict[str, str] = self._answer()

    def ask(self, question: dict[str, Any]) -> Any:
        """One question, one answer."""
        if self._process.stdin is None:
            raise SystemExit("the peers have no input")
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def said(self) -> str:
        """The packages and their versions, as a sentence."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items()) + "."

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("the peers ended without an answer")
        return json.loads(line)


@contextmanager
def peers_at(environment: Path, script: str) -> Iterator[PeerProcess]:
    """The peers of a virtual environment, started by a script of this folder, ended at the end."""
    command = [environment / "bin" / "python", Path(__file__).parent / script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield PeerProcess(process)
