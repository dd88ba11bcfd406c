"""``export``: a checkpoint of ours as a model of another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import settings_from_document
from medtool.core.checkpoint import CheckpointHeader, find_checkpoint, read_header
from medtool.core.ensemble import member_prefix, members_of
from medtool.core.errors import OutputExistsError, UnknownNameError, UsageError
from medtool.core.files import require_writable
from medtool.core.foreign import ForeignModel
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter, Silent
from medtool.core.registry import load_task

if TYPE_CHECKING:
    from medtool.core.task import Task


@dataclass(frozen=True)
class ExportOptions:
    """What is asked of ``export``; ``dataset`` is what the program is to call the data."""

    program: str
    checkpoint: Path
    output: Path
    dataset: str = ""
    force: bool = False


@dataclass(frozen=True)
class ExportResult:
    """The folder of the model, and the command that lets the other program answer."""

    folder: Path
    command: str
    models: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.folder),
            "command": self.command,
            "models": list(self.models),
        }


def export_model(options: ExportOptions, reporter: Reporter | None = None) -> ExportResult:
    """Write a checkpoint, or a run's best one, for ``options.program`` below ``options.output``.

    Raises UnknownNameError (no such program), UsageError (the program cannot have this model),
    CheckpointError, OutputExistsError, MachineError.
    """
    reporter = reporter or Silent()
    file, found = find_checkpoint(options.checkpoint)
    header = read_header(file)
    task_type = load_task(header.task)
    if options.program not in task_type.exports:
        raise _no_such_program(options.program, task_type)
    if options.output.exists() and any(options.output.iterdir()) and not options.force:
        raise OutputExistsError(
            "There is something in this folder.",
            where=str(options.output),
            how="--force writes into it; or name another folder with -o.",
        )
    require_writable(options.output / "any")
    reporter.say(f"Model: {found}; task {task_type.name}.")
    models = _models(header, task_type)
    written = task_type.write_foreign(
        options.program, models, options.output, dataset=options.dataset
    )
    for note in written.notes:
        reporter.warn(note)
    return ExportResult(written.folder, written.command, tuple(model.name for model in models))


def _no_such_program(program: str, task: type[Task]) -> UsageError:
    if not task.exports:
        return UsageError(
            f"Models of the task '{task.name}' cannot be exported.",
            met=program,
        )
    return UnknownNameError(
        f"Models of the task '{task.name}' cannot be exported for this program.",
        met=program,
        wanted="one of: " + ", ".join(task.exports),
        nearest=nearest_name(program, task.exports),
    )


def _models(header: CheckpointHeader, task: type[Task]) -> list[ForeignModel]:
    """The only model of a file, or each of its members."""
    from medtool.nets.state import MODEL_PREFIX, read_tensors

    several = [(one.name, one.document) for one in members_of(header)] or [("", header.document)]
    return [
        ForeignModel(
            name=name or f"fold_{(document.get('imported') or {}).get('fold', 0)}",
            settings=settings_from_document(task, document["preset"], label=str(header.path)),
            tensors=dict(read_tensors(header.path, member_prefix(MODEL_PREFIX, name))),
            document=document,
        )
        for name, document in several
    ]
