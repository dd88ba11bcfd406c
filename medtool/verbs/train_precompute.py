"""What a task computes once before a training, instead of at every step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.progress import Reporter
from medtool.core.records import Case
from medtool.train.plan import Plan
from medtool.verbs.train_run import new_network

if TYPE_CHECKING:
    import torch

    from medtool.core.task import Task
    from medtool.nets.widths import Widths

FEATURES_FOLDER = "features"


@dataclass(frozen=True)
class Precomputed:
    """Files for ``examples``, and what making those of one case took and takes on the disk."""

    paths: Mapping[str, Path]
    case_s: float = 0.0
    case_bytes: int = 0


def precompute(
    task: Task,
    weights: Mapping[str, torch.Tensor],
    plan: Plan,
    training: Sequence[Case],
    selection: Sequence[Case],
    prepared: Mapping[str, Path],
    run: Path,
    *,
    device: torch.device,
    pruned: Widths | None = None,
    reporter: Reporter | None = None,
) -> Precomputed:
    """``task.precompute`` with the weights that the training starts from, kept in ``run``."""
    network = new_network(task, pruned)
    network.load_state_dict(dict(weights))
    learning = {group for stage in plan.stages for group in stage.rates}
    began = time.perf_counter()
    paths = task.precompute(
        network,
        training,
        selection,
        prepared,
        run / FEATURES_FOLDER,
        learning=learning,
        device=device,
        reporter=reporter,
    )
    made = [path for case, path in paths.items() if path != prepared.get(case)]
    if not made:
        return Precomputed(paths)
    return Precomputed(
        paths,
        case_s=(time.perf_counter() - began) / len(made),
        case_bytes=max(path.stat().st_size for path in made),
    )
