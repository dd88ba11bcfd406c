"""The live state of a run: network, optimiser, average, and where the run stands.

Everything that decides the next step is here and can be taken out as tensors and plain values
(``medtool.train.state``); nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from medtool.config.sections import TrainSection
from medtool.nets.freezing import keep_frozen_statistics, set_learning
from medtool.train.plan import Plan
from medtool.train.schedules import Plateau
from medtool.train.stages import (
    Groups,
    check_groups,
    make_optimiser,
    parameter_groups,
)

# The average moves by at least this many-th of its way at first, as in TensorFlow's moving
# average with num_updates: (1 + n) / (10 + n) bounds the decay of step n.
FIRST_STEPS_OF_AVERAGE = 10


@dataclass(frozen=True)
class Best:
    """The epoch that was best so far, by the primary metric (losses settle ties)."""

    epoch: int
    value: float
    loss: float


class LossSums:
    """Losses weighted by cases, summed on the device: asking for them waits for it."""

    def __init__(self, begun: Mapping[str, float] | None = None) -> None:
        self._begun = dict(begun or {})
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], cases: int) -> None:
        """Add the mean losses of ``cases`` cases."""
        for name, value in losses.items():
            # Apple's devices have no 64-bit numbers.
            wide = torch.float32 if value.device.type == "mps" else torch.float64
            if name not in self._sums:
                begun = self._begun.get(name, 0.0)
                self._sums[name] = torch.tensor(begun, dtype=wide, device=value.device)
            self._sums[name] += value.detach().to(wide) * cases

    def values(self) -> dict[str, float]:
        """The sums so far, with those that a resumed epoch began with."""
        return {**self._begun, **{name: float(value) for name, value in self._sums.items()}}


@dataclass
class Live:
    """What changes while a run goes on. ``epoch`` and ``step`` name the step that comes next."""

    network: nn.Module
    groups: Groups
    train: TrainSection
    plan: Plan
    optimiser: Any = None
    # Names of groups in the order in which they joined the optimiser.
    joined: list[str] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    best: Best | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: LossSums = field(default_factory=LossSums)
    cases_seen: int = 0
    seconds: float = 0.0
    waiting_s: float = 0.0

    def __post_init__(self) -> None:
        check_groups(self.network, self.groups)
        if self.train.average_decay > 0 and not self.average:
            self.average = {
                name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()
            }

    def learning(self) -> set[str]:
        """Groups that learn in the epoch that comes next."""
        return set(self.plan.stages[self.plan.stage_index(self.epoch)].rates)

    def enter_stage(self) -> None:
        """Freeze and thaw for ``epoch``; groups join the optimiser and keep what others hold.

        Stages are walked from the first on, so that groups join in the same order whether a run
        was resumed or not.
        """
        for stage in self.plan.stages[: self.plan.stage_index(self.epoch) + 1]:
            for name in self.groups:
                if name in stage.rates and name not in self.joined:
                    self._join(name)
        set_learning(self.groups, self.learning())
        for parameter in self.network.parameters():
            if not parameter.requires_grad:
                parameter.grad = None

    def _join(self, name: str) -> None:
        added = list(parameter_groups(self.groups, name, self.train.weight_decay))
        if self.optimiser is None and added:
            self.optimiser = make_optimiser(self.train, added)
        else:
            for group in added:
                self.optimiser.add_param_group(group)
        self.joined.append(name)

    def train_mode(self) -> None:
        """Training mode for what learns, evaluation mode for what is frozen."""
        self.network.train()
        keep_frozen_statistics(self.network)

    def rates(self, step: int) -> dict[str, float]:
        """Rates of the groups that learn at ``step`` of ``epoch``, lowered by the plateau."""
        least = self.train.plateau_least_rate
        return {
            name: max(rate * self.plateau.factor, min(rate, least))
            for name, rate in self.plan.rates(self.epoch, step).items()
        }

    def set_rates(self) -> dict[str, float]:
        """Set the rates of the step that comes next in the optimiser, and give them."""
        rates = self.rates(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rates.get(group["group"], 0.0)
        return rates

    def update_average(self) -> None:
        """Move the average a little towards the weights; counts and flags are copied.

        Over the first steps it moves faster: else a short run would answer with what it began
        with.
        """
        if not self.average:
            return
        taken = self.epoch * self.plan.steps_per_epoch + self.step
        decay = min(self.train.average_decay, (1 + taken) / (FIRST_STEPS_OF_AVERAGE + taken))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor.detach(), 1.0 - decay)
                else:
                    self.average[name].copy_(tensor)

    def answering_weights(self) -> Mapping[str, Tensor]:
        """The weights that answer: the average where there is one."""
        return self.average or self.network.state_dict()

    def swap_average(self) -> None:
        """Exchange the network's weights and the average, in place; twice is once undone."""
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if name in self.average:
                    kept = tensor.detach().clone()
                    tensor.copy_(self.average[name])
                    self.average[name].copy_(kept)
