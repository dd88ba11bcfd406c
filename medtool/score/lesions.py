"""Lesions found, missed and invented: a mask's connected components against its reference's.

What touches, and what counts as found, are part of the definition, so both are said with every
number. False-positive and false-negative volumes follow autoPET: the volume of components that
share no voxel at all with the other mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtool.core.errors import UsageError
from medtool.score.overlap import Mask
from medtool.score.sample import IntArray

Connectivity = Literal[6, 18, 26]
Criterion = Literal["touch", "covered", "iou"]

# How many coordinates may change at once between voxels that touch: faces, edges, corners.
STEPS: Mapping[Connectivity, int] = {6: 1, 18: 2, 26: 3}
CRITERIA: Mapping[Criterion, str] = {
    "touch": "a lesion is found when the prediction has one of its voxels",
    "covered": "a lesion is found when the prediction has at least {at_least:g} of it",
    "iou": "a lesion is found by one predicted lesion of its own, IoU at least {at_least:g}",
}


@dataclass(frozen=True)
class LesionRule:
    """When voxels are one lesion, and when a lesion is found.

    ``connectivity``: voxels that share a face (6), an edge (18) or a corner (26) touch; in 2D, a
    side (6) or a corner (18, 26). ``at_least`` is the share for "covered" and the least IoU for
    "iou", where a predicted lesion finds one lesion at most, the best pair first; "touch" and
    "covered" let one predicted lesion find several.
    """

    connectivity: Connectivity = 26
    criterion: Criterion = "touch"
    at_least: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.connectivity not in STEPS or self.criterion not in CRITERIA:
            raise UsageError(
                "This is no rule for lesions.",
                met=f"connectivity {self.connectivity}, criterion {self.criterion!r}",
                wanted=f"one of {', '.join(map(str, STEPS))}, and one of {', '.join(CRITERIA)}",
            )
        if not 0.0 < self.at_least <= 1.0:
            raise UsageError(
                "The share of a lesion that makes it found is out of range.",
                met=f"{self.at_least:g}",
                wanted="more than 0, at most 1",
            )

    def __str__(self) -> str:
        """The rule in words."""
        text = CRITERIA[self.criterion].format(at_least=self.at_least)
        return f"components of {self.connectivity} neighbours; {text}"


@dataclass(frozen=True)
class Lesions:
    """Lesions of one case.

    ``found`` and ``missed`` are lesions of the reference; ``right`` and ``invented`` are lesions
    of the prediction. The volumes are of components without any common voxel.
    """

    found: int
    missed: int
    right: int
    invented: int
    false_positive_vox: int
    false_negative_vox: int

    @property
    def f1(self) -> float:
        """2 found / (2 found + invented + missed); NaN where neither mask has a lesion."""
        total = 2 * self.found + self.invented + self.missed
        return 2 * self.found / total if total else nan


@dataclass(frozen=True)
class _Contacts:
    """Pairs of components with common voxels: index of each, and how many voxels."""

    reference: IntArray
    prediction: IntArray
    common_vox: IntArray


def lesions(prediction: Mask, reference: Mask, rule: LesionRule) -> Lesions:
    """Count the lesions of two masks of one shape."""
    theirs, reference_vox = components(reference, rule.connectivity)
    ours, prediction_vox = components(prediction, rule.connectivity)
    both = prediction & reference
    pairs, common_vox = np.unique(np.stack([theirs[both], ours[both]]), axis=1, return_counts=True)
    contacts = _Contacts(pairs[0] - 1, pairs[1] - 1, common_vox)
    match = _one_to_one if rule.criterion == "iou" else _many_to_many
    found, right = match(contacts, reference_vox, prediction_vox, rule)
    return Lesions(
        found=int(found.sum()),
        missed=int((~found).sum()),
        right=int(right.sum()),
        invented=int((~right).sum()),
        false_positive_vox=int(np.delete(prediction_vox, contacts.prediction).sum()),
        false_negative_vox=int(np.delete(reference_vox, contacts.reference).sum()),
    )


def components(mask: Mask, connectivity: Connectivity) -> tuple[NDArray[np.int32], IntArray]:
    """Components numbered from 1, and the voxels of each."""
    steps = min(STEPS[connectivity], mask.ndim)
    labelled, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, steps))
    return labelled, np.bincount(labelled.reshape(-1), minlength=count + 1)[1:]


def _many_to_many(
    contacts: _Contacts, reference_vox: IntArray, prediction_vox: IntArray, rule: LesionRule
) -> tuple[Mask, Mask]:
    """Which lesions of the reference are found, and which of the prediction touch one of them."""
    covered_vox = np.bincount(contacts.reference, contacts.common_vox, minlength=reference_vox.size)
    least_vox = rule.at_least * reference_vox if rule.criterion == "covered" else 1.0
    found = covered_vox >= least_vox
    right = np.zeros(prediction_vox.size, dtype=bool)
    right[contacts.prediction[found[contacts.reference]]] = True
    return found, right


def _one_to_one(
    contacts: _Contacts, reference_vox: IntArray, prediction_vox: IntArray, rule: LesionRule
) -> tuple[Mask, Mask]:
    """Pairs by IoU, the best first; a lesion of either side is paired once."""
    sizes = reference_vox[contacts.reference] + prediction_vox[contacts.prediction]
    iou = contacts.common_vox / (sizes - contacts.common_vox)
    found = np.zeros(reference_vox.size, dtype=bool)
    right = np.zeros(prediction_vox.size, dtype=bool)
    for place in np.argsort(-iou, kind="stable"):
        one, other = contacts.reference[place], contacts.prediction[place]
        if iou[place] >= rule.at_least and not found[one] and not right[other]:
            found[one] = right[other] = True
    return found, right
