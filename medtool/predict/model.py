"""A checkpoint, ready to answer: its task, its network on a device, its header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.config import changed_task
from medtool.config.places import known_task
from medtool.core.checkpoint import CheckpointHeader, find_checkpoint, read_header
from medtool.core.deployed import find_deployed
from medtool.core.ensemble import member_header, members_of
from medtool.core.errors import UsageError
from medtool.nets.device import choose_device, choose_precision
from medtool.nets.state import load_network
from medtool.predict.engines.contract import AUTO_ENGINE, PYTORCH
from medtool.predict.engines.presence import require_engine, require_known
from medtool.predict.layout import ready_to_answer

if TYPE_CHECKING:
    from torch import nn

    from medtool.core.task import Task
    from medtool.predict.engines.contract import Engine


@dataclass(frozen=True)
class Model:
    """What ``Task.predict`` gets; the network is in evaluation mode and on ``device``.

    Of several models together (the folds of a run) ``members`` holds each: ``predict_together`` of
    the task asks them, and ``network`` only lists theirs.
    """

    task: Task
    network: nn.Module
    device: torch.device
    autocast_type: torch.dtype | None
    header: CheckpointHeader
    path: Path
    found: str
    members: tuple[Model, ...] = ()
    # Its name among the members of its file.
    name: str = ""
    # Other models that ``Task.predict`` asks, by the names of ``Task.companions``.
    companions: Mapping[str, Model] = field(default_factory=dict)
    # What computes where it is not PyTorch: ``network`` then hands everything on to it.
    engine: Engine | None = None
    # What that engine's file computes in: float32, int8, ...
    arithmetic: str = ""

    @property
    def document(self) -> Mapping[str, Any]:
        """The checkpoint's JSON document."""
        return self.header.document

    @property
    def engine_name(self) -> str:
        """What computes."""
        return PYTORCH if self.engine is None else self.engine.name

    @property
    def computed_on(self) -> str:
        """The device, for records; engines that are no PyTorch may have one of their own."""
        return str(getattr(self.engine, "device", self.device))

    @property
    def precision(self) -> str:
        """The arithmetic, for records."""
        return self.arithmetic or str(self.autocast_type or "32").removeprefix("torch.")

    @property
    def threshold(self) -> float:
        """The decision threshold, chosen on the selection part of the training."""
        return float(self.document.get("threshold", 0.5))

    @property
    def synthetic(self) -> bool:
        """Whether it, or a model that it asks, learned from generated scans, and must not meet
        patients by accident.
        """
        own = bool(self.document.get("synthetic", False))
        return own or any(other.synthetic for other in self.companions.values())

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """No gradients, and the model's arithmetic."""
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type,
                dtype=self.autocast_type or torch.bfloat16,
                enabled=self.autocast_type is not None,
            ),
        ):
            yield


def load_model(
    path: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    assignments: Sequence[str] = (),
    engine: str = "",
    threads: int | None = None,
    alone: bool = False,
) -> Model:
    """The model in ``path``: a checkpoint file, a run's folder (its selected best), or an
    optimised model (its folder, or a file in it).

    ``assignments`` (``infer.step=1.0``) change how it answers, in place of what it was trained
    with, and not the models that it asks in its turn; ``alone`` leaves those out, for what looks at
    the network only. ``engine`` and ``threads`` are for optimised models: by default the one that
    the file is for.

    Raises CheckpointError (no usable checkpoint), UnknownNameError (its task is not installed),
    UsageError (several models that its task does not let answer together; a model that it asks is
    not known), MachineError (no such device).
    """
    if engine not in ("", AUTO_ENGINE):
        require_known(engine)
    file, found = find_checkpoint(path)
    deployed = find_deployed(file)
    if deployed is not None:
        from medtool.predict.deployed_model import load_deployed, require_own_precision

        require_own_precision(deployed, precision)
        model = load_deployed(
            deployed, engine=engine, device=device, threads=threads, assignments=assignments
        )
        return model if alone else with_companions(model, device=device, precision=precision)
    _require_pytorch(engine, file)
    header = read_header(file)
    chosen = choose_device(device)
    kind = choose_precision(precision, chosen)
    members = tuple(
        replace(_loaded(member_header(header, m), m.name, chosen, kind, assignments), found=found)
        for m in members_of(header)
    )
    if not members:
        model = replace(_loaded(header, "", chosen, kind, assignments), found=found)
    else:
        members[0].task.require_together([member.task for member in members])
        model = replace(
            members[0],
            network=torch.nn.ModuleList(member.network for member in members),
            header=header,
            members=members,
            name="",
        )
    return model if alone else with_companions(model, device=device, precision=precision)


def _require_pytorch(engine: str, file: Path) -> None:
    if engine not in ("", AUTO_ENGINE, PYTORCH):
        require_engine(engine)
        raise UsageError(
            "A checkpoint is answered by PyTorch; other engines have files of their own.",
            where=str(file),
            met=f"--engine {engine}",
            how=f"'medtool optimize {file} -o FOLDER' makes them.",
        )


def with_companions(model: Model, *, device: str, precision: str) -> Model:
    """The model with the other models that its settings say it asks. Raises as ``load_model``."""
    named = model.task.companions()
    unknown = sorted(set(model.document.get("companions", ())) - set(named))
    if unknown:
        # Without them it would answer, and otherwise than it was judged.
        raise _unknown_companions(model, unknown)
    others = {
        name: load_model(other, device=device, precision=precision) for name, other in named.items()
    }
    return replace(model, companions=others)


def _unknown_companions(model: Model, names: Sequence[str]) -> UsageError:
    options = " ".join(f"--{name} FILE" for name in names)
    return UsageError(
        "This model asks other models, and a checkpoint does not keep where they lie.",
        where=str(model.path),
        met=f"nothing says where to find: {', '.join(names)}",
        wanted="the checkpoint of each",
        how=f"name them to 'medtool infer' ({options}), or name the folder of the run, which "
        "knows them.",
    )


def _loaded(
    header: CheckpointHeader,
    name: str,
    device: torch.device,
    autocast_type: torch.dtype | None,
    assignments: Sequence[str],
) -> Model:
    """One model of the file: the only one, or the member ``name``."""
    task = changed_task(known_task(header), assignments)
    network = task.network()
    load_network(header.path, network, member=name)
    return Model(
        task=task,
        network=ready_to_answer(network, device),
        device=device,
        autocast_type=autocast_type,
        header=header,
        path=header.path,
        found="",
        name=name,
    )
