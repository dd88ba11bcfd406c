"""``import``: a model that another program trained, as a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtool import __version__
from medtool.config.places import portable_preset
from medtool.core.checkpoint import RawTensor, write_checkpoint
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import MedtoolError, OutputExistsError, UnknownNameError, UsageError
from medtool.core.files import require_writable
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter, Silent
from medtool.core.registry import load_task, task_names
from medtool.data.run_record import versions
from medtool.data.scratch import Scratch

if TYPE_CHECKING:
    from torch import nn

    from medtool.core.foreign import ForeignModel
    from medtool.core.task import Task


@dataclass(frozen=True)
class ImportOptions:
    """What is asked of ``import``; ``folds`` empty means all, ``task`` None the one that can."""

    program: str
    folder: Path
    output: Path
    checkpoint: Literal["best", "final"] = "final"
    folds: tuple[str, ...] = ()
    task: str | None = None
    force: bool = False


@dataclass(frozen=True)
class ImportResult:
    """The checkpoint that was written, for which task, of which models."""

    file: Path
    task: str
    models: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"file": str(self.file), "task": self.task, "models": list(self.models)}


def import_model(options: ImportOptions, reporter: Reporter | None = None) -> ImportResult:
    """Write what ``options.program`` left in a folder as a checkpoint; several folds as one.

    Raises UnknownNameError (no such program), InputError (no model there), CheckpointError (a
    model that does not fit, or holds code), OutputExistsError, MachineError.
    """
    reporter = reporter or Silent()
    task_type = _task_for(options)
    if options.output.exists() and not options.force:
        raise OutputExistsError(
            "There is a file of this name.", where=str(options.output), how="--force overwrites it."
        )
    require_writable(options.output)
    models = task_type.foreign_models(
        options.program, options.folder, checkpoint=options.checkpoint, folds=options.folds
    )
    with Scratch() as scratch:
        files: dict[str, Path] = {}
        for model in models:
            reporter.say(f"{model.name}: {len(model.tensors)} tensors; {_where_from(model)}.")
            for note in model.notes:
                reporter.warn(note)
            files[model.name] = scratch.path / f"{model.name}.safetensors"
            _write(files[model.name], task_type(model.settings), model)
        if len(files) == 1:
            # Once more under its own name: the scratch folder may lie on another disk.
            (only,) = files.values()
            _copy_whole(only, options.output)
        else:
            write_ensemble(options.output, files)
    return ImportResult(options.output, task_type.name, tuple(files))


def _where_from(model: ForeignModel) -> str:
    return str(model.document["weights"]["source"])


def _copy_whole(source: Path, target: Path) -> None:
    from medtool.core.checkpoint import rewrite_checkpoint

    rewrite_checkpoint(source, target, {})


def _task_for(options: ImportOptions) -> type[Task]:
    """The task that takes over models of the program: the one named, else the only one."""
    if options.task is not None:
        named = load_task(options.task)
        if options.program in named.imports:
            return named
    able: dict[str, type[Task]] = {}
    programs: set[str] = set()
    for name in task_names():
        try:
            task = load_task(name)
        except MedtoolError:
            # 'medtool tasks' says what keeps a plugin from being loaded.
            continue
        programs.update(task.imports)
        if options.program in task.imports:
            able[name] = task
    if not able:
        raise UnknownNameError(
            "Models of this program cannot be imported.",
            met=options.program,
            wanted="one of: " + ", ".join(sorted(programs)),
            nearest=nearest_name(options.program, programs),
        )
    if options.task is not None or len(able) > 1:
        raise UsageError(
            f"Models of {options.program} can become checkpoints of other tasks only."
            if options.task is not None
            else f"Several tasks take over models of {options.program}.",
            met=options.task or "",
            wanted="--task " + "|".join(able),
        )
    return next(iter(able.values()))


def _write(path: Path, task: Task, model: ForeignModel) -> None:
    """A checkpoint of one model, with the probe that proves it elsewhere."""
    from medtool.nets.state import MODEL_PREFIX, fill, raw_tensor
    from medtool.train.document import group_table, layers

    network = task.network()
    fill(network, model.tensors, where=str(model.document["weights"]["source"]))
    network.eval()
    groups = task.groups(network)
    own = versions()
    document = {
        "task": task.name,
        "preset": portable_preset(task.settings),
        "preset_name": "",
        "layers": layers(network, groups),
        "groups": group_table(groups),
        "stages": [],
        "fingerprint": {},
        "planned": {},
        "patients": {},
        "versions": own,
        "created_by": f"medtool {__version__}",
        **model.document,
    }
    tensors = [raw_tensor(MODEL_PREFIX + name, t) for name, t in network.state_dict().items()]
    write_checkpoint(path, document, [*tensors, *_probe(network, task)])


def _probe(network: nn.Module, task: Task) -> Iterator[RawTensor]:
    from medtool.train.probe import make_probe

    yield from make_probe(network, task.deployment())
