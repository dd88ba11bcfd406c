"""``Scores`` as plain JSON and back: what scores.json holds. NaN is null in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite, nan
from typing import Any

import numpy as np

from medtool.core.errors import UsageError
from medtool.core.records import Score, Scores

FORMAT = "medtool-scores-1"
NUMBERS = ("value", "low", "high", "trivial")
# The table that names the metrics which a task tells first, where it has one.
TOLD_FIRST = "told_first"


def scores_to_document(scores: Scores) -> dict[str, Any]:
    """A dict of lists, texts and finite numbers; infinite and undefined numbers become None."""
    return {
        "format": FORMAT,
        "optimistic": scores.optimistic,
        "notes": list(scores.notes),
        "metrics": {name: _plain(vars(score)) for name, score in scores.metrics.items()},
        "tables": _plain(scores.tables),
        "per_case": [_plain(row) for row in scores.per_case],
    }


def scores_from_document(document: Mapping[str, Any]) -> Scores:
    """The scores that ``scores_to_document`` wrote; raises UsageError on anything else."""
    if document.get("format") != FORMAT:
        raise UsageError(
            "This is no document of scores.",
            met=f"format {document.get('format')!r}",
            wanted=FORMAT,
        )
    known = {field.name for field in fields(Score)}
    metrics = {}
    for name, stored in document.get("metrics", {}).items():
        values = {key: value for key, value in stored.items() if key in known}
        for key in NUMBERS:
            if values.get(key, 0.0) is None:
                values[key] = nan
        metrics[name] = Score(**values)
    return Scores(
        metrics=metrics,
        per_case=tuple(document.get("per_case", ())),
        tables=document.get("tables", {}),
        optimistic=str(document.get("optimistic", "")),
        notes=tuple(document.get("notes", ())),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value
