"""What is asked of ``optimize``, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool.verbs.options import RunOptions


@dataclass(frozen=True)
class OptimizeOptions:
    """What is asked of ``optimize``; what is None or empty is as the [optimize] of the model says.

    ``prune`` names a preset with a table [optimize.prune]; ``litert_python`` is the Python of the
    environment that has the converter to LiteRT's files, by default this one.
    """

    checkpoint: Path
    output: Path
    data: Path | None = None
    labels: Path | None = None
    calibration: Path | None = None
    formats: Sequence[str] = ()
    tolerance: float | None = None
    assignments: Sequence[str] = ()
    prune: str | None = None
    litert_python: Path | None = None
    force: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    command: str = ""

    def changes(self) -> tuple[str, ...]:
        """Everything that is changed of [optimize], as ``key=value``."""
        formats = ", ".join(f'"{name}"' for name in self.formats)
        return (
            *self.assignments,
            *([f"optimize.formats=[{formats}]"] if self.formats else []),
            *([f"optimize.tolerance={self.tolerance}"] if self.tolerance is not None else []),
        )


@dataclass(frozen=True)
class OptimizeResult:
    """The folder, its optimize.json, and the page."""

    folder: Path
    document: Mapping[str, Any]
    report: Path

    @property
    def default(self) -> Path:
        """The file that answers where nobody chose."""
        return self.folder / str(self.document["default"])
