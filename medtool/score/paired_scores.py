"""Two models by their kept scores, masks and classes case by case, risks patient by patient.

No image is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medtool.core.records import Scores
from medtool.score.classes_paired import CLASSES, compare_classes
from medtool.score.classification import MetricSettings
from medtool.score.paired import PairedDifference, adjusted, compare_segmentations
from medtool.score.segmentation_columns import scored_cases
from medtool.score.survival_paired import compare_risks
from medtool.score.survival_summary import PATIENTS, SURVIVAL


def compare_scores(
    first: Scores, second: Scores, *, metrics: MetricSettings | None = None, seed: int = 0
) -> list[PairedDifference]:
    """The first beside the second on the cases and patients that both answered.

    p values are adjusted for all comparisons; [] where nothing is common. Raises UsageError where
    models were scored for different structures, or with different outcomes or classes.
    """
    found: list[PairedDifference] = []
    ours, theirs = scored_cases(first), scored_cases(second)
    if common := sorted(ours.keys() & theirs.keys()):
        found += compare_segmentations(
            [ours[name] for name in common],
            [theirs[name] for name in common],
            metrics=metrics,
            seed=seed,
        )
    found += compare_classes(_classes(first), _classes(second), metrics=metrics, seed=seed)
    risks = compare_risks(_patients(first), _patients(second), metrics=metrics, seed=seed)
    return adjusted([*found, risks] if risks else found)


def _classes(scores: Scores) -> list[Mapping[str, Any]]:
    return list(scores.tables.get(CLASSES) or ())


def _patients(scores: Scores) -> list[Mapping[str, Any]]:
    return list((scores.tables.get(SURVIVAL) or {}).get(PATIENTS) or ())
