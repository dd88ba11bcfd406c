"""Whether Monte Carlo passes survive in a file: means and maps of uncertainty beside PyTorch's.

Both answer the same cases with passes of the same keys, so that every pass drops the same features
and what differs is the arithmetic. Compared are the maps that ``infer`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from medtool.core.records import Case, Prediction
from medtool.predict.answers import Answers
from medtool.tasks.segmentation_predict import PROBABILITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.config.optimize_section import OptimizeSection
    from medtool.core.task import Task
    from medtool.predict.model import Model

# Voxels of a map that are ranked, evenly spread: sorting those of a whole body takes long.
RANKED_VOXELS = 2**20
# Where both means say less, both say background: most of a map, which would hide everything else.
FOUND = 0.05


@dataclass(frozen=True)
class PassesBeside:
    """The passes of a file beside PyTorch's, over ``cases`` cases.

    ``mean`` is the absolute difference of the mean of the passes, averaged over the voxels of a
    case where either is at least ``FOUND``, of the case where it is largest; ``largest`` that at
    any voxel. ``correlation`` is Spearman's
    between the maps of uncertainty, of the case where it is least. What no case has is None. The
    first may be ``most_mean``, the last has to be ``least_correlation``.
    """

    mean: float | None
    largest: float | None
    correlation: float | None
    cases: int
    most_mean: float
    least_correlation: float

    @property
    def share(self) -> float:
        """The larger of both differences as a share of what is allowed; infinite for no number."""
        shares = [0.0]
        if self.mean is not None:
            shares.append(self.mean / self.most_mean if isfinite(self.mean) else inf)
        if self.correlation is not None:
            room = max(1 - self.least_correlation, 1e-9)
            shares.append((1 - self.correlation) / room if isfinite(self.correlation) else inf)
        return max(shares)

    @property
    def kept(self) -> bool:
        """Whether both hold; a sum of many numbers rounds."""
        return self.share <= 1 + 1e-9

    def line(self) -> str:
        """The comparison as a sentence."""
        if not self.cases:
            return "Monte Carlo passes: the answers hold no maps of them"
        parts = []
        if self.mean is not None:
            parts.append(
                f"means differ from PyTorch's by {self.mean:.4f} where they find anything (may be "
                f"{self.most_mean:g}) and by {self.largest:.3f} at a voxel"
            )
        if self.correlation is not None:
            parts.append(
                f"rank correlation of the maps of uncertainty {self.correlation:.3f} (has to be "
                f"{self.least_correlation:g})"
            )
        told = ", ".join(parts) or "nothing in them varies"
        return f"Monte Carlo passes, the worst of {self.cases} cases: {told}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "kept": self.kept}


def has_passes(model: Model) -> bool:
    """Whether what is exported of ``model`` takes the masks of passes."""
    task = model.members[0].task if model.members else model.task
    return bool(task.exported_deployment().stochastic_from)


def with_means(model: Model) -> Model:
    """``model`` with answers that hold the mean of its passes as a map, where it has passes."""
    if not has_passes(model):
        return model
    members = tuple(replace(one, task=_telling(one.task)) for one in model.members)
    return replace(model, task=_telling(model.task), members=members)


def _telling(task: Task) -> Task:
    infer: Any = getattr(task.settings, "infer", None)
    if getattr(infer, PROBABILITIES, True):
        return task
    told = copy(task)
    asked = infer.model_copy(update={PROBABILITIES: True})
    told.settings = task.settings.model_copy(update={"infer": asked})
    return told


def passes_beside(
    before: Answers, after: Answers, cases: Sequence[Case], settings: OptimizeSection
) -> PassesBeside:
    """The maps of ``after`` beside those of ``before`` in ``cases``, read one case at a time.

    Cases without an answer after are left out: whoever judges refuses them.
    """
    means: list[tuple[float, float]] = []
    correlations: list[float] = []
    compared = 0
    for case in cases:
        if case.case_id not in after.rows:
            continue
        wanted, found = _maps(before.prediction(case)), _maps(after.prediction(case))
        compared += bool(wanted)
        for name, truth in wanted.items():
            other = found.get(name)
            if name == PROBABILITIES:
                means.append(_apart(truth, other))
            elif (alike := _ranked_alike(truth, other)) is not None:
                correlations.append(alike)
    return PassesBeside(
        mean=max((mean for mean, _ in means), default=None),
        largest=max((largest for _, largest in means), default=None),
        correlation=min(correlations, default=None),
        cases=compared,
        most_mean=settings.passes_mean,
        least_correlation=settings.passes_correlation,
    )


def _maps(prediction: Prediction) -> Mapping[str, NDArray[Any]]:
    """What an answer holds of numbers by voxel: masks are whole numbers."""
    return {
        name: array
        for name, array in prediction.arrays.items()
        if np.issubdtype(array.dtype, np.floating)
    }


def _apart(truth: NDArray[Any], other: NDArray[Any] | None) -> tuple[float, float]:
    """The mean absolute difference where either finds anything, and the largest; infinite where
    there is no number.
    """
    if other is None or other.shape != truth.shape or not np.isfinite(other).all():
        return inf, inf
    apart = np.abs(other - truth)
    found = apart[np.maximum(other, truth) >= FOUND]
    mean = float(found.mean(dtype=np.float64)) if found.size else 0.0
    return mean, float(apart.max(initial=0.0))


def _ranked_alike(truth: NDArray[Any], other: NDArray[Any] | None) -> float | None:
    """Spearman's correlation; None where the original ranks nothing.

    0 where only the other ranks nothing, -inf where it is no number.
    """
    # An odd step meets every column of maps whose width is even.
    step = (truth.size // RANKED_VOXELS) | 1
    one = truth.reshape(-1)[::step]
    if not one.size or not np.ptp(one):
        return None
    if other is None or other.shape != truth.shape or not np.isfinite(other).all():
        return -inf
    two = other.reshape(-1)[::step]
    return float(stats.spearmanr(one, two).statistic) if np.ptp(two) else 0.0
