"""The end of a run: threshold, predictions of the parts, scores, report, and how to use it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.checkpoint import BEST_NAME, read_header, rewrite_checkpoint
from medtool.core.files import file_sha256
from medtool.core.names import safe_file_stem
from medtool.core.progress import Reporter
from medtool.core.records import SELECTION_OPTIMISTIC, Case, Part, Prediction, Scores, Truth
from medtool.data.cache import Cache, read_prepared
from medtool.data.leakage import leakage_gate
from medtool.data.run_folder import RunFolder, write_json
from medtool.data.run_record import now_utc
from medtool.nets.device import choose_device, choose_precision
from medtool.nets.state import load_network
from medtool.predict.cases import CaseOutcome, predict_cases
from medtool.predict.model import Model
from medtool.report.page import write_report
from medtool.score.completion import completed
from medtool.score.confounders import confounders_text
from medtool.score.document import scores_to_document
from medtool.score.threshold import choose_threshold, with_margin
from medtool.train.document import score_quantiles
from medtool.verbs.infer import InferOptions
from medtool.verbs.infer_output import Output, OutputPlace, guard
from medtool.verbs.infer_rows import RowMaker
from medtool.verbs.train_folds import join_folds
from medtool.verbs.train_options import TrainOptions, TrainResult
from medtool.verbs.train_prepare import Ready
from medtool.verbs.train_run import new_network

if TYPE_CHECKING:
    from medtool.core.task import Task

PROBABILITY = "probability"
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
    model = _model(task, best, options)
    leaks = _allowed_leaks(ready, options)
    why = {"selection": SELECTION_OPTIMISTIC, "test": LEAK_OPTIMISTIC if leaks else ""}
    parts: dict[str, Scores] = {}
    with reporter.progress("Scoring", None) as advance:
        selection = _predict(ready, model, data.part("selection"), options)
        advance(len(selection))
        _keep_threshold(task, best, selection)
        # The threshold is part of the answers: the same weights answer again, decided.
        model = _model(task, best, options)
        held_out: tuple[Part, ...] = ("selection", "test")
        for part in held_out:
            cases = data.part(part)
            if not cases:
                continue
            outcomes = _predict(ready, model, cases, options)
            advance(len(outcomes))
            scores = _write_part(run, ready, model, part, outcomes, options, why[part])
            parts[part] = completed(
                scores,
                facts={o.case.case_id: {**o.case.covariates, **o.case.facts} for o in outcomes},
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
    document["notes"] = [*document.get("notes", ()), *leaks]
    run.write_run(document)
    report = write_report(run, task.sections(run))
    alone = confounders_text(data.confounders)
    for line in filter(None, [*headline(parts, task.settings.metrics.primary), alone]):
        reporter.say(line)
        run.log(line)
    if options.run.fold is not None:
        joined = join_folds(task, run.path.parent, task.settings.train.folds, reporter)
        report = joined or report
    return TrainResult(
        run=run.path,
        checkpoint=best,
        report=report,
        scores=documents,
        infer_line=infer_line,
        failures=len(ready.failures),
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
    device = choose_device(options.run.device)
    network = new_network(task)
    load_network(path, network)
    network.to(device).eval()
    return Model(
        task=task,
        network=network,
        device=device,
        autocast_type=choose_precision(task.settings.train.precision, device),
        header=read_header(path),
        path=path,
        found=str(path),
    )


def _predict(
    ready: Ready, model: Model, cases: Sequence[Case], options: TrainOptions
) -> list[CaseOutcome]:
    outcomes = predict_cases(
        model,
        cases,
        cache=ready.cache,
        # Everything is prepared: this process reads it.
        workers=0,
        case_timeout_s=options.case_timeout_s or model.task.settings.infer.case_timeout_s,
    )
    return [replace(outcome, prepared=None) for outcome in outcomes]


def _answered(task: Task, outcomes: Sequence[CaseOutcome]) -> tuple[list[Prediction], list[Truth]]:
    ok = [o for o in outcomes if o.prediction is not None and o.case.label is not None]
    return [o.prediction for o in ok if o.prediction], [task.truth(o.case) for o in ok]


def _keep_threshold(task: Task, best: Path, selection: Sequence[CaseOutcome]) -> None:
    """Choose the decision threshold by the preset's rule and write it into the checkpoint."""
    if PROBABILITY not in task.columns:
        return
    predictions, truths = _answered(task, selection)
    probabilities = [float(p.scalars[PROBABILITY]) for p in predictions]
    metrics = task.settings.metrics
    threshold = choose_threshold(
        [float(truth.label or 0) for truth in truths],
        probabilities,
        metrics.threshold_rule,
        metrics.threshold_target,
        metrics.cost_false_positive,
        metrics.cost_false_negative,
    )
    if metrics.threshold_rule != "fixed":
        threshold = with_margin(threshold, probabilities)
    document = read_header(best).document
    training_range = {
        **document["training_range"],
        "score_quantiles": score_quantiles(probabilities),
    }
    rewrite_checkpoint(
        best,
        best,
        {
            "threshold": threshold,
            "threshold_rule": f"{metrics.threshold_rule} on the selection part",
            "training_range": training_range,
        },
    )


def _write_part(
    run: RunFolder,
    ready: Ready,
    model: Model,
    part: str,
    outcomes: Sequence[CaseOutcome],
    options: TrainOptions,
    optimistic: str,
) -> Scores:
    """Write predictions/<part>/ as ``infer`` does, with pictures of the worst; gives scores."""
    folder = run.predictions_folder / part
    place = OutputPlace.of(folder)
    guard(place, force=True, resume=False)
    maker = RowMaker(
        model,
        InferOptions(
            sources=(),
            checkpoint=model.path,
            output=folder,
            by="case",
            run=options.run,
            command=options.command,
        ),
        place,
    )
    output = Output(place, maker.identity())
    for outcome in outcomes:
        output.add(maker.entry(outcome))
    rows, elements = maker.tables(output.entries([o.case.case_id for o in outcomes]))
    output.write_tables(rows, elements, maker.columns)
    output.finish(maker.record(output, rows, {"series": [], "skipped": []}, startup_s=0.0))
    predictions, truths = _answered(model.task, outcomes)
    scores = model.task.score(predictions, truths)
    _pictures(model, ready.cache, outcomes, scores, folder)
    return replace(scores, optimistic=optimistic or scores.optimistic)


def _pictures(
    model: Model, cache: Cache, outcomes: Sequence[CaseOutcome], scores: Scores, folder: Path
) -> None:
    """Pictures of the cases that went most wrong, for the report."""
    worst = sorted(scores.per_case, key=lambda row: -float(row.get("error", 0.0)))
    names = [str(row["case"]) for row in worst[: model.task.settings.report.worst_cases]]
    for outcome in outcomes:
        if outcome.case.case_id in names and outcome.prediction is not None:
            pictures = folder / "overlays" / safe_file_stem(outcome.case.case_id)
            model.task.picture(outcome.prediction, cache.load(outcome.case), outcome.case, pictures)


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
    rows = run.read_checkpoints()
    primary = document["metrics"]["primary"]
    chosen = parts["selection"].metrics.get(primary) if "selection" in parts else None
    for row in rows:
        path = run.checkpoints_folder / row["file"]
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
            row["sha256"] = file_sha256(run.checkpoints_folder / row["file"])
    run.write_checkpoints(rows)


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
