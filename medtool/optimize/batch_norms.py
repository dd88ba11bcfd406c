"""Statistics of batch norms, estimated anew: after channels left, the old ones are of sums that
are no longer made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.progress import Reporter, Silent
from medtool.core.randomness import generator
from medtool.core.records import Case, ExampleKey
from medtool.nets.freezing import batch_norms
from medtool.train.loader import BatchLoader, batch_to_device

if TYPE_CHECKING:
    from torch import nn

    from medtool.core.task import Task

# Cases that are looked at: means and variances of whole maps need no more.
MOST_CASES = 64


def estimate_batch_norms(
    task: Task,
    network: nn.Module,
    cases: Sequence[Case],
    prepared: Mapping[str, Path],
    *,
    most_cases: int = MOST_CASES,
    autocast: AbstractContextManager[Any] | None = None,
    reporter: Reporter | None = None,
) -> int:
    """Set mean and variance of each batch norm to the means over training cases; how many cases.

    ``cases`` are seen as they are, without random changes, at most ``most_cases`` of them, drawn
    by the seed of the preset; every norm averages over all batches alike (Wu and Johnson 2021,
    "Rethinking batch in batch norm"). Weights stay. 0 where there are no batch norms.
    """
    norms = batch_norms(network)
    if not norms or not cases:
        return 0
    train = task.settings.train
    order = generator("batch-norms", train.seed).permutation(len(cases))[:most_cases]
    size = min(train.batch_cases, len(order))
    loader = BatchLoader(task.examples(cases, prepared, training=False), cases)
    keys = [
        tuple(ExampleKey(train.seed, 0, int(index)) for index in order[start : start + size])
        for start in range(0, len(order), size)
    ]
    before = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    device = next(network.parameters()).device
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        # Without one it averages over all batches since the reset.
        norm.momentum = None
        norm.train()
    bar = (reporter or Silent()).progress("Batch norms, estimated anew", len(keys))
    precision = autocast or torch.autocast(device.type, enabled=False)
    with bar as advance, torch.no_grad(), precision:
        for batch in loader.batches(keys):
            task.validate(network, batch_to_device(batch, device))
            advance(1)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in before.items():
        module.training = training
    return len(order)
