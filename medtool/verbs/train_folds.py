"""The folds of one run together: every patient answered once by a model that never saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.progress import Reporter
from medtool.core.records import Prediction, Scores, Truth
from medtool.data.predictions import ELEMENTS_FILE, PREDICTIONS_FILE, read_predictions
from medtool.data.run_folder import RunFolder, fold_folders, read_rows, write_json, write_rows
from medtool.report.page import write_report
from medtool.score.completion import completed
from medtool.score.document import scores_from_document, scores_to_document

if TYPE_CHECKING:
    from medtool.core.task import Task

OUT_OF_FOLD = "out-of-fold"


def join_folds(task: Task, parent: Path, folds: int, reporter: Reporter) -> Path | None:
    """Score the test parts of all folds as one, once all are there; gives the joint report.

    A metric is computed on all out-of-fold predictions together, its interval by patient: folds
    are not independent, so their numbers are never averaged.
    """
    done = [run for run in fold_folders(parent) if run.scores_file.is_file()]
    if len(done) < folds:
        reporter.say(f"{len(done)} of {folds} folds are done: joint scores come with the last.")
        return None
    rows: list[Mapping[str, str]] = []
    fold_of: dict[str, str] = {}
    for run in done:
        answered = [
            row
            for row in read_predictions(run.predictions_folder / "test")
            if row["status"] == "ok"
        ]
        rows += answered
        fold_of |= {row["case"]: run.path.name for row in answered}
    cases = _cases(done)
    labels = {row["case"]: float(row["label"]) for row in cases if row["label"]}
    said = [str(run.read_scores().get("test", {}).get("optimistic", "")) for run in done]
    scores = completed(
        _scores(task, [row for row in rows if row["case"] in labels], labels),
        facts={row["case"]: {k: v for k, v in row.items() if v != ""} for row in cases},
        subgroups=task.settings.metrics.subgroups,
        metrics=task.settings.metrics,
        selection={run.path.name: _selection(run) for run in done},
        folds=fold_of,
    )
    scores = replace(scores, optimistic=next(filter(None, said), ""))
    joint = RunFolder(parent)
    write_json(joint.scores_file, {OUT_OF_FOLD: scores_to_document(scores)})
    write_rows(joint.predictions_folder / OUT_OF_FOLD / PREDICTIONS_FILE, rows)
    _join_elements(joint, done)
    joint.write_cases(cases)
    joint.write_run(_document(done))
    joint.preset_file.write_bytes(done[0].preset_file.read_bytes())
    joint.intake_file.write_bytes(done[0].intake_file.read_bytes())
    primary = task.settings.metrics.primary
    if primary in scores.metrics:
        score = scores.metrics[primary]
        reporter.say(
            f"All {folds} folds, out of fold: {primary} {score.value:.3f} "
            f"({score.low:.3f} to {score.high:.3f}, n = {score.n})"
        )
    return write_report(joint, task.sections(joint))


def _scores(task: Task, rows: Sequence[Mapping[str, str]], labels: Mapping[str, float]) -> Scores:
    predictions = [_prediction(task, row) for row in rows]
    truths = [Truth(p.case_id, p.patient_id, labels[p.case_id]) for p in predictions]
    scores = task.score(predictions, truths)
    thresholds = [p.scalars["threshold"] for p in predictions if "threshold" in p.scalars]
    if not thresholds:
        return scores
    spread = f"{min(thresholds):.3f} to {max(thresholds):.3f}"
    note = f"Each fold chose its own threshold ({spread}) and decides its own cases."
    return replace(scores, notes=(*scores.notes, note))


def _selection(run: RunFolder) -> Scores:
    """The selection part of one fold, as it was scored."""
    return scores_from_document(run.read_scores()["selection"])


def _prediction(task: Task, row: Mapping[str, str]) -> Prediction:
    scalars: dict[str, Any] = {}
    for name, (kind, _, _) in task.columns.items():
        text = row.get(name, "")
        if text != "":
            scalars[name] = float(text) if kind == "float" else text
    return Prediction(row["case"], row["patient"], scalars)


def _cases(done: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Each case with the part that it was scored in; all folds found the same cases."""
    tested = {row["case"] for run in done for row in run.read_cases() if row.get("part") == "test"}
    return [
        {**row, "part": "test" if row["case"] in tested else ""} for row in done[0].read_cases()
    ]


def _join_elements(joint: RunFolder, done: Sequence[RunFolder]) -> None:
    files = [run.predictions_folder / "test" / ELEMENTS_FILE for run in done]
    rows = [row for file in files if file.is_file() for row in read_rows(file)]
    if rows:
        write_rows(joint.predictions_folder / OUT_OF_FOLD / ELEMENTS_FILE, rows)


def _document(done: Sequence[RunFolder]) -> dict[str, Any]:
    runs = [run.read_run() for run in done]
    kept = (
        *("notice", "verb", "command", "versions", "machine", "environment", "started_utc"),
        *("task", "preset", "confounders"),
    )
    return {
        **{key: runs[0][key] for key in kept if key in runs[0]},
        "ended_utc": max(str(run.get("ended_utc", "")) for run in runs),
        "synthetic": any(run.get("synthetic") for run in runs),
        "failures": runs[0].get("failures", []),
        "weights": runs[0].get("weights", {}),
        "folds": [run.path.name for run in done],
        "split": {"scheme": "folds", "folds": len(done), "optimistic": False},
        "notes": [f"Joined from {len(done)} folds: one model each, scored on what it never saw."],
    }
