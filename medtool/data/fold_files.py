"""Folds as nnU-Net keeps them in ``splits_final.json``, and those it makes where there is none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtool.core.errors import LabelsError, UsageError
from medtool.core.files import replace_text
from medtool.core.records import Part
from medtool.data.json_file import read_json
from medtool.data.matching import shown

# What nnU-Net calls the file, and so do we.
FOLDS_FILE = "splits_final.json"
# nnU-Net's own (nnunetv2/utilities/crossval_split.py).
NNUNET_FOLDS = 5
NNUNET_SEED = 12345


@dataclass(frozen=True)
class Fold:
    """Case ids of one fold: those to learn from, and those held out ("val" of the file)."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read_folds(path: Path) -> tuple[Fold, ...]:
    """The folds of a ``splits_final.json``.

    Raises LabelsError where it is none, or a case stands twice in one fold.
    """
    document, _ = read_json(path, kind="split file")
    if not isinstance(document, list) or not document:
        raise _no_folds(path, "no list of folds")
    return tuple(_fold(entry, number, path) for number, entry in enumerate(document))


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Write folds so that nnU-Net reads them."""
    document = [{"train": list(fold.train), "val": list(fold.held_out)} for fold in folds]
    replace_text(path, json.dumps(document, indent=4) + "\n")


def fold_of_parts(parts: Mapping[str, Part]) -> Fold:
    """A run's parts (case id -> part) as a fold: who scores is held out, all others are learners.

    nnU-Net has no part that chooses: where nobody only scores, who chooses is held out.
    """
    held = "test" if "test" in parts.values() else "selection"
    return Fold(
        tuple(sorted(name for name, part in parts.items() if part != held)),
        tuple(sorted(name for name, part in parts.items() if part == held)),
    )


def fold_numbered(folds: Sequence[Fold], number: int, where: str) -> Fold:
    """One fold, counted from 0; one that is not there is refused, never made up."""
    if not 0 <= number < len(folds):
        raise UsageError(
            f"There is no fold {number}.",
            where=where,
            met=f"{len(folds)} folds",
            wanted=f"0 to {len(folds) - 1}",
        )
    return folds[number]


def nnunet_folds(case_ids: Sequence[str], folds: int = NNUNET_FOLDS) -> tuple[Fold, ...]:
    """The folds that nnU-Net makes of these cases, whatever their order.

    Sorted ids, shuffled once with nnU-Net's seed and cut into runs whose lengths differ by one at
    most, the longer ones first, as scikit-learn's KFold does. Cases of one patient may be torn
    apart. Raises UsageError where there are fewer cases than folds.
    """
    ids = sorted(set(case_ids))
    if len(ids) < folds:
        raise UsageError(
            "There are fewer cases than folds.",
            met=f"{len(ids)} cases, {folds} folds",
            wanted="at least one case a fold",
        )
    order = np.arange(len(ids))
    # The generator of old, since nnU-Net's folds are its draws.
    np.random.RandomState(NNUNET_SEED).shuffle(order)
    result = []
    for indices in np.array_split(order, folds):
        chosen = set(indices.tolist())
        held_out = tuple(name for index, name in enumerate(ids) if index in chosen)
        train = tuple(name for index, name in enumerate(ids) if index not in chosen)
        result.append(Fold(train, held_out))
    return tuple(result)


def _fold(entry: Any, number: int, path: Path) -> Fold:
    if not isinstance(entry, Mapping) or not all(
        isinstance(entry.get(key), list) for key in ("train", "val")
    ):
        raise _no_folds(path, f"fold {number} has no lists 'train' and 'val'")
    train, held_out = (tuple(map(str, entry[key])) for key in ("train", "val"))
    counts = Counter([*train, *held_out])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise _no_folds(path, f"fold {number} names twice: {shown(twice)}")
    if not train or not held_out:
        raise _no_folds(path, f"fold {number} has nobody to learn from, or nobody held out")
    return Fold(train, held_out)


def _no_folds(path: Path, met: str) -> LabelsError:
    return LabelsError(
        "The split file holds no folds that can be used.",
        where=str(path),
        met=met,
        wanted='a list of {"train": [case ids], "val": [case ids]}, no case twice in one',
    )
