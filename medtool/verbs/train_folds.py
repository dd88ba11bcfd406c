"""The folds of one run together: every patient answered once by a model that never saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.lazy import Lazily
from medtool.core.progress import Reporter
from medtool.core.records import Case, Scores
from medtool.data.fold_files import read_folds, write_folds
from medtool.data.matching import shown
from medtool.data.predictions import ELEMENTS_FILE, PREDICTIONS_FILE, read_predictions
from medtool.data.run_folder import RunFolder, fold_folders, read_rows, write_json
from medtool.report.page import write_report
from medtool.score.completion import completed
from medtool.score.document import scores_from_document, scores_to_document

if TYPE_CHECKING:
    from medtool.core.task import Task

OUT_OF_FOLD = "out-of-fold"


def join_folds(task: Task, parent: Path, cases: Sequence[Case], reporter: Reporter) -> Path | None:
    """Score the test parts of all folds as one, once all are there; gives the joint report.

    ``cases`` are all of the run, with their references.

    Where a case was tested in two folds there are none: it would count twice, which is said.

    A metric is computed on all out-of-fold predictions together, its interval by patient: folds
    are not independent, so their numbers are never averaged.
    """
    folds = task.settings.train.folds
    done = [run for run in fold_folders(parent) if run.scores_file.is_file()]
    if len(done) < folds:
        reporter.say(f"{len(done)} of {folds} folds are done: joint scores come with the last.")
        return None
    rows: list[Mapping[str, str]] = []
    silent = 0
    fold_of: dict[str, str] = {}
    folder_of: dict[str, Path] = {}
    for run in done:
        told = read_predictions(run.predictions_folder / "test")
        if twice := [row["case"] for row in told if row["case"] in fold_of]:
            reporter.warn(_tested_twice(twice, fold_of[twice[0]], run.path.name))
            return None
        answered = [row for row in told if row["status"] == "ok"]
        silent += len(told) - len(answered)
        rows += answered
        fold_of |= {row["case"]: run.path.name for row in told}
        folder_of |= {row["case"]: run.predictions_folder / "test" for row in answered}
    table = _cases(done)
    known = {case.case_id: case for case in cases if task.has_reference(case)}
    said = [str(run.read_scores().get("test", {}).get("optimistic", "")) for run in done]
    scores = completed(
        _scores(task, [row for row in rows if row["case"] in known], folder_of, known),
        facts={row["case"]: {k: v for k, v in row.items() if v != ""} for row in table},
        subgroups=task.settings.metrics.subgroups,
        metrics=task.settings.metrics,
        selection={run.path.name: _selection(run) for run in done},
        folds=fold_of,
    )
    scores = replace(scores, optimistic=next(filter(None, said), ""))
    if silent:
        note = f"Without an answer and not in the numbers: {silent} of {silent + len(rows)} cases."
        scores = replace(scores, notes=(*scores.notes, note))
    joint = RunFolder(parent)
    write_json(joint.scores_file, {OUT_OF_FOLD: scores_to_document(scores)})
    joint.write_table(joint.predictions_folder / OUT_OF_FOLD / PREDICTIONS_FILE, rows)
    _join_elements(joint, done)
    joint.write_cases(table)
    joint.tell_second_names(reporter.warn)
    if all(run.folds_file.is_file() for run in done):
        write_folds(joint.folds_file, [fold for run in done for fold in read_folds(run.folds_file)])
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


def _tested_twice(cases: Sequence[str], first: str, second: str) -> str:
    return (
        f"Folds that test the same cases are not joined ({shown(cases)}: in {first} and {second}). "
        "Each fold has its own scores; for joint ones mend the split file, and begin a new run."
    )


def _scores(
    task: Task,
    rows: Sequence[Mapping[str, str]],
    folder_of: Mapping[str, Path],
    known: Mapping[str, Case],
) -> Scores:
    scores = task.score(
        Lazily(lambda row: task.restored(row, folder_of[row["case"]]), rows),
        Lazily(lambda row: task.truth(known[row["case"]]), rows),
    )
    thresholds = [float(row["threshold"]) for row in rows if row.get("threshold")]
    if not thresholds:
        return scores
    spread = f"{min(thresholds):.3f} to {max(thresholds):.3f}"
    note = f"Each fold chose its own threshold ({spread}) and decides its own cases."
    return replace(scores, notes=(*scores.notes, note))


def _selection(run: RunFolder) -> Scores:
    """The selection part of one fold, as it was scored."""
    return scores_from_document(run.read_scores()["selection"])


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
        joint.write_table(joint.predictions_folder / OUT_OF_FOLD / ELEMENTS_FILE, rows)


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
        "plan": _common_plan(runs),
        "folds": [run.path.name for run in done],
        "split": {"scheme": "folds", "folds": len(done), "optimistic": False},
        "notes": [f"Joined from {len(done)} folds: one model each, scored on what it never saw."],
    }


def _common_plan(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The stages as every fold was trained; none where ``--minutes`` squeezed them differently."""
    stages = [run.get("plan", {}).get("stages", []) for run in runs]
    return {"stages": stages[0] if all(one == stages[0] for one in stages) else []}
