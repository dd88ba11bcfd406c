"""``medtool evaluate``: the door to ``medtool.verbs.evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtool.cli.console import Console, table
from medtool.cli.evaluate_flags import (
    By,
    Checkpoints,
    IdColumn,
    LabelColumn,
    Out,
    Seen,
    Subgroup,
    Subjects,
    Threshold,
)
from medtool.cli.flags import (
    AllowDemo,
    Cache,
    Data,
    Device,
    Force,
    Json,
    Labels,
    Precision,
    Quiet,
    Seed,
    Workers,
)
from medtool.cli.words import command_line

if TYPE_CHECKING:
    from medtool.verbs.evaluate_result import Evaluated, Evaluation


def command(
    subjects: Subjects = None,
    checkpoints: Checkpoints = None,
    data: Data = None,
    labels: Labels = None,
    by: By = "case",
    threshold: Threshold = None,
    subgroups: Subgroup = None,
    seen: Seen = "refuse",
    id_column: IdColumn = None,
    label_column: LabelColumn = None,
    allow_demo: AllowDemo = False,
    seed: Seed = None,
    output: Out = None,
    force: Force = False,
    as_json: Json = False,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = None,
    cache: Cache = None,
    quiet: Quiet = False,
) -> int:
    """Score stored predictions, a run, or a checkpoint on data; compare two."""
    from medtool.verbs.evaluate import evaluate, evaluate_options

    console = Console(quiet=quiet)
    result = evaluate(
        evaluate_options(
            subjects or (),
            checkpoints or (),
            by=by,
            seen=seen,
            id_column=id_column,
            label_column=label_column,
            data=data,
            labels=labels,
            output=output,
            threshold=threshold,
            subgroups=tuple(subgroups or ()),
            allow_demo=allow_demo,
            seed=seed or 0,
            run={"device": device, "precision": precision, "workers": workers, "cache": cache},
            force=force,
            command=command_line(),
        ),
        console,
    )
    if as_json:
        console.json(result.document())
    else:
        _show(console, result)
    return 1 if any(one.silent for one in result.evaluated) else 0


def _show(console: Console, result: Evaluation) -> None:
    for one in result.evaluated:
        _show_one(console, one)
    if result.comparison is not None:
        for line in result.comparison.lines():
            console.result(line)
    if result.report is not None:
        console.result(str(result.report))


def _show_one(console: Console, one: Evaluated) -> None:
    from medtool.score.confounders import confounders_text

    console.result(one.name + (f"  ({one.scores.optimistic})" if one.scores.optimistic else ""))
    console.result(table(one.lines(), indent="  "))
    if alone := confounders_text(one.confounders):
        console.result(f"  {alone}")
    for note in one.scores.notes:
        console.result(f"  {note}")
