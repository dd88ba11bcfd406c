"""What ``medtool.core.task.Task`` promises for a task, one check for each promise."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medtool.core.errors import CaseRefused, MedtoolError, UsageError
from medtool.core.records import Case, Finding, Prepared, Source
from medtool.testing.workbench import Workbench


class BrokenContract(UsageError):
    """A task does not do what ``medtool.core.task.Task`` promises for it."""


def _require(condition: object, what: str, met: object = "") -> None:
    if not condition:
        raise BrokenContract(what, met=str(met))


def check_names(bench: Workbench) -> None:
    """Name, summary, settings and columns are declared as the command line needs them."""
    task = bench.task_class
    _require(task.name.isidentifier(), "The name must be a plain word.", task.name)
    _require(task.summary and "\n" not in task.summary, "The summary must be one line.")
    for name, column in task.columns.items():
        is_text = len(column) == 3 and all(isinstance(part, str) for part in column)
        _require(is_text and column[0], "A column needs type, unit and meaning.", name)


def check_settings(bench: Workbench) -> None:
    """Settings survive being written, refuse unknown keys, and travel to workers."""
    settings = bench.task.settings
    again = type(settings).model_validate(settings.as_dict())
    _require(again == settings, "Settings that are written and read back have changed.")
    try:
        type(settings).model_validate({**settings.as_dict(), "no_such_key": 1})
    except ValueError:
        pass
    else:
        raise BrokenContract("An unknown key in the settings must refuse.")
    copied = pickle.loads(pickle.dumps(bench.task))  # noqa: S301 - our own bytes of a line ago
    _require(copied.settings == settings, "The task must survive being sent to a worker.")


def check_demo(bench: Workbench) -> None:
    """The demo is found, every case is told apart and says that it is synthetic."""
    cases = bench.all_cases
    _require(cases, "Nothing is found in the task's own demo.")
    ids = [case.case_id for case in cases]
    _require(len(set(ids)) == len(ids), "Two cases share an id.")
    _require(all(case.patient_id for case in cases), "A case has no patient.")
    _require(
        all(case.facts.get("synthetic") for case in cases),
        "A case of the demo does not say that it is synthetic (facts['synthetic']).",
    )
    cohort = bench.task.find(Source((bench.demo,)))
    _plain(cohort.intake, "The intake")
    for case in cases:
        _plain(case.facts, "The facts of a case")
    again = [case.case_id for case in bench.task.find(Source((bench.demo,))).cases]
    _require(again == [case.case_id for case in cohort.cases], "find gives another order twice.")


def check_preparation(bench: Workbench) -> None:
    """Preparing is deterministic, and the cache gives back what it was given."""
    from medtool.data.cache import read_prepared

    for case in bench.cases:
        first, second = bench.task.prepare(case), bench.task.prepare(case)
        _same_prepared(first, second, "Preparing a case twice gives two results.")
        stored = read_prepared(bench.prepared[case.case_id])
        _same_prepared(first, stored, "The cache changes what prepare gave.")
        _plain(first.facts, "The facts of prepare")
        _plain(list(first.elements), "The elements of prepare")
        found = bench.task.check(case)
        _require(
            isinstance(found, list) and all(isinstance(one, Finding) for one in found),
            "check must give a list of Finding.",
        )


def check_truth(bench: Workbench) -> None:
    """The truth of a case is that case's."""
    for case in bench.cases:
        truth = bench.task.truth(case)
        same = (truth.case_id, truth.patient_id) == (case.case_id, case.patient_id)
        _require(same, "The truth names another case or patient.", case.case_id)


def check_groups(bench: Workbench) -> None:
    """Each parameter belongs to one group."""
    from medtool.train.stages import check_groups as every_parameter_once

    network = bench.network()
    try:
        every_parameter_once(network, bench.task.groups(network))
    except UsageError as error:
        raise BrokenContract(error.what, met=error.met) from error


def check_examples(bench: Workbench) -> None:
    """Examples depend on their key alone; those of evaluation do not change by epoch."""
    for training in (True, False):
        same, again = (bench.batch(training=training).tensors for _ in range(2))
        _require(_equal(same, again), "One key gives two different examples.")
    first, later = (bench.batch(training=False, epoch=epoch).tensors for epoch in (0, 7))
    # Keys of dropout may differ: nothing is dropped outside training.
    shared = [name for name in first if name.endswith(("inputs", "images", "slices", "image"))]
    changed = [name for name in shared if not _equal(first[name], later[name])]
    _require(not changed, "An example of evaluation changes with the epoch.", changed)


