"""How far an answer may be from the one that was stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Largest difference allowed, as a share of the range of the output.
TOLERANCE_FLOAT32 = 1e-4
TOLERANCE_REDUCED = 1e-2


@dataclass(frozen=True)
class ProbeResult:
    """How far an answer is from the one that was stored."""

    largest_difference: float
    output_range: float
    tolerance: float

    @property
    def share(self) -> float:
        """The difference as a share of the output's range."""
        return self.largest_difference / self.output_range

    @property
    def passed(self) -> bool:
        """Whether the answer is the stored one, within the tolerance."""
        return math.isfinite(self.share) and self.share <= self.tolerance


def output_range(lowest: float, highest: float) -> float:
    """The range of answers between two values.

    A single number has no range of its own; its size, or that of a logit, stands for it.
    """
    return max(highest - lowest, abs(highest), abs(lowest), 1.0)
