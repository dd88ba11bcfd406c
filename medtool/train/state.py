"""The live state as a checkpoint, and a checkpoint as live state: exact, without pickle.

``model.*`` are the weights that answer (the moving average, where there is one); with an average,
``optimizer.weights.*`` are those that learn. ``optimizer.state.<parameter>.<name>`` is what the
optimiser keeps for each parameter, ``optimizer.buffers.*`` what a network keeps for training alone
(its buffers that are not persistent). Rates, frozen parts and the order of the optimiser's groups
follow from the plan and the epoch, so they are worked out again, never loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtool.core.checkpoint import CheckpointHeader, RawTensor, read_header
from medtool.core.errors import CheckpointError
from medtool.nets.state import MODEL_PREFIX, fill, raw_tensor, read_tensors
from medtool.train.live import Best, Live, LossSums
from medtool.train.plan import plan_from_document
from medtool.train.schedules import Plateau

OPTIMISER_PREFIX = "optimizer.state."
WEIGHTS_PREFIX = "optimizer.weights."
BUFFERS_PREFIX = "optimizer.buffers."
RANDOM_NAME = "rng.torch"


def training_tensors(live: Live) -> Iterator[RawTensor]:
    """Every tensor that the state is made of: ``model.*``, ``optimizer.*``, ``rng.*``."""
    for name, tensor in live.answering_weights().items():
        yield raw_tensor(MODEL_PREFIX + name, tensor)
    if live.average:
        for name, tensor in live.network.state_dict().items():
            yield raw_tensor(WEIGHTS_PREFIX + name, tensor)
    for name, parameter in live.network.named_parameters():
        kept = live.optimiser.state.get(parameter, {}) if live.optimiser is not None else {}
        for key, value in kept.items():
            if isinstance(value, Tensor):
                yield raw_tensor(f"{OPTIMISER_PREFIX}{name}.{key}", value)
    for name, tensor in _passing_buffers(live):
        yield raw_tensor(BUFFERS_PREFIX + name, tensor)
    yield raw_tensor(RANDOM_NAME, torch.get_rng_state())


def _passing_buffers(live: Live) -> Iterator[tuple[str, Tensor]]:
    """What the network keeps for its training and is none of it, such as a memory of patients."""
    kept = live.network.state_dict()
    yield from ((name, one) for name, one in live.network.named_buffers() if name not in kept)


def training_document(live: Live, scaler: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The plain part of the state: keys ``plan``, ``epoch``, ``step``, ``history``, ``live``.

    ``epoch`` is the last one that is over (from 0; -1 for none), ``step`` counts all steps so far;
    where the run goes on stands in ``live``.
    """
    return {
        "plan": live.plan.as_document(),
        "epoch": live.epoch - 1,
        "step": live.epoch * live.plan.steps_per_epoch + live.step,
        "history": list(live.history),
        "live": {
            "epoch": live.epoch,
            "step": live.step,
            "losses": live.losses.values(),
            "cases_seen": live.cases_seen,
            "seconds": live.seconds,
            "waiting_s": live.waiting_s,
            "plateau": asdict(live.plateau),
            "best": asdict(live.best) if live.best is not None else None,
            "scaler": dict(scaler or {}),
        },
    }


def restore(path: Path, live: Live) -> CheckpointHeader:
    """Put ``live`` where it stood when ``path`` was written; its plan becomes the file's.

    Raises CheckpointError where the file was slimmed, or belongs to another network.
    """
    header = read_header(path)
    document = header.document
    if header.is_slim or "live" not in document:
        raise CheckpointError(
            "This checkpoint can answer but not learn on: it was slimmed.",
            where=str(path),
            wanted="a checkpoint with the state of its optimiser",
            how="resume from another checkpoint of the run.",
        )
    _check_size_of_steps(path, live, document["plan"])
    live.plan = plan_from_document(document["plan"])
    live.history = [dict(row) for row in document["history"]]
    kept = document["live"]
    live.epoch, live.step = int(kept["epoch"]), int(kept["step"])
    live.losses = LossSums(kept["losses"])
    live.cases_seen = int(kept["cases_seen"])
    live.seconds, live.waiting_s = float(kept["seconds"]), float(kept["waiting_s"])
    live.plateau = Plateau(**kept["plateau"])
    live.best = _best(kept["best"])
    answering = dict(read_tensors(path, MODEL_PREFIX))
    learning = dict(read_tensors(path, WEIGHTS_PREFIX))
    fill(live.network, learning or answering, where=str(path))
    if live.average:
        for name, tensor in live.average.items():
            tensor.copy_(answering[name])
    _restore_optimiser(path, live)
    passing = dict(read_tensors(path, BUFFERS_PREFIX))
    for name, buffer in _passing_buffers(live):
        if name in passing:
            buffer.copy_(passing[name])
    torch.set_rng_state(dict(read_tensors(path, RANDOM_NAME))[""])
    return header


def _best(document: Mapping[str, Any] | None) -> Best | None:
    if document is None:
        return None
    # What is no number is null in JSON.
    value, loss = (
        float("nan") if document[key] is None else float(document[key]) for key in ("value", "loss")
    )
    return Best(int(document["epoch"]), value, loss)


def _restore_optimiser(path: Path, live: Live) -> None:
    # The stage of the resumed epoch comes first: it decides which parameters are in the optimiser.
    # An epoch that is over belongs to the stage that it was in until the next one begins.
    live.enter_stage()
    parameters = dict(live.network.named_parameters())
    for name, tensor in read_tensors(path, OPTIMISER_PREFIX):
        parameter_name, key = name.rsplit(".", 1)
        parameter = parameters[parameter_name]
        # Adam's step counts stay on the CPU, as torch makes them.
        device = "cpu" if key == "step" else parameter.device
        # A copy also on the CPU: what was read is a view that keeps the file mapped, and Windows
        # lets nobody replace a mapped file, which the next checkpoint would do.
        live.optimiser.state[parameter][key] = tensor.to(device, copy=True)


def _check_size_of_steps(path: Path, live: Live, plan: Mapping[str, Any]) -> None:
    if plan["cases_per_step"] != live.plan.cases_per_step:
        raise CheckpointError(
            "This run cannot go on with steps of another size.",
            where=str(path),
            met=f"{live.plan.cases_per_step} cases a step (devices x batch x accumulated)",
            wanted=f"{plan['cases_per_step']} cases a step, as the run began",
            how="keep devices x batch_cases x accumulate as they were.",
        )
