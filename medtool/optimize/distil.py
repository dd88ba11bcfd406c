"""Distillation: a pruned network also learns to say what the whole one says (Hinton 2015).

Both see the same examples with the same random changes. What is compared are the values of the
last layers, wherever the task's own loss calls them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from medtool.core.records import Batch
    from medtool.core.task import Task

# From this probability on the teacher is said to see something at a place.
SEEN = 0.05


class DistilledTask:
    """A task whose loss is (1 - weight) of its own and ``weight`` of agreeing with ``teacher``.

    ``heads`` names the layers that are compared. All else is the task's.
    """

    def __init__(
        self,
        task: Task,
        teacher: nn.Module,
        heads: Sequence[str],
        *,
        weight: float,
        temperature: float,
    ) -> None:
        self._task = task
        self._teacher = as_teacher(teacher)
        self._heads = tuple(heads)
        self._weight = weight
        self._temperature = temperature

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        self._teacher.to(device)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Those of the task, ``loss`` mixed, and ``distillation``."""
        with torch.no_grad(), said_by(self._teacher, self._heads) as wanted:
            self._task.losses(self._teacher, batch)
        with said_by(network, self._heads) as said:
            found = self._task.losses(network, batch)
        parts = [
            disagreement(ours, theirs, temperature=self._temperature)
            for ours, theirs in zip(said, wanted, strict=True)
        ]
        agreeing = torch.stack(parts).mean()
        loss = (1 - self._weight) * found["loss"] + self._weight * agreeing
        return {**found, "loss": loss, "distillation": agreeing}


def as_teacher(network: nn.Module) -> nn.Module:
    """``network`` as it answers, but at all resolutions that it has only in training.

    Nothing in it moves: no weight, no statistic; nothing is dropped.
    """
    network.requires_grad_(False)
    network.train()
    for module in network.modules():
        if next(module.children(), None) is None:
            module.eval()
    return network


@contextmanager
def said_by(network: nn.Module, names: Sequence[str]) -> Iterator[list[Tensor]]:
    """The values of these layers, in the order in which they are called within it."""
    said: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        said.append(output)

    hooks = [network.get_submodule(name).register_forward_hook(note) for name in names]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


def disagreement(logits: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """How far ``logits`` are from ``wanted``, each a number of its own: 0 where they are equal.

    The Kullback-Leibler divergence of the two chances, logits divided by the temperature, times
    its square, so that gradients keep their size. Of maps (n, outputs, ...) the places where the
    wanted chance is not nearly nothing count as much as all others together: lesions are small.
    """
    ours, theirs = logits.float() / temperature, wanted.float() / temperature
    chance = torch.sigmoid(theirs)
    # What cannot be got rid of: the entropy of the wanted chances.
    entropy = F.binary_cross_entropy_with_logits(theirs, chance, reduction="none")
    apart = F.binary_cross_entropy_with_logits(ours, chance, reduction="none") - entropy
    if logits.ndim <= 2:
        return apart.mean() * temperature**2
    seen = (torch.sigmoid(wanted.float()) > SEEN).float()
    parts = [(apart * mask).sum() / mask.sum() for mask in (seen, 1 - seen) if bool(mask.sum() > 0)]
    return torch.stack(parts).mean() * temperature**2
