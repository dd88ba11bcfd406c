"""``runs``: the runs below a folder, each with its metric and interval."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtool.core.errors import InputError
from medtool.core.records import SELECTION_OPTIMISTIC
from medtool.data.run_folder import RunFolder, find_runs, fold_folders

# From the most honest part to the least.
PARTS = ("test", "out-of-fold", "selection")


@dataclass(frozen=True)
class RunLine:
    """One run. ``value`` is None where nothing was scored or is undefined."""

    run: str
    task: str
    preset: str
    state: str
    epochs: int
    metric: str
    part: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    optimistic: str
    synthetic: bool
    started: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def list_runs(root: Path) -> list[RunLine]:
    """Every run at or below ``root``, newest last; a run with a damaged file is named as such."""
    lines = [_line(run, root) for run in find_runs(root)]
    return sorted(lines, key=lambda line: (line.started, line.run))


def _line(run: RunFolder, root: Path) -> RunLine:
    name = run.path.relative_to(root).as_posix() if run.path != root else run.path.name
    try:
        document = run.read_run()
        scores = run.read_scores() if run.scores_file.is_file() else {}
        history = run.read_history() if run.history_file.is_file() else []
        checkpoints = run.read_checkpoints() if run.checkpoints_file.is_file() else []
    except InputError as error:
        return RunLine(
            name, "", "", f"damaged: {error.where}", 0, "", "", None, None, None, 0, "", False, ""
        )
    metric = str(next((row["metric"] for row in checkpoints if row["metric"]), ""))
    part = next((part for part in PARTS if part in scores), "")
    found = scores.get(part, {}).get("metrics", {})
    # Joined folds have no checkpoint of their own.
    metric = metric or _primary(run) or next(iter(found), "")
    score: Mapping[str, Any] = found.get(metric) or {}
    return RunLine(
        run=name,
        task=str(document.get("task", "")),
        preset=str(document.get("preset", "")),
        state=_state(run, document, scores),
        epochs=len(history),
        metric=metric,
        part=part,
        value=score.get("value"),
        low=score.get("low"),
        high=score.get("high"),
        n=int(score.get("n") or 0),
        optimistic=str(scores.get(part, {}).get("optimistic") or "")
        or (SELECTION_OPTIMISTIC if part == "selection" else ""),
        synthetic=bool(document.get("synthetic")),
        started=str(document.get("started_utc", "")),
    )


def _primary(run: RunFolder) -> str:
    """The primary metric that the run's preset names; "" where it cannot be read."""
    try:
        preset = tomllib.loads(run.preset_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    metrics = preset.get("metrics")
    return str(metrics.get("primary", "")) if isinstance(metrics, dict) else ""


def _state(run: RunFolder, document: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    if document.get("ended_utc") and scores:
        return f"{len(fold_folders(run.path))} folds joined" if document.get("folds") else "done"
    return "not finished"
