"""What a task's own scoring cannot know: facts of the cases, and the part that chose thresholds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from medtool.core.records import Scores
from medtool.score.classification import (
    FoldSelections,
    MetricSettings,
    SelectionPart,
    binary_scores,
)
from medtool.score.mask_subgroups import mask_subgroup_table
from medtool.score.segmentation_columns import APART, scored_cases

# What a row of a two-class question has; rows of other questions are left as they are.
BINARY_ROW = {"case", "patient", "label", "probability", "threshold"}


def completed(
    scores: Scores,
    *,
    facts: Mapping[str, Mapping[str, Any]],
    subgroups: Sequence[str],
    metrics: MetricSettings,
    selection: Scores | Mapping[str, Scores] | None = None,
    folds: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Scores:
    """``scores`` with tables by subgroup, and sensitivities at thresholds of the selection part.

    ``selection`` is one part, or one for each fold, ``folds`` then names the fold of each case.
    ``facts`` are by case id; those of ``subgroups`` that no case has are left out. Scores of masks
    get the tables alone; of other questions they come back unchanged.
    """
    rows = scores.per_case
    if masks := scored_cases(scores):
        values = _values(masks, facts, subgroups)
        apart = scores.tables.get(APART, ())
        table = mask_subgroup_table(
            list(masks.values()), values, metrics=metrics, apart=apart, seed=seed
        )
        return replace(scores, tables={**scores.tables, "subgroups": table}) if table else scores
    if not rows or not rows[0].keys() >= BINARY_ROW:
        return scores
    again = binary_scores(
        [row["label"] for row in rows],
        [row["probability"] for row in rows],
        [row["patient"] for row in rows],
        threshold=[row["threshold"] for row in rows],
        metrics=metrics,
        subgroups=_values([row["case"] for row in rows], facts, subgroups),
        selection=_parts(selection, [(folds or {}).get(row["case"], "") for row in rows]),
        seed=seed,
    )
    fixed = {row["name"]: again.metrics[row["name"]] for row in again.tables["fixed_specificity"]}
    tables = {name: again.tables[name] for name in ("subgroups", "fixed_specificity")}
    return replace(scores, metrics={**scores.metrics, **fixed}, tables={**scores.tables, **tables})


def _values(
    cases: Collection[str], facts: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> dict[str, list[Any]]:
    """The value of each case of the facts that any of them has."""
    known = [name for name in names if any(name in facts.get(case, {}) for case in cases)]
    return {name: [facts.get(case, {}).get(name) for case in cases] for name in known}


def _parts(
    selection: Scores | Mapping[str, Scores] | None, folds: Sequence[str]
) -> SelectionPart | FoldSelections | None:
    if not isinstance(selection, Mapping):
        return _part(selection)
    parts = {name: _part(scores) for name, scores in selection.items()}
    known = {name: part for name, part in parts.items() if part is not None}
    return FoldSelections(known, folds)


def _part(selection: Scores | None) -> SelectionPart | None:
    rows = selection.per_case if selection is not None else ()
    if not rows:
        return None
    return SelectionPart([row["label"] for row in rows], [row["probability"] for row in rows])
