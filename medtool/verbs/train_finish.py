"""The end of a run: threshold, predictions of the parts, scores, report, and how to use it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.checkpoint import BEST_NAME, read_header, rewrite_checkpoint
from medtool.core.files import file_sha256
from medtool.core.progress import Reporter
from medtool.core.records import SELECTION_OPTIMISTIC, Part, Scores
from medtool.data.cache import read_prepared
from medtool.data.leakage import leakage_gate
from medtool.data.run_folder import RunFolder, fold_name, write_json
from medtool.data.run_record import now_utc
from medtool.nets.device import choose_device, choose_precision
from medtool.nets.state import load_network
from medtool.predict.layout import ready_to_answer
from medtool.predict.model import Model, with_companions
from medtool.report.page import write_report
from medtool.score.completion import completed
from medtool.score.confounders import confounders_text
from medtool.score.document import scores_to_document
from medtool.verbs.train_answers import answer_part, score_part, training_answers
from medtool.verbs.train_folds import join_folds
from medtool.verbs.train_options import TrainOptions, TrainResult
from medtool.verbs.train_prepare import Ready
from medtool.verbs.train_run import new_network

if TYPE_CHECKING:
    from medtool.core.task import Task

# Of a checkpoint's document: the tables that the end of a run added.
DECIDED = "decided"
LEAK_OPTIMISTIC = "patients or pixels on both sides of the split were allowed, optimistic"


def finish(
    ready: Ready,
    options: TrainOptions,
    run: RunFolder,
    reporter: Reporter,
    *,
    clock: float,
) -> TrainResult:
    """Choose the threshold on the selection part, then answer and score both held-out parts."""
    best = run.checkpoints_folder / BEST_NAME
    task, data = ready.order.task, ready.data
    began = time.perf_counter()
    _undecided(best)
    model = _model(task, best, options)
    leaks = _allowed_leaks(ready, options)
    why = {"selection": SELECTION_OPTIMISTIC, "test": LEAK_OPTIMISTIC if leaks else ""}
    parts: dict[str, Scores] = {}
    lacking: dict[str, str] = {}
    with reporter.progress("Scoring", None) as advance:
        if _keep(best, task.settle(training_answers(ready, model, options, advance))):
            model = _model(task, best, options)
        answers = answer_part(run, ready, model, "selection", options, advance)
        if _keep(best, task.decide(answers.predictions, answers.truths)):
            # What was decided is part of the answers: the same weights answer again.
            model = _model(task, best, options)
            answers = answer_part(run, ready, model, "selection", options, advance)
        held_out: tuple[Part, ...] = ("selection", "test")
        for part in held_out:
            cases = data.part(part)
            if not cases:
                continue
            if part != "selection":
                answers = answer_part(run, ready, model, part, options, advance)
            scores, found = score_part(answers, ready.cache)
            lacking |= found
            scores = replace(scores, optimistic=why[part] or scores.optimistic)
            parts[part] = completed(
                scores,
                facts={case.case_id: {**case.covariates, **case.facts} for case in cases},
                subgroups=task.settings.metrics.subgroups,
                metrics=task.settings.metrics,
                selection=parts.get("selection"),
            )
    documents = {part: scores_to_document(scores) for part, scores in parts.items()}
    write_json(run.scores_file, documents)
    _keep_scores(run, best, parts, options)
    document = run.read_run()
    document["seconds"] = {
        **document.get("seconds", {}),
        "scoring": round(time.perf_counter() - began, 1),
        "all": round(time.perf_counter() - clock, 1),
    }
    document["ended_utc"] = now_utc()
    document["checkpoint_sha256"] = file_sha256(best)
    infer_line = f"medtool infer SCANS --checkpoint {best} -o OUT"
    document["infer"] = infer_line
    unanswered = [f"{case}: {what}" for case, what in lacking.items()]
    document["notes"] = [*document.get("notes", ()), *leaks, *unanswered]
    run.write_run(document)
    run.tell_second_names(reporter.warn)
    for line in unanswered:
        reporter.warn(line)
        run.log(line)
    report = write_report(run, task.sections(run))
    alone = confounders_text(data.confounders)
    for line in filter(None, [*headline(parts, task.settings.metrics.primary), alone]):
        reporter.say(line)
        run.log(line)
    if options.run.fold is not None and run.path.name == fold_name(options.run.fold):
        joined = join_folds(task, run.path.parent, data.cases, reporter)
        report = joined or report
    return TrainResult(
        run=run.path,
        checkpoint=best,
        report=report,
        scores=documents,
        infer_line=infer_line,
        failed=frozenset([*(failure.case_id for failure in ready.failures), *lacking]),
    )


def _allowed_leaks(ready: Ready, options: TrainOptions) -> list[str]:
    """What the leakage gate let pass because a person named it."""
    data = ready.data
    facts = {c.case_id: read_prepared(ready.cache.path(c), names=()).facts for c in data.cases}
    hashes = {name: list(fact.get("slice_hashes", ())) for name, fact in facts.items()}
    found = leakage_gate(data.cases, data.split.parts, hashes, allow=options.allow_leak)
    return [finding.message for finding in found]


def _model(task: Task, path: Path, options: TrainOptions) -> Model:
    """The checkpoint, ready to answer; the task need not be registered."""
    header = read_header(path)
    task = task.with_document(header.document)
    device = choose_device(options.run.device)
    network = new_network(task)
    load_network(path, network)
    precision = task.settings.train.precision
    model = Model(
        task=task,
        network=ready_to_answer(network, device),
        device=device,
        autocast_type=choose_precision(precision, device),
        header=header,
        path=path,
        found=str(path),
    )
    return with_companions(model, device=options.run.device, precision=precision)


def _keep(best: Path, decided: Mapping[str, Any]) -> bool:
    """Write into the checkpoint what the task decided at the end; whether there is anything."""
    if not decided:
        return False
    document = read_header(best).document
    merged: dict[str, Any] = {
        name: {**document.get(name, {}), **value} if isinstance(value, Mapping) else value
        for name, value in decided.items()
    }
    new = {n for n, value in decided.items() if isinstance(value, Mapping) and n not in document}
    if new:
        merged[DECIDED] = sorted({*document.get(DECIDED, ()), *new})
    rewrite_checkpoint(best, best, merged)
    return True


def _undecided(best: Path) -> None:
    """Take back what an earlier end of this run decided, for it was decided from plain answers."""
    document = read_header(best).document
    if document.get(DECIDED):
        rewrite_checkpoint(best, best, {name: {} for name in document[DECIDED]})


def _keep_scores(
    run: RunFolder, best: Path, parts: Mapping[str, Scores], options: TrainOptions
) -> None:
    """Metrics with their intervals into the best checkpoint and checkpoints.csv."""
    document = read_header(best).document
    metrics = {
        **document["metrics"],
        "scores": {
            part: {
                "optimistic": scores.optimistic,
                "metrics": {
                    name: {"value": s.value, "low": s.low, "high": s.high, "n": s.n}
                    for name, s in scores.metrics.items()
                },
            }
            for part, scores in parts.items()
        },
    }
    rewrite_checkpoint(best, best, {"metrics": metrics})
    # The table may be older than the files, where another program held it open.
    kept = run.checkpoints_folder
    rows = [row for row in run.read_checkpoints() if (kept / row["file"]).is_file()]
    primary = document["metrics"]["primary"]
    chosen = parts["selection"].metrics.get(primary) if "selection" in parts else None
    for row in rows:
        path = kept / row["file"]
        if row["kind"] == "best":
            row["threshold"] = document.get("threshold")
            if chosen is not None:
                row.update(value=chosen.value, low=chosen.low, high=chosen.high)
        elif options.slim:
            rewrite_checkpoint(path, path, {}, slim=True)
        row["sha256"] = file_sha256(path)
    if options.slim:
        rewrite_checkpoint(best, best, {}, slim=True)
        for row in rows:
            row["sha256"] = file_sha256(kept / row["file"])
    run.write_checkpoints(rows)
    # Whoever looked at a table while the run learned may have closed it by now.
    run.second_names.settle()


def headline(parts: Mapping[str, Scores], primary: str) -> list[str]:
    """One line for each part: the primary metric with its interval and what it is worth."""
    lines = []
    for part, scores in parts.items():
        score = scores.metrics.get(primary)
        if score is None:
            continue
        note = f" ({scores.optimistic})" if scores.optimistic else ""
        lines.append(
            f"{part}: {primary} {score.value:.3f} ({score.low:.3f} to {score.high:.3f}, "
            f"n = {score.n}){note}"
        )
    return lines
