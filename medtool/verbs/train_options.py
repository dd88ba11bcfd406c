"""What is asked of ``train``, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.verbs.options import RunOptions

if TYPE_CHECKING:
    from medtool.core.task import Task


@dataclass(frozen=True)
class TrainOptions:
    """What is asked of ``train``.

    ``task`` may be a class instead of a registered name. ``resume`` is a run's folder or one of
    its checkpoints.
    """

    task: str | type[Task]
    preset: str | None = None
    data: Path | None = None
    labels: Path | None = None
    assignments: Sequence[str] = ()
    series: Path | None = None
    allow_leak: Sequence[str] = ()
    from_scratch: bool = False
    fetch: bool = False
    resume: Path | None = None
    start_or_resume: bool = False
    slim: bool = False
    case_timeout_s: float | None = None
    run: RunOptions = field(default_factory=RunOptions)
    command: str = ""
    folder: Path = Path()

    def all_assignments(self) -> tuple[str, ...]:
        """Every key of the preset that these options change, as ``key=value``."""
        scratch = ("model.from_scratch=true",) if self.from_scratch else ()
        return (*self.assignments, *self.run.assignments(), *scratch)


@dataclass(frozen=True)
class TrainResult:
    """Where the run is, its checkpoint, its headline number and how to use it.

    ``failed`` are the cases that could not be prepared, answered, written or drawn, of every fold
    where several were trained. ``first`` is False in every process of several nodes but the one
    that speaks for all.
    """

    run: Path
    checkpoint: Path
    report: Path | None
    scores: dict[str, Any]
    infer_line: str
    failed: frozenset[str] = frozenset()
    first: bool = True

    @property
    def failures(self) -> int:
        """How many cases failed."""
        return len(self.failed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; of the scores the metrics."""
        return {
            "run": str(self.run),
            "checkpoint": str(self.checkpoint),
            "report": str(self.report or ""),
            "infer": self.infer_line,
            "failures": self.failures,
            "scores": {part: document["metrics"] for part, document in self.scores.items()},
        }
