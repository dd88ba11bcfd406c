"""What a run will do, fixed before its first step: epochs, steps, stages, rates.

A plan is made from the preset once, perhaps shortened to the time that was given, and then kept in
the run and in every checkpoint: a resumed run follows the plan it began with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from medtool.config.sections import TrainSection
from medtool.core.errors import UsageError
from medtool.core.names import nearest_name
from medtool.train.schedules import SCHEDULES, warm_up


@dataclass(frozen=True)
class Stage:
    """From ``from_epoch`` on, the groups in ``rates`` learn; all others are frozen."""

    from_epoch: int
    rates: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """A whole run in numbers. ``cases_per_step`` counts all devices and accumulated batches."""

    epochs: int
    steps_per_epoch: int
    cases_per_step: int
    stages: tuple[Stage, ...]
    schedule: str = "constant"
    warm_up_epochs: float = 0.0
    minutes: float | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def stage_index(self, epoch: int) -> int:
        """Number of the stage that ``epoch`` belongs to."""
        return max(i for i, stage in enumerate(self.stages) if stage.from_epoch <= epoch)

    def ends_stage(self, epoch: int) -> bool:
        """Whether ``epoch`` is the last of its stage."""
        return epoch + 1 == self.epochs or self.stage_index(epoch + 1) != self.stage_index(epoch)

    def rates(self, epoch: int, step: int, plateau_factor: float = 1.0) -> dict[str, float]:
        """Rate of each group that learns, at ``step`` (from 0) of ``epoch``."""
        done = epoch * self.steps_per_epoch + step
        factor = SCHEDULES[self.schedule](done / self.steps) * plateau_factor
        warm_up_steps = self.warm_up_epochs * self.steps_per_epoch
        return {
            group: rate
            * factor
            * warm_up(done - self._began(group, epoch) * self.steps_per_epoch, warm_up_steps)
            for group, rate in self.stages[self.stage_index(epoch)].rates.items()
        }

    def _began(self, group: str, epoch: int) -> int:
        """First epoch of the unbroken row of stages, up to ``epoch``, in which ``group`` learns."""
        began = epoch
        for stage in reversed(self.stages[: self.stage_index(epoch) + 1]):
            if group not in stage.rates:
                break
            began = stage.from_epoch
        return began

    def shortened(self, epochs: int, steps_per_epoch: int | None = None) -> Plan:
        """The same stages squeezed into ``epochs``; each keeps at least one epoch."""
        begins: list[int] = []
        for number, stage in enumerate(self.stages):
            scaled = round(stage.from_epoch * epochs / self.epochs)
            least = begins[-1] + 1 if begins else 0
            # Room for the stages that follow, one epoch each.
            most = epochs - (len(self.stages) - number)
            begins.append(min(max(scaled, least), max(most, least)))
        stages = tuple(
            Stage(begin, stage.rates) for begin, stage in zip(begins, self.stages, strict=True)
        )
        steps = self.steps_per_epoch if steps_per_epoch is None else steps_per_epoch
        return replace(self, epochs=epochs, stages=stages, steps_per_epoch=steps)

    def as_document(self) -> dict[str, Any]:
        """Plain values for run.json and checkpoints."""
        return asdict(self)


def plan_from_document(document: Mapping[str, Any]) -> Plan:
    """The plan that ``Plan.as_document`` gave."""
    stages = tuple(Stage(int(s["from_epoch"]), dict(s["rates"])) for s in document["stages"])
    return Plan(**{**document, "stages": stages})


def make_plan(train: TrainSection, groups: Sequence[str], *, cases: int, devices: int = 1) -> Plan:
    """The plan for ``cases`` training cases on ``devices`` devices.

    Raises UsageError where a stage names a group that the network does not have, or where stages
    are not in order.
    """
    if train.stages:
        stages = tuple(Stage(s.from_epoch, dict(s.rates)) for s in train.stages)
    else:
        stages = (Stage(0, dict.fromkeys(groups, train.learning_rate)),)
    _check_stages(stages, groups, train.epochs)
    cases_per_step = train.batch_cases * train.accumulate * devices
    return Plan(
        epochs=train.epochs,
        steps_per_epoch=-(-cases * train.examples_per_case // cases_per_step),
        cases_per_step=cases_per_step,
        stages=stages,
        schedule=train.schedule,
        warm_up_epochs=train.warmup_epochs,
    )


def _check_stages(stages: Sequence[Stage], groups: Sequence[str], epochs: int) -> None:
    begins = [stage.from_epoch for stage in stages]
    if begins[0] != 0 or begins != sorted(set(begins)) or begins[-1] >= epochs:
        raise UsageError(
            "The stages of this preset do not follow each other.",
            where="[[train.stages]]",
            met="from_epoch " + ", ".join(str(begin) for begin in begins),
            wanted=f"0 first, then rising, all below the {epochs} epochs of the run",
            how="change from_epoch of the stages, or train.epochs.",
        )
    for number, stage in enumerate(stages):
        unknown = sorted(set(stage.rates) - set(groups))
        if unknown or not stage.rates:
            raise UsageError(
                "A stage names no part of this network.",
                where=f"stage {number + 1} of [[train.stages]]",
                met=", ".join(unknown) or "no rates",
                wanted="rates for some of: " + ", ".join(groups),
                nearest=nearest_name(unknown[0], groups) if unknown else "",
            )
