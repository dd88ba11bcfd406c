"""Stages on a live network: what is frozen, what learns, and the optimiser's groups.

``requires_grad = False`` alone does not freeze a part: batch norms would go on averaging. A frozen
part is in evaluation mode as well, whatever ``network.train()`` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from medtool.config.sections import TrainSection
from medtool.core.errors import UsageError

Groups = Mapping[str, list[nn.Module]]


def check_groups(network: nn.Module, groups: Groups) -> None:
    """Raise UsageError unless every parameter belongs to exactly one group."""
    owners: dict[str, list[str]] = {name: [] for name, _ in network.named_parameters()}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group, modules in groups.items():
        for module in modules:
            for parameter in module.parameters():
                owners[names[id(parameter)]].append(group)
    wrong = {name: own for name, own in owners.items() if len(own) != 1}
    if wrong:
        name, own = next(iter(wrong.items()))
        raise UsageError(
            "The groups of this network do not cover it exactly once.",
            where="the task's groups()",
            met=f"'{name}' in {own or 'no group'}" + (f", {len(wrong)} such" if wrong else ""),
            wanted="each parameter in one group",
            how="report this to the author of the task.",
        )


def make_optimiser(train: TrainSection, parameter_groups: list[dict[str, Any]]) -> Any:
    """The optimiser that the preset names; rates are set before every step."""
    if train.optimiser == "sgd":
        nesterov = train.momentum > 0
        return torch.optim.SGD(parameter_groups, lr=0.0, momentum=train.momentum, nesterov=nesterov)
    kind = torch.optim.AdamW if train.optimiser == "adamw" else torch.optim.Adam
    return kind(parameter_groups, lr=0.0)


def parameter_groups(groups: Groups, name: str, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Two groups of the optimiser for one group of the network: with and without decay.

    Biases and the weights of norms (one dimension or none) do not decay.
    """
    parameters = [p for module in groups[name] for p in module.parameters()]
    for decay, chosen in (
        (weight_decay, [p for p in parameters if p.ndim > 1]),
        (0.0, [p for p in parameters if p.ndim <= 1]),
    ):
        if chosen:
            yield {"params": chosen, "weight_decay": decay, "group": name, "lr": 0.0}


def learning_batch_norms(groups: Groups, learning: set[str]) -> list[str]:
    """Groups that learn and hold a batch norm that averages in training mode."""
    return [
        name
        for name, modules in groups.items()
        if name in learning
        and any(
            isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
            for module in modules
            for part in module.modules()
        )
    ]
