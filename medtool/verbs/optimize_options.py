"""What is asked of ``optimize``, and what it gives back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool.config.find import is_path
from medtool.config.prune_section import SHARE_OF_WEIGHTS
from medtool.verbs.options import RunOptions

PRUNE_KEYS = "optimize.prune."


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

    @property
    def speaks_of_pruning(self) -> bool:
        """Whether anything is said of pruning, beside what the model's own preset says."""
        assigned = any(one.strip().startswith(PRUNE_KEYS) for one in self.assignments)
        return self.prune is not None or assigned

    def changes(self) -> tuple[str, ...]:
        """Everything that is changed of [optimize], as ``key=value``."""
        formats = ", ".join(f'"{name}"' for name in self.formats)
        return (
            *self.assignments,
            *self._share_of_weights(),
            *([f"optimize.formats=[{formats}]"] if self.formats else []),
            *([f"optimize.tolerance={self.tolerance}"] if self.tolerance is not None else []),
        )

    def _share_of_weights(self) -> list[str]:
        """Shares of presets are meant for channels: of single weights half are taken."""
        given = {
            key.strip(): value.strip(" \"'")
            for key, _, value in (one.partition("=") for one in self.assignments)
        }
        weights = given.get(f"{PRUNE_KEYS}kind") == "weights"
        asked = weights and f"{PRUNE_KEYS}share" not in given
        return [f"{PRUNE_KEYS}share={SHARE_OF_WEIGHTS}"] if asked else []

    def without_places(self) -> str:
        """The command without its files and folders, whose names may be those of patients."""
        places = {"--data": self.data, "--labels": self.labels, "--calibration": self.calibration}
        words = ["medtool", "optimize", "CHECKPOINT", "-o", "FOLDER"]
        for option, place in places.items():
            words += [option, "FILE" if option == "--labels" else "DIR"] if place else []
        for name in self.formats:
            words += ["--format", name]
        if self.prune is not None:
            words += ["--prune", "FILE" if is_path(self.prune) else self.prune]
        words += ["--tolerance", f"{self.tolerance:g}"] if self.tolerance is not None else []
        for assignment in self.assignments:
            words += ["--set", assignment]
        words += ["--seed", str(self.run.seed)] if self.run.seed is not None else []
        return shlex.join(words)


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
