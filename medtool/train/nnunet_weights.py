"""Checkpoints of nnU-Net v2: their tensors by our names, and what they say of their training.

Read as torch's weights-only loading does, with numpy's scalars and torch's devices allowed besides,
which nnU-Net's own training writes (2.8.1, ``nnUNetTrainer.save_checkpoint``). A file with anything
else in it is refused by name, and none of its code is run.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtool.core.errors import CheckpointError
from medtool.core.files import replacing
from medtool.train.weights import load_without_code

WANTED = "a checkpoint of nnU-Net v2: tensors, plain values and numpy's numbers"
# What wrappers put before the names of a network's tensors.
WRAPPERS = ("module.", "_orig_mod.")
# The decoder of nnU-Net's networks keeps the encoder again, and each unit its layers again.
AGAIN = (
    ("decoder.encoder.", "encoder."),
    (".all_modules.0.", ".conv."),
    (".all_modules.1.", ".norm."),
)
# Where numpy kept its scalars before its version 2.
OLD_SCALAR = "numpy.core.multiarray.scalar"


@dataclass(frozen=True)
class ForeignCheckpoint:
    """One fold as nnU-Net wrote it; ``tensors`` have each name once, in float32 or less.

    ``mirror_axes`` are those of the patch along which inference may mirror; ``epochs`` were
    trained; ``pseudo_dice`` is nnU-Net's moving average of the Dice on patches of its validation.
    """

    tensors: Mapping[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epochs: int
    pseudo_dice: float | None
    history: tuple[Mapping[str, Any], ...]


def read_foreign_checkpoint(path: Path) -> ForeignCheckpoint:
    """The fold in ``path``. Raises CheckpointError where it is none, or holds code."""
    found = load_without_code(path, wanted=WANTED, allowed=_allowed())
    weights = found.get("network_weights") if isinstance(found, Mapping) else None
    arguments = found.get("init_args") if isinstance(found, Mapping) else None
    if not isinstance(weights, Mapping) or not isinstance(arguments, Mapping):
        raise CheckpointError(
            "This is no checkpoint of nnU-Net v2.",
            where=str(path),
            met="keys " + ", ".join(map(str, list(found)[:8]))
            if isinstance(found, Mapping)
            else type(found).__name__,
            wanted="network_weights and init_args among its keys",
        )
    logging = found.get("logging")
    return ForeignCheckpoint(
        tensors=_each_once(weights, path),
        trainer=str(found.get("trainer_name", "")),
        configuration=str(arguments.get("configuration", "")),
        mirror_axes=tuple(map(int, found.get("inference_allowed_mirroring_axes") or ())),
        epochs=int(found.get("current_epoch") or 0),
        pseudo_dice=_number(found.get("_best_ema")),
        history=tuple(_history(logging if isinstance(logging, Mapping) else {})),
    )


def _allowed() -> list[Any]:
    """Numbers of numpy, by the names of its versions, and torch's devices."""
    scalar: Any = np.float64(0).__reduce__()[0]
    types = [type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "?")]
    return [scalar, (scalar, OLD_SCALAR), np.dtype, torch.device, *types]


def _each_once(weights: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Tensors without wrappers' prefixes and without those that stand there again.

    Raises CheckpointError where a tensor and its second name differ: nobody could say which holds.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = str(name)
        while short.startswith(WRAPPERS):
            short = short.split(".", 1)[1]
        if isinstance(tensor, Tensor):
            plain[short] = tensor
    kept: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        first = _first_name(name)
        if first in kept and not _equal(kept[first], tensor):
            raise CheckpointError(
                "A tensor of this checkpoint stands there twice, with different values.",
                where=str(path),
                met=f"'{name}', which is '{first}' again",
            )
        kept[first] = tensor
    return kept


def _first_name(name: str) -> str:
    for again, first in AGAIN:
        name = name.replace(again, first)
    return name


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _history(logging: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row an epoch from nnU-Net's lists, in the words of our own histories."""
    names = {
        "loss": "train_losses",
        "selection_loss": "val_losses",
        "selection_dice": "mean_fg_dice",
    }
    kept: dict[str, Sequence[Any]] = {name: logging.get(key) or () for name, key in names.items()}
    for epoch in range(len(kept["loss"])):
        values = {n: _number(rows[epoch]) for n, rows in kept.items() if epoch < len(rows)}
        yield {"epoch": epoch, "stage": 0, **values}


# --- and back -----------------------------------------------------------------------------
def write_foreign_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    trainer: str,
    mirror_axes: Sequence[int],
    epochs: int,
    arguments: Mapping[str, Any],
) -> None:
    """Write what nnU-Net loads to answer: every tensor by all of its names, stored once.

    ``arguments`` are those of its trainer: plans, configuration, fold, dataset_json. Raises
    MachineError where the disk is full.
    """
    document = {
        "network_weights": {
            again: tensor for name, tensor in tensors.items() for again in _all_names(name)
        },
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": None,
        "_best_ema": None,
        "current_epoch": epochs,
        "init_args": dict(arguments),
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": tuple(mirror_axes) or None,
    }
    # Through memory: torch turns the errors of a full disk into others.
    whole = io.BytesIO()
    torch.save(document, whole)
    with replacing(path) as file:
        file.write(whole.getbuffer())


def _all_names(name: str) -> Iterator[str]:
    places = [name]
    (again, first), *layers = AGAIN
    if name.startswith(first):
        places.append(again + name.removeprefix(first))
    for place in places:
        yield place
        for again, first in layers:
            if first in place:
                yield place.replace(first, again)
