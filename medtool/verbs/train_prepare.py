"""Everything before the first step: data, network, estimate, preparation, gate, plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import Resolved, write_preset
from medtool.config.places import portable_preset
from medtool.config.weights import PretrainedModelSection
from medtool.core.checkpoint import find_checkpoint, read_header
from medtool.core.errors import InputError
from medtool.core.files import sweep_temporary
from medtool.core.progress import Reporter
from medtool.core.records import Case, Part
from medtool.data.cache import Cache, read_prepared
from medtool.data.fold_files import fold_of_parts, write_folds
from medtool.data.leakage import leakage_gate
from medtool.data.machine import usable_cores
from medtool.data.patient_hashes import hash_patients
from medtool.data.preparation import CaseFailure, PreparationReport, prepare_cases
from medtool.data.run_folder import RunFolder, write_json
from medtool.data.run_record import run_record, versions
from medtool.nets.device import choose_device, warn_of_precision
from medtool.nets.state import load_network, pruned_widths
from medtool.nets.widths import PRUNED, Widths
from medtool.train.document import (
    fingerprint,
    group_table,
    layers,
    stage_table,
    training_range,
)
from medtool.train.plan import Plan, make_plan, plan_from_document
from medtool.train.stages import check_groups
from medtool.verbs.options import timeout_of
from medtool.verbs.planning import PLANNED_ORIGIN, KeptPlan, keep_plan, planned_task, with_planned
from medtool.verbs.train_again import (
    failures_of_begin,
    kept_of_begin,
    require_same_cases,
    same_data,
)
from medtool.verbs.train_data import TrainingData, case_rows, gather
from medtool.verbs.train_estimate import estimate_run
from medtool.verbs.train_options import TrainOptions
from medtool.verbs.train_precompute import precompute
from medtool.verbs.train_run import Order, new_network

if TYPE_CHECKING:
    import torch

    from medtool.core.task import Task
    from medtool.verbs.options import RunOptions

MOST_LOADER_WORKERS = 4


@dataclass(frozen=True)
class Ready:
    """A run that can learn: the order, and what its end will need."""

    order: Order
    data: TrainingData
    cache: Cache
    failures: tuple[CaseFailure, ...]


@dataclass(frozen=True)
class _Start:
    """What the network begins with."""

    weights: Mapping[str, torch.Tensor]
    layers: Sequence[Mapping[str, Any]]
    groups: Mapping[str, Any]
    group_names: tuple[str, ...]
    provenance: Mapping[str, Any]
    pruned: Widths


def make_ready(
    task: Task,
    resolved: Resolved,
    options: TrainOptions,
    run: RunFolder,
    resume: Path | None,
    reporter: Reporter,
    *,
    started: datetime,
) -> Ready:
    """Find, split, estimate, prepare, check; writes the run's folder as far as it goes.

    Raises what ``train`` raises.
    """
    device = choose_device(options.run.device)
    warn_of_precision(task.settings.train.precision, device, reporter)
    options = same_data(options, run) if run.exists() else options
    data, cache, resolved, _ = planned_data(task, resolved, options, run, reporter)
    task = data.task
    start = _start(task, resolved.preset_name, resume, reporter)
    plan = _plan(task, start, data, options, resume, reporter)
    document = {**_run_document(task, resolved, options, data, started), **kept_of_begin(run)}
    _begin_run(run, resolved, document, data, begins=resume is None)
    run.tell_second_names(reporter.warn)
    if resume is None:
        estimated, plan = estimate_run(
            data,
            cache,
            start.weights,
            plan,
            options,
            reporter,
            loaders=loader_workers(options.run),
            run=run.path,
        )
        document["estimate"] = estimated
        write_json(run.run_file, document)
    data, report, facts = prepared_data(
        data, cache, options, reporter, going_on=run if resume is not None else None
    )
    hashes = pass_gate(data, facts, options, reporter)
    if resume is None:
        plan = replace(plan, steps_per_epoch=_steps(plan, data))
    document |= _after_preparation(data, report, hashes, plan, start)
    audit = task.audit(data.part("train"), report.paths)
    document["audit"] = audit = audit or document.get("audit", {})
    if "summary" in audit:
        reporter.say(str(audit["summary"]))
    write_json(run.run_file, document)
    once = precompute(
        task,
        start.weights,
        plan,
        data.part("train"),
        data.part("selection"),
        report.paths,
        run.path,
        device=device,
        pruned=start.pruned,
        reporter=reporter,
    )
    base = _base(task, resolved, data, facts, plan, start, document, resume)
    order = Order(
        task=task,
        training=data.part("train"),
        selection=data.part("selection"),
        prepared=once.paths,
        plan=plan,
        run=run.path,
        base=base,
        weights=start.weights,
        resume=resume,
        workers=loader_workers(options.run),
    )
    return Ready(order, data, cache, report.failures)


def _require_companions(task: Task) -> None:
    """Models that are asked at the end: what is missing must be known at the begin."""
    for checkpoint in task.companions().values():
        find_checkpoint(checkpoint)


def planned_data(
    task: Task,
    resolved: Resolved,
    options: TrainOptions,
    run: RunFolder | None,
    reporter: Reporter,
) -> tuple[TrainingData, Cache, Resolved, KeptPlan | None]:
    """The data with their task as planned from all but the held-out part, its cache and preset."""
    _require_companions(task)
    data = gather(task, options, run, reporter)
    root = options.run.cache or resolved.paths.cache
    task = planned_task(
        task,
        data.learners,
        root,
        intake=data.cohort.intake,
        workers=options.run.workers,
        reporter=reporter,
    )
    resolved = with_planned(resolved, task)
    kept = keep_plan(resolved, task, root)
    return replace(data, task=task), Cache(root, task), resolved, kept


def _start(task: Task, preset: str, resume: Path | None, reporter: Reporter) -> _Start:
    network = new_network(task)
    groups = task.groups(network)
    check_groups(network, groups)
    provenance: dict[str, Any] = {"source": ""}
    pruned: Widths = {}
    model = task.settings.model
    if resume is not None:
        provenance = dict(read_header(resume).document["weights"])
        pruned = pruned_widths(resume)
        load_network(resume, network)
    elif isinstance(model, PretrainedModelSection):
        from medtool.train.weights import start_weights

        fetch = f"medtool fetch {task.name}" + (f" --preset {preset}" if preset else "")
        loaded = start_weights(
            network, model, task.settings.train.stages, fetch=fetch, reporter=reporter
        )
        if loaded is not None:
            source = loaded.repository or loaded.file
            provenance = {"source": source, **loaded.as_dict()}
    return _Start(
        weights={name: tensor.clone() for name, tensor in network.state_dict().items()},
        layers=layers(network, groups),
        groups=group_table(groups),
        group_names=tuple(groups),
        provenance=provenance,
        pruned=pruned,
    )


def _plan(
    task: Task,
    start: _Start,
    data: TrainingData,
    options: TrainOptions,
    resume: Path | None,
    reporter: Reporter,
) -> Plan:
    if resume is not None:
        plan = plan_from_document(read_header(resume).document["plan"])
        if options.run.minutes is not None:
            reporter.say(
                f"--minutes changes nothing now: the schedule of {plan.epochs} epochs was fixed "
                "when the run began."
            )
        return plan
    model, learning = task.settings.model, task.settings.train
    if isinstance(model, PretrainedModelSection) and model.from_scratch:
        # What begins at random must learn: stages that freeze are for weights of others.
        learning = learning.model_copy(update={"stages": []})
    return make_plan(
        learning,
        start.group_names,
        cases=len(data.part("train")),
        devices=options.run.devices * options.run.nodes,
    )


def _steps(plan: Plan, data: TrainingData) -> int:
    """Steps of an epoch when fewer cases could be prepared than were there."""
    examples = len(data.part("train")) * data.task.settings.train.examples_per_case
    return min(plan.steps_per_epoch, -(-examples // plan.cases_per_step))


def _run_document(
    task: Task,
    resolved: Resolved,
    options: TrainOptions,
    data: TrainingData,
    started: datetime,
) -> dict[str, Any]:
    folder = options.data if options.data is not None else task.settings.data.folder
    return {
        **run_record("train", options.command, started),
        "task": task.name,
        "preset": resolved.preset_name,
        "data": {
            "folder": str(folder.absolute()),
            "labels": str(data.labels_file.absolute()) if data.labels_file else "",
        },
        "split": {
            "scheme": data.split.scheme,
            "fold": data.split.fold,
            "optimistic": data.split.optimistic,
        },
        "confounders": [dict(row) for row in data.confounders],
        "synthetic": data.synthetic,
        "notes": [finding.message for finding in data.findings],
        "planned_keys": [k for k, why in resolved.origins.items() if why == PLANNED_ORIGIN],
    }


def _begin_run(
    run: RunFolder,
    resolved: Resolved,
    document: dict[str, Any],
    data: TrainingData,
    *,
    begins: bool,
) -> None:
    """Write what is known of a run before it learns: preset, run.json, cases and their parts."""
    sweep_temporary(run.path)
    run.path.mkdir(parents=True, exist_ok=True)
    # Killed before the first checkpoint a run begins again: its preset says what is trained.
    if begins or not run.preset_file.is_file():
        write_preset(resolved.settings, run.preset_file, origins=resolved.origins)
    write_json(run.run_file, document)
    run.write_cases(case_rows(data))
    if data.task.reference != "label":
        write_folds(run.folds_file, [fold_of_parts(data.split.parts)])
    write_json(run.intake_file, data.cohort.intake)


def prepared_data(
    data: TrainingData,
    cache: Cache,
    options: TrainOptions,
    reporter: Reporter,
    *,
    going_on: RunFolder | None = None,
) -> tuple[TrainingData, PreparationReport, dict[str, Mapping[str, Any]]]:
    """The data without the cases that cannot be prepared, and the facts of each of the others.

    ``going_on`` is a run that has learned: it keeps the cases that it began with, no more (they
    are left out, whether they could be prepared now or not) and no fewer (InputError).
    """
    left_out = failures_of_begin(going_on) if going_on is not None else ()
    if left_out:
        reporter.warn(
            f"{len(left_out)} of {len(data.cases)} cases could not be prepared when this run "
            "began: it goes on without them."
        )
        data = data.without({failure.case_id for failure in left_out})
    report = prepare_cases(
        data.task,
        data.cases,
        cache,
        workers=options.run.workers,
        case_timeout_s=timeout_of(options.case_timeout_s, data.task),
        reporter=reporter,
    )
    if going_on is not None:
        require_same_cases(going_on, report.failures)
        report = replace(report, failures=left_out)
    else:
        data = _without_failed(data, {failure.case_id for failure in report.failures}, reporter)
    facts = {
        case.case_id: read_prepared(report.paths[case.case_id], names=()).facts
        for case in data.cases
    }
    return data, report, facts


def pass_gate(
    data: TrainingData,
    facts: Mapping[str, Mapping[str, Any]],
    options: TrainOptions,
    reporter: Reporter,
) -> dict[str, list[str]]:
    """The hashes of every case's slices, once no pixels stand in two parts (LeakageError)."""
    hashes = {name: list(fact.get("slice_hashes", ())) for name, fact in facts.items()}
    for finding in leakage_gate(data.cases, data.split.parts, hashes, allow=options.allow_leak):
        reporter.warn(finding.message)
    return hashes


