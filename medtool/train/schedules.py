"""How learning rates change within a run: factors on the rates of the stages, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

# Exponent of the polynomial decay, as nnU-Net and DeepLab use it.
POLY_EXPONENT = 0.9


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _poly(progress: float) -> float:
    return float((1.0 - min(1.0, progress)) ** POLY_EXPONENT)


# Factor at a progress of 0 (first step) to 1 (after the last step). ``plateau`` changes by what
# the epochs gave, not by progress: see Plateau.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "poly": _poly,
    "plateau": _constant,
}


def warm_up(steps_since_begin: int, warm_up_steps: float) -> float:
    """Factor that rises linearly to 1 over ``warm_up_steps``; the first step is not 0."""
    return 1.0 if warm_up_steps <= 0 else min(1.0, (steps_since_begin + 1) / warm_up_steps)


@dataclass(frozen=True)
class Plateau:
    """The state of the schedule ``plateau``: lower the rates when nothing gets better."""

    factor: float = 1.0
    waited_epochs: int = 0

    def after_epoch(self, *, better: bool, patience: int, lower_by: float) -> Plateau:
        """The state after an epoch that was ``better`` than all before, or not."""
        if better:
            return replace(self, waited_epochs=0)
        if self.waited_epochs + 1 >= patience:
            return Plateau(self.factor * lower_by, 0)
        return replace(self, waited_epochs=self.waited_epochs + 1)
