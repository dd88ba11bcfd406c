"""``optimize``: a model made smaller and faster, and shipped only when it is measured as good."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import project_paths
from medtool.core.checkpoint import read_header
from medtool.core.deployed import find_deployed
from medtool.core.errors import UsageError
from medtool.core.processes import sigterm_interrupts
from medtool.core.progress import Reporter, Silent
from medtool.data.run_folder import RunFolder
from medtool.data.scratch import Scratch
from medtool.verbs.infer_model import answering_file, folds_of
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.optimize_output import require_place, room_for, sweep_rooms
from medtool.verbs.optimize_settings import asked_task

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.optimize.calibration import Calibration
    from medtool.verbs.optimize_make import Making

# Keys of a preset that say how a model is made smaller.
OPTIMIZE_KEYS = "optimize."
# Formats that want to see what training patients show the network.
CALIBRATED = frozenset({"int8", "openvino", "litert"})


def optimize(options: OptimizeOptions, reporter: Reporter | None = None) -> OptimizeResult:
    """Export, quantise, judge and measure a model, and write ``options.output``.

    Nothing is written unless every file is as good as the tolerance asks. Raises UsageError and its
    kinds for wrong options and checkpoints, InputError (nobody to calibrate or judge on), GateError
    (worse than allowed, or calibration patients that judge), MachineError (an engine or a package
    is missing, the disk is full), KeyboardInterrupt (also for SIGTERM).
    """
    reporter = reporter or Silent()
    # First: what a killed process took away may be the checkpoint, or the output that is there.
    sweep_rooms(options.output, reporter)
    _check(options)
    with sigterm_interrupts(), Scratch() as scratch:
        file, found = answering_file((options.checkpoint,), scratch.path)
        header = read_header(file)
        task = asked_task(header, options, reporter)
        _require_pruning(options, task)
        _require_engines(options, task.settings.optimize.formats)
        reporter.say(f"Model: {found}; task {task.name}.")
        with room_for(options.output, reporter) as room:
            result = _made(options, task, file, room.stage, scratch.path, reporter)
            room.finish(reporter)
    return result


def _check(options: OptimizeOptions) -> None:
    if find_deployed(options.checkpoint) is not None:
        raise UsageError(
            "This model is optimised already.",
            where=str(options.checkpoint),
            wanted="the checkpoint that it was made of",
            how="name that, or its run.",
        )
    require_place(options)
    for assignment in options.assignments:
        if not assignment.startswith(OPTIMIZE_KEYS):
            raise UsageError(
                "A model that was trained only lets itself be made smaller.",
                met=f"--set {assignment}",
                wanted="a key of [optimize], as optimize.calibration_inputs=128",
                how="other keys belong to 'medtool train'.",
            )


def _require_pruning(options: OptimizeOptions, task: Task) -> None:
    """Raises UsageError where pruning is spoken of, and nothing would leave."""
    if options.speaks_of_pruning and task.settings.optimize.prune.share == 0:
        raise UsageError(
            "Nothing would be pruned.",
            met="optimize.prune.share = 0",
            wanted="the share that is to leave",
            how="--prune pruned takes that of the task's preset, --set optimize.prune.share=0.35 "
            "any other; leave all settings of pruning out to keep the network whole.",
        )


def _require_engines(options: OptimizeOptions, formats: Collection[str]) -> None:
    from medtool.predict.engines.contract import LITERT, ONNX_RUNTIME, OPENVINO
    from medtool.predict.engines.presence import require_engine

    require_engine(ONNX_RUNTIME)
    if LITERT in formats:
        from medtool.optimize.litert import find_converter

        require_engine(LITERT)
        find_converter(options.litert_python)
    if "openvino" in options.formats:
        require_engine(OPENVINO)


def _made(
    options: OptimizeOptions,
    task: Task,
    file: Path,
    stage: Path,
    scratch: Path,
    reporter: Reporter,
) -> OptimizeResult:
    from medtool.optimize.acceptance import tolerance_text
    from medtool.optimize.passes import with_means
    from medtool.predict.model import load_model
    from medtool.report.optimisation import write_optimisation_report
    from medtool.verbs.optimize_data import CALIBRATION, TRAINING, optimize_data
    from medtool.verbs.optimize_make import Making

    model = load_model(file, device=options.run.device, precision="32")
    model = replace(model, task=task.with_document(model.document))
    settings = task.settings.optimize
    needs = [CALIBRATION] if CALIBRATED & set(settings.formats) else []
    needs += [TRAINING] if settings.prune.share > 0 else []
    data = optimize_data(
        model.task,
        model.document,
        _runs_of(options.checkpoint, file),
        data=options.data,
        labels=options.labels,
        calibration=options.calibration,
        needs=needs,
        cache=options.run.cache or project_paths().cache,
        workers=options.run.workers,
        reporter=reporter,
    )
    smaller = model
    pruning: dict[str, Any] = {}
    if settings.prune.share > 0:
        from medtool.verbs.optimize_prune import PRUNED_FILE, pruned_model
        from medtool.verbs.train_prepare import loader_workers

        reporter.say(f"Pruning; what is allowed to be lost: {tolerance_text(settings)}.")
        smaller, pruning = pruned_model(
            model,
            data,
            settings.prune,
            stage / PRUNED_FILE,
            scratch,
            reporter,
            workers=loader_workers(options.run),
        )
    original = with_means(model)
    making = Making(
        original,
        original if smaller is model else with_means(smaller),
        data,
        settings,
        stage,
        scratch,
        reporter,
        seed=options.run.seed or 0,
        named=options.formats,
    )
    making.export()
    making.document |= {"pruning": pruning} if pruning else {}
    calibration = making.calibrate() if CALIBRATED & set(settings.formats) else None
    making.check_export(calibration)
    making.judge_pruned()
    if calibration is not None:
        _in_eight_bits(making, calibration, options)
    making.lighter()
    making.judge()
    making.measure()
    document = making.write()
    write_optimisation_report(stage, document, command=options.without_places())
    return OptimizeResult(options.output, document, options.output / "report.html")


def _in_eight_bits(making: Making, calibration: Calibration, options: OptimizeOptions) -> None:
    """The files that rest on calibration, as far as they are asked for."""
    formats = making.settings.formats
    floats: tuple[str, ...] = ()
    if "int8" in formats or "openvino" in formats:
        chosen = making.quantise(calibration)
        floats = chosen.floats
        if "openvino" in formats:
            making.openvino(chosen.trial.file)
    elif "litert" in formats:
        floats = making.sensitive(calibration).floats
    if "litert" in formats:
        making.litert(calibration, floats, options.litert_python)


def _runs_of(named: Path, file: Path) -> tuple[RunFolder, ...]:
    """The run that the checkpoint lies in, of a run of folds each fold; none where it lies
    elsewhere.
    """
    places = folds_of(named) if named.is_dir() else [file.parent.parent]
    runs = tuple(map(RunFolder, places))
    known = all(
        run.exists() and run.cases_file.is_file() and run.checkpoints_folder.is_dir()
        for run in runs
    )
    return runs if known else ()
