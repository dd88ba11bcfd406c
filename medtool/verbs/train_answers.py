"""The answers of a trained model for the parts of its own run, written as ``infer`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from medtool.core.errors import InputError
from medtool.core.names import case_file_stem
from medtool.core.records import Case, Part, Prediction, Scores
from medtool.data.cache import Cache
from medtool.data.run_folder import RunFolder
from medtool.predict.answers import Answers
from medtool.predict.cases import CaseOutcome, predict_cases
from medtool.predict.model import Model
from medtool.predict.unwritten import why_unwritten
from medtool.score.examples import best_and_median, worst_cases
from medtool.verbs.infer import InferOptions
from medtool.verbs.infer_output import Output, OutputPlace, guard
from medtool.verbs.infer_rows import RowMaker
from medtool.verbs.options import timeout_of
from medtool.verbs.train_options import TrainOptions
from medtool.verbs.train_prepare import Ready

if TYPE_CHECKING:
    from medtool.core.progress import Advance


def answer_part(
    run: RunFolder,
    ready: Ready,
    model: Model,
    part: Part,
    options: TrainOptions,
    advance: Advance,
) -> Answers:
    """Write predictions/<part>/ as ``infer`` does; masks of many cases are never held together.

    Raises InputError where no case has an answer.
    """
    folder = run.predictions_folder / part
    place = OutputPlace.of(folder)
    guard(place, force=True, resume=False)
    # Of a pass that a kill broke off, perhaps with another model: every case is answered anew.
    place.journal.unlink(missing_ok=True)
    wanted = InferOptions(
        sources=(),
        checkpoint=model.path,
        output=folder,
        by="case",
        run=options.run,
        command=options.command,
    )
    maker = RowMaker(model, wanted, place)
    cases = ready.data.part(part)
    kept: dict[str, Prediction] = {}
    with closing(Output(place, maker.identity())) as output:
        for outcome in _outcomes(ready, model, cases, options):
            output.add(maker.entry(outcome))
            if outcome.prediction is not None and not outcome.prediction.arrays:
                kept[outcome.case.case_id] = outcome.prediction
            advance(1)
        rows, elements = maker.tables(output.entries([case.case_id for case in cases]))
        output.write_tables(rows, elements, maker.columns)
        output.finish(maker.record(output, rows, {"series": [], "skipped": []}, startup_s=0.0))
    ok = {str(row["case"]): row for row in rows if row["status"] == "ok"}
    failed = {
        str(row["case"]): str(row["message"] or row["code"])
        for row in rows
        if row["status"] != "ok"
    }
    task = model.task
    known = tuple(c for c in cases if c.case_id in ok and task.has_reference(c))
    answers = Answers(task, folder, known, ok, kept, failed)
    if not known:
        raise InputError(
            f"No case of the part {part} has an answer to score.",
            where=str(place.table),
            met=answers.note or f"{len(ok)} answers, none with a reference",
            how="mend what the table names, then go on with the run: --resume.",
        )
    return answers


def _outcomes(
    ready: Ready, model: Model, cases: Sequence[Case], options: TrainOptions
) -> Iterator[CaseOutcome]:
    outcomes = predict_cases(
        model,
        cases,
        cache=ready.cache,
        # Everything is prepared: this process reads it.
        workers=0,
        case_timeout_s=timeout_of(options.case_timeout_s, model.task),
    )
    return (replace(outcome, prepared=None) for outcome in outcomes)


def training_answers(
    ready: Ready, model: Model, options: TrainOptions, advance: Advance
) -> Iterator[tuple[Case, Prediction]]:
    """The training cases that the task wants to settle things by, each with its answer.

    Nothing of them is written: these answers are of patients that the model knows.
    """
    cases = [case for case in ready.data.part("train") if model.task.settles(case)]
    for outcome in _outcomes(ready, model, cases, options):
        if outcome.prediction is not None:
            yield outcome.case, outcome.prediction
        advance(1)


def score_part(answers: Answers, cache: Cache) -> tuple[Scores, dict[str, str]]:
    """The scores of a part, and by case what is lacking: its answer, or its picture.

    Pictures of the cases that the report shows are written beside it. A case that cannot be drawn
    is scored all the same: those that are drawn are the worst ones, and the numbers would flatter
    without them.
    """
    task = answers.task
    scores = task.score(answers.predictions, answers.truths)
    worst = worst_cases(scores.per_case, task.settings.report.worst_cases)
    examples = best_and_median(scores.per_case).values() if worst else ()
    shown = {str(row["case"]) for row in (*worst, *examples)}
    lacking = {case: f"no answer: {why}" for case, why in answers.failed.items()}
    for case in answers.cases:
        if case.case_id not in shown:
            continue
        pictures = answers.folder / "overlays" / case_file_stem(case.case_id)
        try:
            task.picture(answers.prediction(case), cache.load(case), case, pictures)
        except Exception as error:  # noqa: BLE001 - one case must not end the others
            _, why = why_unwritten(error, pictures)
            lacking[case.case_id] = f"scored, but not drawn: {why}"
    return replace(scores, notes=(*scores.notes, *filter(None, [answers.note]))), lacking
