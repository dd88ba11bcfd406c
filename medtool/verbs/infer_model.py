"""Which file answers: the one that was named, or one made of several that answer together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medtool.config.places import known_header
from medtool.core.checkpoint import CHECKPOINTS_FOLDER, find_checkpoint, read_header
from medtool.core.deployed import find_deployed
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import UsageError

FOLDS = "fold_*"
# What a member may be called: a part of the names of its tensors.
NAME = re.compile(r"\w+")
TOGETHER = "together.safetensors"


def answering_file(paths: Sequence[Path], scratch: Path) -> tuple[Path, str]:
    """The checkpoint that answers for ``paths``, and a sentence on what was taken.

    One path is a checkpoint or a run (its best one); a run of several folds, or several paths,
    answer together: their file is written into ``scratch``. Raises CheckpointError where there is
    none or they do not go together, UsageError where one is named twice.
    """
    places = [place for path in paths for place in folds_of(path)]
    if len(places) == 1:
        return find_checkpoint(places[0])
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
