"""An optimised model, ready to answer through the same steps as its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from medtool.config import changed_task, task_from_document
from medtool.core.checkpoint import read_header
from medtool.core.deployed import Deployed, verify_deployed
from medtool.core.ensemble import members_of
from medtool.core.errors import UsageError
from medtool.predict.deployed_probe import EXACT, stored_inputs
from medtool.predict.engines.choose import choose_engine
from medtool.predict.engines.contract import AUTO_ENGINE

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.predict.engines.contract import Engine
    from medtool.predict.model import Model


def load_deployed(
    deployed: Deployed,
    *,
    engine: str = "",
    device: str = "auto",
    threads: int | None = None,
    assignments: Sequence[str] = (),
) -> Model:
    """The model in ``deployed``, whose network is an engine; tensors stay on the processor.

    Raises as ``choose_engine``, and CheckpointError where a file is not the one that was made.
    """
    from medtool.predict.model import Model

    verify_deployed(deployed)
    header = read_header(deployed.head)
    task = deployed_task(deployed, assignments)
    inputs = stored_inputs(deployed) if engine == AUTO_ENGINE else None
    chosen = choose_engine(deployed, engine, device=device, threads=threads, inputs=inputs)
    return Model(
        task=task,
        network=task.answered_by(chosen.engine).eval(),
        device=torch.device("cpu"),
        autocast_type=None,
        header=header,
        # An engine may read another file than the one that was named.
        path=chosen.deployed.file,
        found=chosen.said,
        engine=chosen.engine,
        arithmetic=chosen.deployed.arithmetic,
    )


def require_own_precision(deployed: Deployed, precision: str) -> None:
    """Raises UsageError where another arithmetic is asked for than the file has."""
    own = "32" if deployed.arithmetic == EXACT else deployed.arithmetic
    if precision not in ("auto", own):
        raise UsageError(
            "The arithmetic of an optimised model is that of its file.",
            where=str(deployed.file),
            met=f"--precision {precision}",
            wanted=deployed.arithmetic,
            how="leave --precision out; or name another file of the folder.",
        )


def engine_model(model: Model, engine: Engine) -> Model:
    """``model``, answered by ``engine``, which runs what was exported of it.

    Of several members one file answers for all: their task is that of the first.
    """
    task = model.task
    if model.members:
        task = model.members[0].task.standing_for(len(model.members))
    return replace(
        model,
        task=task,
        network=task.answered_by(engine).eval(),
        device=torch.device("cpu"),
        autocast_type=None,
        members=(),
        engine=engine,
    )


def deployed_task(deployed: Deployed, assignments: Sequence[str] = ()) -> Task:
    """The task of an optimised model, changed; of several members in one file that of the first."""
    header = read_header(deployed.head)
    members = members_of(header)
    document = members[0].document if members else header.document
    task = task_from_document(str(document["task"]), document["preset"])
    task = changed_task(task, assignments)
    return task.standing_for(len(members)) if members else task
