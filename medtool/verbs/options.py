"""What every training and inference verb can be told about where and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtool.core.task import Task


@dataclass(frozen=True)
class RunOptions:
    """The common flags as values; None means: as the preset or the machine says."""

    run: str | None = None
    cache: Path | None = None
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str | None = None
    workers: int | None = None
    minutes: float | None = None
    folds: int | None = None
    fold: int | None = None
    seed: int | None = None
    keep: int | None = None

    def assignments(self) -> tuple[str, ...]:
        """Those that are keys of a preset, as ``key=value`` for ``medtool.config.resolve``."""
        numbers = {
            "train.folds": self.folds,
            "train.seed": self.seed,
            "train.keep": self.keep,
        }
        given = [f"{key}={value}" for key, value in numbers.items() if value is not None]
        if self.precision is not None:
            given.append(f'train.precision="{self.precision}"')
        return tuple(given)


def timeout_of(asked_s: float | None, task: Task) -> float:
    """Seconds after which reading and preparing a case is given up; None as the task says."""
    return task.settings.infer.case_timeout_s if asked_s is None else asked_s
