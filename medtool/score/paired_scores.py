"""Two models by their kept scores: masks case by case, risks patient by patient, no image read."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

from medtool.core.records import Scores
from medtool.score.classification import MetricSettings
from medtool.score.paired import PairedDifference, adjusted, compare_segmentations
from medtool.score.segmentation_columns import BY_CASE, ScoredCase
from medtool.score.survival_paired import compare_risks
from medtool.score.survival_summary import PATIENTS, SURVIVAL


def compare_scores(
    first: Scores, second: Scores, *, metrics: MetricSettings | None = None, seed: int = 0
) -> list[PairedDifference]:
    """The first beside the second on the cases and patients that both answered.

    p values are adjusted for all comparisons; [] where nothing is common. Raises UsageError where
    models were scored for different structures, or with different outcomes.
    """
    found: list[PairedDifference] = []
    ours, theirs = _scored_cases(first), _scored_cases(second)
    if common := sorted(ours.keys() & theirs.keys()):
        found += compare_segmentations(
            [ours[name] for name in common],
            [theirs[name] for name in common],
            metrics=metrics,
            seed=seed,
        )
    risks = compare_risks(_patients(first), _patients(second), metrics=metrics, seed=seed)
    return adjusted([*found, risks] if risks else found)


def _patients(scores: Scores) -> list[Mapping[str, Any]]:
    return list((scores.tables.get(SURVIVAL) or {}).get(PATIENTS) or ())


def _scored_cases(scores: Scores) -> dict[str, ScoredCase]:
    """The rows of each case, as they were scored."""
    rows: dict[str, list[dict[str, Any]]] = {}
    patients: dict[str, str] = {}
    for row in scores.tables.get(BY_CASE) or ():
        # Scores that were kept in a file hold None for what is undefined.
        known = {name: nan if value is None else value for name, value in row.items()}
        rows.setdefault(str(row["case"]), []).append(known)
        patients[str(row["case"])] = str(row["patient"])
    return {name: ScoredCase(name, patients[name], own) for name, own in rows.items()}