def _without_failed(data: TrainingData, failed: set[str], reporter: Reporter) -> TrainingData:
    """Leave out what could not be prepared; both learning parts must still have cases."""
    left = data.without(failed)
    if failed:
        reporter.warn(f"{len(failed)} of {len(data.cases)} cases could not be prepared: left out.")
    needed: tuple[Part, ...] = ("train", "selection")
    for part in needed:
        labels = {case.label for case in left.part(part)}
        if len(labels) < len({case.label for case in data.part(part)}):
            raise InputError(
                f"Too few cases of the part {part} could be prepared.",
                met=f"{len(left.part(part))} of {len(data.part(part))}",
                wanted="cases of every class",
                how="see the reasons above; 'medtool check' tells of every series.",
            )
    return left


def _after_preparation(
    data: TrainingData,
    report: PreparationReport,
    hashes: Mapping[str, Sequence[str]],
    plan: Plan,
    start: _Start,
) -> dict[str, Any]:
    parts = {case.case_id: data.split.parts[case.case_id] for case in data.cases}
    return {
        "failures": [failure.as_dict() for failure in report.failures],
        "seconds": {"preparing": round(report.seconds, 1)},
        "plan": plan.as_document(),
        "weights": dict(start.provenance),
        "fingerprint": fingerprint(data.cases, parts, hashes),
    }


