"""The step of ``optimize`` that makes the network itself smaller, before it is exported."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.checkpoint import read_header
from medtool.core.deployed import FLOAT_FILE
from medtool.core.errors import InputError, UsageError
from medtool.core.files import file_sha256
from medtool.core.records import Case, Prediction
from medtool.optimize.export import export_onnx
from medtool.optimize.prune import prune_channels
from medtool.optimize.prune_loop import Learners, Pruned, prune_in_rounds
from medtool.optimize.pruned_checkpoint import write_pruned
from medtool.predict.answers import answers_of
from medtool.predict.cases import predict_cases
from medtool.train.probe import probe_inputs
from medtool.verbs.train_finish import DECIDED
from medtool.verbs.train_run import stop_signals

if TYPE_CHECKING:
    from medtool.config.prune_section import PruneSection
    from medtool.core.progress import Reporter
    from medtool.predict.model import Model
    from medtool.verbs.optimize_data import OptimizeData

PRUNED_FILE = "pruned.safetensors"
WEIGHTS_NOTE = (
    "Single weights that are 0 make nothing faster: convolutions multiply them like all others."
)


def pruned_model(
    model: Model,
    data: OptimizeData,
    settings: PruneSection,
    target: Path,
    scratch: Path,
    reporter: Reporter,
    *,
    workers: int = 0,
) -> tuple[Model, dict[str, Any]]:
    """The model with fewer channels, trained again and written to ``target``; and its record.

    It learns from the training cases, which ``workers`` processes load; those that choose between
    ways choose its best epoch and its thresholds. Raises UsageError (several models in one file; a
    network that cannot be pruned), CheckpointError (it cannot be exported then), InputError (nobody
    to learn from or to choose by), MachineError, Interrupted or KeyboardInterrupt (asked to stop).
    """
    if model.members:
        raise UsageError(
            "Several models in one file cannot be pruned at once.",
            where=str(model.path),
            met=f"{len(model.members)} models",
            wanted="the checkpoint of one",
            how="prune and optimise each fold by itself, or leave pruning out.",
        )
    if not data.choosing:
        raise InputError(
            "There is nobody to choose the best epoch of a pruned network by.",
            met="no case of the selection part with a reference",
            wanted="a run with its parts, or --data with more of the training patients",
        )
    if not data.training:
        raise InputError(
            "There is nobody that a pruned network could learn from again.",
            met="no case with a reference of a patient that the model learned from",
            wanted="training patients with references",
            how="name the training data with --data; scans of --calibration only calibrate.",
        )
    if settings.kind == "channels":
        reporter.say("Trying whether the network can be exported with fewer channels.")
        _require_exportable(model, settings, scratch)
    with stop_signals() as asked:
        learners = Learners(
            training=data.training,
            selection=data.choosing,
            prepared={
                case.case_id: data.cache.path(case) for case in (*data.training, *data.choosing)
            },
            workers=workers,
            device=str(model.device),
            should_stop=asked,
        )
        pruned = prune_in_rounds(model.task, model.network, settings, learners, reporter)
    if asked():
        # While channels are taken out, and after the last step, nobody looks.
        raise KeyboardInterrupt
    if settings.kind == "weights":
        reporter.warn(WEIGHTS_NOTE)
    smaller = replace(model, network=pruned.network.to(model.device))
    changes = decided_anew(smaller, data, scratch, reporter)
    write_pruned(smaller, pruned, target, changes)
    written = replace(smaller, header=read_header(target), path=target)
    written = replace(written, task=written.task.with_document(written.document))
    return written, record(pruned, settings, target)


def _require_exportable(model: Model, settings: PruneSection, scratch: Path) -> None:
    """Raises UsageError or CheckpointError for a network that cannot be pruned, or not be exported
    then: a copy that loses the whole share at once says so in seconds, the pruned one after hours.
    """
    trial, inputs = copy.deepcopy(model.network).cpu(), probe_inputs(model.task.deployment())
    prune_channels(trial, list(inputs.values()), share=settings.share, round_to=settings.round_to)
    folder = scratch / "trial"
    folder.mkdir()
    export_onnx(model.task, trial, folder / FLOAT_FILE)
    shutil.rmtree(folder)


def record(pruned: Pruned, settings: PruneSection, file: Path) -> dict[str, Any]:
    """What optimize.json says of the pruning, and of the checkpoint that it left in ``file``."""
    note = {"note": WEIGHTS_NOTE} if settings.kind == "weights" else {}
    return {
        "settings": settings.model_dump(mode="json"),
        **pruned.as_dict(),
        "file": file.name,
        "sha256": file_sha256(file),
        "bytes": file.stat().st_size,
        **note,
    }


def decided_anew(
    model: Model, data: OptimizeData, scratch: Path, reporter: Reporter
) -> dict[str, Any]:
    """Thresholds and whatever else the end of a training decides, for other weights again.

    As at the end of a training: what was decided before is taken back first, for it was decided
    from plain answers.
    """
    changes: dict[str, Any] = {name: {} for name in model.document.get(DECIDED, ())}
    model = _with_changes(model, changes)
    asked = [case for case in data.training if model.task.settles(case)]
    if asked:
        changes = merged(model, changes, model.task.settle(_answers(model, asked, data)))
        model = _with_changes(model, changes)
    cases = [case for case in data.choosing if model.task.has_reference(case)]
    with reporter.progress("Selection part", len(cases)) as advance:
        answers = answers_of(model, cases, data.cache, scratch / "pruned-selection", advance)
    if answers.note:
        reporter.warn(answers.note)
    return merged(model, changes, model.task.decide(answers.predictions, answers.truths))


def merged(model: Model, changes: Mapping[str, Any], decided: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` of the document with what was decided; tables are added to, not replaced."""
    known = {**model.document, **changes}
    return {
        **changes,
        **{
            name: {**known.get(name, {}), **value} if isinstance(value, Mapping) else value
            for name, value in decided.items()
        },
    }


def _with_changes(model: Model, changes: Mapping[str, Any]) -> Model:
    header = replace(model.header, document={**model.document, **changes})
    return replace(model, header=header, task=model.task.with_document(header.document))


def _answers(
    model: Model, cases: list[Case], data: OptimizeData
) -> Iterator[tuple[Case, Prediction]]:
    for outcome in predict_cases(model, cases, cache=data.cache, workers=0):
        if outcome.prediction is not None:
            yield outcome.case, outcome.prediction