def check_training_step(bench: Workbench) -> None:
    """A step has a finite loss, moves every group, and is the same twice on a CPU."""
    import torch

    before = {name: value.clone() for name, value in bench.network().named_parameters()}
    first, losses = _step(bench)
    second, _ = _step(bench)
    _require("loss" in losses, "losses must give 'loss'.", sorted(losses))
    wrong = [name for name, value in losses.items() if not np.isfinite(value)]
    _require(not wrong, "A loss is not finite.", wrong)
    changed = [n for n, value in first.items() if not torch.equal(value, second[n])]
    _require(not changed, "Two equal steps give different weights.", changed[:3])
    network = bench.network()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group, modules in bench.task.groups(network).items():
        inside = [names[id(p)] for module in modules for p in module.parameters()]
        moved = any(not torch.equal(first[name], before[name]) for name in inside)
        _require(moved or not inside, "A group does not learn.", group)


def check_validation(bench: Workbench) -> None:
    """The facts of validation give the epoch's metrics, the primary one among them."""
    import torch

    network = bench.network().eval()
    with torch.no_grad():
        facts = bench.task.validate(network, bench.batch(training=False))
    metrics = bench.task.summarise([facts])
    primary = bench.task.settings.metrics.primary
    _require(primary in metrics, "The primary metric is missing.", f"{primary}: {sorted(metrics)}")


def check_answers(bench: Workbench) -> None:
    """A loaded network answers as the saved one, with the columns that were declared."""
    first, second = bench.predictions(), bench.predictions()
    for case, answer, again in zip(bench.cases, first, second, strict=True):
        _require(answer.case_id == case.case_id, "A prediction names another case.")
        row = bench.task.write(answer, case, bench.folder / "written")
        wanted, met = list(bench.task.columns), list(row)
        _require(wanted == met, "The row has other columns than declared.", f"{met}, not {wanted}")
        _require(dict(answer.scalars) == dict(again.scalars), "Two answers for one case differ.")
    truths = [bench.task.truth(case) for case in bench.cases]
    scores = bench.task.score(first, truths)
    _require(scores.metrics, "score gives no metric.")


def check_deployment(bench: Workbench) -> None:
    """The exported part of the network takes the inputs that are declared."""
    spec = bench.task.deployment()
    _require(spec.inputs and spec.outputs, "deployment must name inputs and outputs.")
    sizes = [size for shape in spec.inputs.values() for size in shape]
    _require(all(size > 0 for size in sizes), "An input has no size.", dict(spec.inputs))


def check_bad_input(bench: Workbench) -> None:
    """An empty folder and a case without inputs are refused, not crashed on."""
    empty = bench.folder / "empty"
    empty.mkdir(exist_ok=True)
    try:
        cases = bench.task.find(Source((empty,))).cases
    except MedtoolError:
        cases = ()
    _require(not cases, "Cases are found in an empty folder.", len(cases))
    nothing = Case("nothing", "nobody", "", {})
    try:
        bench.task.prepare(nothing)
    except CaseRefused as refusal:
        _require(refusal.code, "A refusal needs a reason code.")
    except Exception as error:  # noqa: BLE001 - whatever else escapes is what this looks for
        raise BrokenContract(
            "A case without inputs must be refused with CaseRefused.", met=repr(error)
        ) from error
    else:
        raise BrokenContract("A case without inputs was prepared.")


TASK_CHECKS: Sequence[Callable[[Workbench], None]] = (
    check_names,
    check_settings,
    check_demo,
    check_preparation,
    check_truth,
    check_groups,
    check_examples,
    check_training_step,
    check_validation,
    check_answers,
    check_deployment,
    check_bad_input,
)


def _step(bench: Workbench) -> tuple[dict[str, Any], dict[str, float]]:
    """One step of plain gradient descent from the same weights."""
    import torch

    network = bench.network()
    network.train()
    losses = bench.task.losses(network, bench.batch(training=True))
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    weights = {name: value.detach().clone() for name, value in network.named_parameters()}
    return weights, {name: float(value.detach()) for name, value in losses.items()}


def _equal(first: Any, second: Any) -> bool:
    """Whether two values, or two equally nested tables and lists of arrays, are the same."""
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(np.array_equal(np.asarray(first), np.asarray(second)))


def _same_prepared(first: Prepared, second: Prepared, what: str) -> None:
    _require(_equal(first.arrays, second.arrays), what, "arrays differ")
    _require(_text(first.facts) == _text(second.facts), what, "facts differ")
    _require(_text(list(first.elements)) == _text(list(second.elements)), what, "elements differ")
    _require(first.findings == second.findings, what, "findings differ")


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _plain(value: object, what: str) -> None:
    """Refuse what a table or a JSON file cannot hold."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise BrokenContract(f"{what} must be plain values.", met=str(error)) from error