def _base(
    task: Task,
    resolved: Resolved,
    data: TrainingData,
    facts: Mapping[str, Mapping[str, Any]],
    plan: Plan,
    start: _Start,
    document: Mapping[str, Any],
    resume: Path | None,
) -> dict[str, Any]:
    """What every checkpoint of the run says alike."""
    training: list[Case] = list(data.part("train"))
    seen = [*training, *data.part("selection")]
    if resume is not None:
        patients = read_header(resume).document["patients"]
    else:
        patients = hash_patients(case.patient_id for case in seen)
    network = new_network(task, start.pruned)
    return {
        **({PRUNED: start.pruned} if start.pruned else {}),
        "task": task.name,
        "preset": portable_preset(resolved.settings),
        "preset_name": resolved.preset_name,
        "layers": [dict(row) for row in start.layers],
        "groups": dict(start.groups),
        "stages": stage_table(plan, task.groups(network)),
        "fingerprint": document["fingerprint"],
        "training_range": training_range(training, {c.case_id: facts[c.case_id] for c in training}),
        "weights": dict(start.provenance),
        "planned": document["audit"].get("plan", {}),
        "versions": versions(),
        "synthetic": data.synthetic,
        "patients": patients,
        "selection": "chose checkpoint and threshold: numbers of this part are optimistic",
        "companions": sorted(task.companions()),
        "created_by": f"medtool {versions()['medtool']}",
    }


def loader_workers(run: RunOptions) -> int:
    """Loader processes for each device: one beside the network on two cores, a few on more."""
    if run.workers is not None:
        return min(run.workers, MOST_LOADER_WORKERS)
    return max(1, min(MOST_LOADER_WORKERS, usable_cores() // (2 * run.devices)))
