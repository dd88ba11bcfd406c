"""Which file answers: the one that was named, or one made of several that answer together; and
whether this machine can let it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config.places import known_header
from medtool.core.checkpoint import CHECKPOINTS_FOLDER, find_checkpoint, read_header
from medtool.core.deployed import Deployed, find_deployed, hashes_of
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import CheckpointError, UsageError
from medtool.core.progress import Reporter
from medtool.verbs.options import RunOptions

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.predict.model import Model

FOLDS = "fold_*"
# What a member may be called: a part of the names of its tensors.
NAME = re.compile(r"\w+")
TOGETHER = "together.safetensors"
# Devices that need not be looked for.
ALWAYS_THERE = ("auto", "cpu")


def answering_file(paths: Sequence[Path], scratch: Path, engine: str = "") -> tuple[Path, str]:
    """The checkpoint that answers for ``paths``, and a sentence on what was taken.

    One path is a checkpoint or a run (its best one); a run of several folds, or several paths,
    answer together: their file is written into ``scratch``. Of an optimised model the sentence
    names what ``engine`` reads, where one was asked for. Raises CheckpointError where there is
    none or they do not go together, UsageError where one is named twice.
    """
    places = [place for path in paths for place in folds_of(path)]
    if len(places) == 1:
        only, said = find_checkpoint(places[0])
        return only, _said_of(only, engine) or said
    for place in places:
        _require_weights(place)
    found = [find_checkpoint(place) for place in places]
    files = [file for file, _ in found]
    models = [read_header(file).document["hashes"]["model"] for file in files]
    for number, model in enumerate(models):
        if model in models[:number]:
            raise UsageError(
                "A model that is named twice would count twice.",
                met=f"{files[number]} is {files[models.index(model)]} again",
                how="name each once.",
            )
    names = [place.stem if place.is_file() else place.name for place in places]
    if len(set(names)) < len(names) or not all(NAME.fullmatch(name) for name in names):
        names = [f"model_{number}" for number in range(len(places))]
    target = scratch / TOGETHER
    # The file is ours and short-lived: it may say where the models that the members ask lie.
    write_ensemble(target, dict(zip(names, files, strict=True)), read=known_header)
    told = "; ".join(f"{name} is {text}" for name, (_, text) in zip(names, found, strict=True))
    return target, f"{len(places)} together, by the mean of what they say: {told}"


def _said_of(file: Path, engine: str) -> str:
    """Which file of an optimised model answers by ``engine``; "" where that is not asked."""
    from medtool.predict.engines.choose import file_for
    from medtool.predict.engines.contract import AUTO_ENGINE

    deployed = find_deployed(file) if engine else None
    if deployed is None:
        return ""
    if engine == AUTO_ENGINE:
        return f"{deployed.folder} ({deployed.arithmetic})"
    own = file_for(deployed, engine)
    return "" if own is None else own.said_by(engine)


def _require_weights(place: Path) -> None:
    if find_deployed(place) is not None:
        raise UsageError(
            "An optimised model answers alone.",
            met=str(place),
            wanted="checkpoints, or one optimised model",
            how="'medtool optimize RUN' makes one file of all folds of a run.",
        )


def folds_of(path: Path) -> list[Path]:
    """The folds of a run that has several and no model of its own; else the path itself."""
    if not path.is_dir() or (path / CHECKPOINTS_FOLDER).is_dir():
        return [path]
    folds = sorted(fold for fold in path.glob(FOLDS) if (fold / CHECKPOINTS_FOLDER).is_dir())
    return folds or [path]


def answering_hashes(file: Path, engine: str) -> dict[str, Any]:
    """``hashes_of`` the file that ``engine`` answers with where ``file`` is of an optimised model;
    of ``file`` itself elsewhere and where no engine is named.
    """
    from medtool.predict.engines.choose import file_for

    deployed = find_deployed(file)
    own = file_for(deployed, engine) if deployed is not None and engine else None
    return hashes_of(file if own is None else own.file)


def require_machine(file: Path, task: Task, asked: RunOptions, engine: str) -> None:
    """Refuse what this machine does not have before looking for studies, which may take long.

    Of an optimised model its engine decides, whatever PyTorch can do; PyTorch only of checkpoints,
    also where such a model asks one.
    """
    models = [(find_deployed(file), engine)]
    models += [(find_deployed(other), "") for other in task.companions().values()]
    for deployed, name in models:
        if deployed is not None:
            _require_engine(deployed, name, asked)
    if all(deployed is not None for deployed, _ in models):
        return
    if asked.device in ALWAYS_THERE and asked.precision is None:
        return
    from medtool.nets.device import choose_device, choose_precision

    choose_precision(asked.precision or "auto", choose_device(asked.device))


def _require_engine(deployed: Deployed, engine: str, asked: RunOptions) -> None:
    from medtool.predict.engines.choose import require_possible

    if asked.precision is not None:
        from medtool.predict.deployed_model import require_own_precision

        require_own_precision(deployed, asked.precision)
    if asked.device not in ALWAYS_THERE:
        from medtool.nets.device import require_known_device

        require_known_device(asked.device)
    require_possible(deployed, engine, asked.device)


def warn_of_promises(model: Model, reporter: Reporter, *, proved: bool) -> None:
    """Warn of each optimised model that does not answer to its probe as when it was made.

    It costs one call. Without it eight bits that saturate here would answer without a word.
    ``proved``: that is known of ``model`` itself, not of those that it asks.
    """
    from medtool.predict.deployed_probe import broken_promise, check_deployed

    for one in (*(() if proved else (model,)), *model.companions.values()):
        deployed = None if one.engine is None else find_deployed(one.path)
        if one.engine is None or deployed is None:
            continue
        doctor = f"'medtool doctor --checkpoint {deployed.folder}'"
        try:
            result = check_deployed(deployed, one.engine)
        except CheckpointError as error:
            reporter.warn(
                f"Whether {deployed.said_by(one.engine_name)} keeps its promise here is "
                f"not known: {error.what} {doctor} says more."
            )
            continue
        if not result.passed:
            said = broken_promise(deployed, one.engine, result)
            reporter.warn(f"{said}. Do not trust these answers; {doctor} names what keeps it.")
