"""Which removal of pieces helps, judged on validation cases by nnU-Net's rule.

The largest piece of all foreground together is kept alone if the mean Dice over structures rises
and that of no structure falls; after that, structure by structure, if its own Dice rises (Isensee
et al. 2021; nnU-Net 2.8.1, remove_connected_components.py). Where removed voxels become another
structure, or belong to a region as well, the mean may not fall either. Least volumes of pieces,
where the caller names candidates, come last, by the same rule. Only cases that choose nothing else
may be asked, or numbers on them are optimistic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.predict.postprocess import Step, postprocessed
from medtool.score.overlap import overlap

if TYPE_CHECKING:
    from numpy.typing import NDArray

Means = dict[str, float]


@dataclass(frozen=True)
class Validated:
    """A predicted mask and its reference (z, y, x), and the size of a voxel."""

    predicted: NDArray[np.unsignedinteger[Any]]
    reference: NDArray[np.unsignedinteger[Any]]
    voxel_ml: float


@dataclass(frozen=True)
class Trial:
    """One step that was tried, with the mean Dice over cases before and after it, by structure."""

    step: Step
    accepted: bool
    before: Means
    after: Means


@dataclass(frozen=True)
class Chosen:
    """The steps to apply, in order, and everything that was tried."""

    steps: tuple[Step, ...]
    trials: tuple[Trial, ...]


def choose_postprocessing(
    cases: Sequence[Callable[[], Validated]],
    structures: Mapping[str, Sequence[int]],
    *,
    largest: bool = True,
    least_volumes_ml: Mapping[str, Sequence[float]] | None = None,
    becomes: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
) -> Chosen:
    """Steps that raise the Dice on ``cases``; each is read anew for every step that is tried.

    ``structures`` maps names to labels (a region has several), without the background;
    ``largest``: whether keeping the largest piece alone is tried; ``least_volumes_ml`` names
    candidates for some of them, of which the best is taken. Removed voxels of a structure get its
    label in ``becomes``, else background. Voxels whose reference is ``ignore_label`` count nowhere.
    """
    named = {name: tuple(labels) for name, labels in structures.items()}
    chooser = _Chooser(cases, named, ignore_label)
    under = becomes or {}
    if largest:
        _try_largest(chooser, under)
    for name, volumes_ml in (least_volumes_ml or {}).items():
        step = Step("least-volume", chooser.structures[name], becomes=under.get(name, 0))
        chooser.try_best([replace(step, least_ml=ml) for ml in volumes_ml], name)
    return Chosen(tuple(chooser.steps), tuple(chooser.trials))


def _try_largest(chooser: _Chooser, becomes: Mapping[str, int]) -> None:
    """The largest piece of all foreground together, then of each structure."""
    known = chooser.structures
    everything = sorted({label for labels in known.values() for label in labels})
    chooser.try_one(Step("largest-component", tuple(everything)), _no_class_falls)
    if len(known) > 1:
        for name, labels in known.items():
            step = Step("largest-component", labels, becomes=becomes.get(name, 0))
            chooser.try_one(step, _rises(name))


Accepts = Callable[[Means, Means], bool]


class _Chooser:
    """The steps accepted so far, and the Dice with them."""

    def __init__(
        self,
        cases: Sequence[Callable[[], Validated]],
        structures: Mapping[str, tuple[int, ...]],
        ignore_label: int | None,
    ) -> None:
        self.cases = cases
        self.structures = structures
        self.ignore_label = ignore_label
        self.steps: list[Step] = []
        self.trials: list[Trial] = []
        self.current = self._means([])

    def try_one(self, step: Step, accepts: Accepts) -> None:
        """Keep the step if it is accepted."""
        after = self._means([*self.steps, step])
        self._settle(step, after, accepted=accepts(self.current, after))

    def try_best(self, steps: Sequence[Step], name: str) -> None:
        """Keep the step with the best Dice of the structure ``name``, if it rises by it."""
        results = [(step, self._means([*self.steps, step])) for step in steps]
        results.sort(key=lambda result: result[1][name], reverse=True)
        for rank, (step, after) in enumerate(results):
            self._settle(step, after, accepted=not rank and _rises(name)(self.current, after))

    def _settle(self, step: Step, after: Means, *, accepted: bool) -> None:
        self.trials.append(Trial(step, accepted, self.current, after))
        if accepted:
            self.steps.append(step)
            self.current = after

    def _means(self, steps: Sequence[Step]) -> Means:
        rows = [self._dice(case(), steps) for case in self.cases]
        return {name: _mean([row[name] for row in rows]) for name in self.structures}

    def _dice(self, case: Validated, steps: Sequence[Step]) -> Means:
        mask, reference = postprocessed(case.predicted, steps, case.voxel_ml), case.reference
        if self.ignore_label is not None:
            used = reference != self.ignore_label
            mask, reference = mask[used], reference[used]
        return {
            name: overlap(np.isin(mask, labels), np.isin(reference, labels)).metrics()["dice"]
            for name, labels in self.structures.items()
        }


def _rises(name: str) -> Accepts:
    """Its own Dice rises, and what others lose is less."""

    def accepts(before: Means, after: Means) -> bool:
        fell = _mean(list(after.values())) < _mean(list(before.values()))
        return after[name] > before[name] and not fell

    return accepts


def _no_class_falls(before: Means, after: Means) -> bool:
    rises = _mean(list(after.values())) > _mean(list(before.values()))
    return rises and not any(after[name] < before[name] for name in before)


def _mean(values: Sequence[float]) -> float:
    """Without cases that have neither reference nor prediction: their Dice is no number."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
