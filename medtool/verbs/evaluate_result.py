"""What ``evaluate`` gives back: scores of one model or two, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medtool.config.sections import MetricsSection
from medtool.core.records import Finding, Score, Scores
from medtool.data.run_folder import write_json
from medtool.score.compare import Comparison
from medtool.score.document import scores_to_document
from medtool.score.paired import MaskComparison

SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class Evaluated:
    """One model's scores, and what was left out of them."""

    name: str
    scores: Scores
    confounders: tuple[Mapping[str, Any], ...]
    unlabelled: int
    silent: Mapping[str, str]
    folders: tuple[Path, ...]

    def page_row(self, metrics: MetricsSection, header: Mapping[str, Any] | None) -> dict[str, Any]:
        """What the page of the evaluation needs of this model, but for its cases."""
        return {
            "name": self.name,
            "scores": self.scores,
            "confounders": self.confounders,
            "metrics": metrics.model_dump(mode="json"),
            "folders": self.folders,
            "synthetic": bool((header or {}).get("synthetic")),
        }

    def lines(self) -> list[tuple[str, ...]]:
        """The metrics as cells of text, heads first: what a person reads on the screen."""
        heads = ("metric", "value", "interval", "n", "trivial", "convention")
        return [heads, *(_cells(score) for score in self.scores.metrics.values())]


@dataclass(frozen=True)
class Evaluation:
    """What was found; ``report`` is there when an output was asked for."""

    evaluated: tuple[Evaluated, ...]
    comparison: Comparison | MaskComparison | None
    findings: tuple[Finding, ...]
    report: Path | None = None

    def written(
        self, folder: Path, rows: Sequence[Mapping[str, Any]], *, command: str
    ) -> Evaluation:
        """The same with its scores and its page (one row a model) written into ``folder``."""
        from medtool.report.evaluation import write_evaluation_report

        write_json(folder / SCORES_FILE, self.document())
        page = write_evaluation_report(
            folder, evaluated=rows, comparison=self.comparison, command=command
        )
        return replace(self, report=page)

    def document(self) -> dict[str, Any]:
        """Plain JSON: {"evaluated": [...], "comparison": ...}."""
        return {
            "evaluated": [
                {
                    "name": one.name,
                    "scores": scores_to_document(one.scores),
                    "confounders": [dict(row) for row in one.confounders],
                    "without_label": one.unlabelled,
                    "without_answer": dict(one.silent),
                }
                for one in self.evaluated
            ],
            "comparison": asdict(self.comparison) if self.comparison else None,
            "findings": [asdict(finding) for finding in self.findings],
        }


def _cells(score: Score) -> tuple[str, ...]:
    return (
        score.name,
        _digits(score.value),
        f"{_digits(score.low)} to {_digits(score.high)}" if math.isfinite(score.low) else "-",
        str(score.n),
        _digits(score.trivial),
        score.convention,
    )


def _digits(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
