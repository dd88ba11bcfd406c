"""``fetch``: the weights that a preset starts from, onto this machine, once and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config import resolve
from medtool.config.weights import PretrainedModelSection, WeightsSection
from medtool.core.errors import OutputExistsError, UsageError
from medtool.core.progress import Reporter, Silent
from medtool.core.registry import load_task

if TYPE_CHECKING:
    from medtool.train.weights_store import WeightsRecord


@dataclass(frozen=True)
class FetchOptions:
    """What is asked of ``fetch``.

    ``bundle`` is read where it exists, else written. ``file`` is a file of this machine to take
    in place of the hub's, ``endpoint`` another hub.
    """

    task: str
    preset: str | None = None
    assignments: Sequence[str] = ()
    bundle: Path | None = None
    file: Path | None = None
    force: bool = False
    endpoint: str | None = None
    folder: Path = Path()


@dataclass(frozen=True)
class FetchResult:
    """Where the weights are, what is known of them, and the bundle that was written, if any."""

    file: Path
    record: WeightsRecord
    was_there: bool
    bundle: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        bundle = {"bundle": str(self.bundle)} if self.bundle else {}
        return {
            "path": str(self.file),
            "already_there": self.was_there,
            **asdict(self.record),
            **bundle,
        }


def fetch(options: FetchOptions, reporter: Reporter | None = None) -> FetchResult:
    """Fetch, or take from a bundle or file, the weights that the preset of a task names.

    Weights that are there already are left alone without ``force``. Raises UsageError (the preset
    names none, two sources at once), CheckpointError (damaged, or no weights), MachineError (no
    network, disk full).
    """
    reporter = reporter or Silent()
    weights = _wanted(options)
    from medtool.train import weights_fetch
    from medtool.train.weights_store import fetched_weights, weights_file

    reads_bundle = options.bundle is not None and options.bundle.is_file()
    if options.file is not None and reads_bundle:
        raise UsageError(
            "Weights come from one place at a time.",
            met="--file and a --bundle that exists",
            how="leave one of them out.",
        )
    there = None if options.force else fetched_weights(weights)
    if there is not None:
        if options.file is not None:
            raise OutputExistsError(
                "The weights of this preset are there already.",
                where=str(there[0]),
                how="--force takes the new file.",
            )
        record = there[1]
    elif options.file is not None:
        record = weights_fetch.take_local_file(weights, options.file)
    elif options.bundle is not None and reads_bundle:
        record = weights_fetch.read_bundle(weights, options.bundle)
    else:
        record = weights_fetch.fetch_from_hub(weights, endpoint=options.endpoint, reporter=reporter)
    written = None
    if options.bundle is not None and not reads_bundle:
        weights_fetch.write_bundle(weights, record, options.bundle)
        written = options.bundle
    return FetchResult(weights_file(weights), record, there is not None, written)


def _wanted(options: FetchOptions) -> WeightsSection:
    """The weights that the preset names; raises UsageError where it names none."""
    settings = resolve(
        load_task(options.task),
        options.preset,
        folder=options.folder,
        assignments=options.assignments,
    ).settings
    model = settings.model
    if isinstance(model, PretrainedModelSection) and model.from_scratch:
        raise UsageError(
            f"This preset of '{options.task}' starts from random weights.",
            where="model.from_scratch",
            met="true",
            how="there is nothing to fetch.",
        )
    if not isinstance(model, PretrainedModelSection) or not model.weights.repository:
        raise UsageError(
            f"The preset of '{options.task}' starts from no weights of the hub.",
            where="model.weights.repository",
            wanted="owner/name of a repository on the Hugging Face hub",
            how="there is nothing to fetch; or name one with --set model.weights.repository=...",
        )
    return model.weights
