"""Does changing slices by class give the label away?

Labels are shuffled among the studies, so that nothing in the images speaks for them any more; the
slices are then changed as the shuffled label says, and a small classifier tries to find that label
in the changed pixels. What it reaches above an AUROC of 0.5 is the trace that augmentation leaves:
a network in training can learn that trace in place of the disease.

The classifier is a ridge-regularised logistic regression on measurements of a slice's pixels
(spread, quantiles, energy at three scales), averaged over the study, tested out of fold. It needs
no torch and takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool.core.randomness import generator
from medtool.core.records import Case
from medtool_brainmet.augmentation import apply_changes, changes_for, draw_changes

if TYPE_CHECKING:
    from medtool_brainmet.morphology import Mask
    from medtool_brainmet.settings import BrainmetAugmentSection

# More studies or slices make it slower, not clearer.
LARGEST_STUDIES = 80
SLICES_PER_STUDY = 6
FOLDS = 5
RIDGE = 1.0
NEWTON_STEPS = 25
LEAST_STUDIES_OF_A_CLASS = 5
# The variants that are compared, and their names for people.
VARIANTS = {
    "none": "no augmentation",
    "both_alike": "one augmentation for both classes",
    "by_class": "augmentation by class",
}
# From here on a trace of the label is worth a warning.
NOTABLE_AUROC = 0.6
ENERGY_SCALES_PX = (0.6, 1.2, 2.4)
QUANTILES = (0.02, 0.1, 0.5, 0.9, 0.98)

Features = NDArray[np.float64]


def audit_augmentation(
    settings: BrainmetAugmentSection,
    cases: Sequence[Case],
    prepared: Mapping[str, Path],
    seed: int,
) -> dict[str, Any]:
    """AUROC for the shuffled label: with the preset's changes, by class, one for both, none.

    ``cases`` are the training cases, ``prepared`` their files. Gives {} where the preset asks for
    no test or a class has too few studies. Keys: ``studies``, ``shuffles``, ``used`` (which of the
    variants the preset trains with), ``auroc`` {variant: [mean, lowest, highest over shuffles]},
    ``summary`` (a sentence for the screen).
    """
    chosen = _choose(cases, prepared, seed)
    labels = np.array([float(case.label or 0) for case in chosen])
    fewest = min((labels == value).sum() for value in (0.0, 1.0))
    if not settings.audit_shuffles or fewest < LEAST_STUDIES_OF_A_CLASS:
        return {}
    studies = [_load(case, prepared[case.case_id], seed) for case in chosen]
    variants = {
        "none": settings.model_copy(update={"enabled": False}),
        "by_class": settings.model_copy(update={"enabled": True, "by_class": True}),
        "both_alike": settings.model_copy(update={"enabled": True, "by_class": False}),
    }
    used = "none" if not settings.enabled else "by_class" if settings.by_class else "both_alike"
    found: dict[str, list[float]] = {name: [] for name in variants}
    for shuffle in range(settings.audit_shuffles):
        shuffled = generator(seed, "audit-labels", shuffle).permutation(labels)
        for name, variant in variants.items():
            features = _study_features(studies, shuffled, variant, (seed, name, shuffle))
            found[name].append(_out_of_fold_auroc(features, shuffled))
    found_auroc = {
        name: [float(np.mean(values)), float(np.min(values)), float(np.max(values))]
        for name, values in found.items()
    }
    return {
        "summary": verdict_of(used, found_auroc[used][0]),
        "studies": len(chosen),
        "slices_per_study": SLICES_PER_STUDY,
        "shuffles": settings.audit_shuffles,
        "used": used,
        "auroc": found_auroc,
    }


def verdict_of(used: str, auroc: float) -> str:
    """One sentence on the augmentation that a run trains with."""
    name = VARIANTS[used]
    if auroc < NOTABLE_AUROC:
        return (
            f"This run trains with {name}: it leaves no notable trace of the label "
            f"(AUROC {auroc:.2f} for shuffled labels; chance is 0.5)."
        )
    return (
        f"This run trains with {name}: it leaves a trace of the label (AUROC {auroc:.2f} for "
        "shuffled labels; chance is 0.5) that a network can learn in place of the disease. The "
        "preset 'balanced' changes both classes alike; its held-out numbers are the fairer "
        "comparison."
    )


def _choose(cases: Sequence[Case], prepared: Mapping[str, Path], seed: int) -> list[Case]:
    """Labelled and prepared studies, one a patient, a seeded draw where there are many."""
    by_patient = {
        case.patient_id: case
        for case in sorted(cases, key=lambda case: case.case_id, reverse=True)
        if case.label is not None and case.case_id in prepared
    }
    usable = sorted(by_patient.values(), key=lambda case: case.case_id)
    order = generator(seed, "audit-studies").permutation(len(usable))[:LARGEST_STUDIES]
    return [usable[int(index)] for index in sorted(order)]


def _load(case: Case, path: Path, seed: int) -> tuple[NDArray[np.float32], Mask]:
    """A few slices of a study, and their masks."""
    from medtool.data.cache import read_prepared

    whole = read_prepared(path, names=("slices", "mask"))
    slices, masks = whole.arrays["slices"], whole.arrays["mask"]
    rng = generator(seed, "audit-slices", case.case_id)
    picked = np.sort(rng.permutation(len(slices))[:SLICES_PER_STUDY])
    return slices[picked].astype(np.float32), masks[picked]


def _study_features(
    studies: Sequence[tuple[NDArray[np.float32], Mask]],
    labels: NDArray[np.float64],
    settings: BrainmetAugmentSection,
    key: tuple[int, str, int],
) -> Features:
    """Measurements (studies, features) after the changes that belong to ``labels``."""
    rows = []
    for index, ((slices, masks), label) in enumerate(zip(studies, labels, strict=True)):
        rng = generator(*key, index)
        changes = changes_for(settings, float(label))
        measured = [
            measure(apply_changes(plane, inside, draw_changes(rng, changes)), inside)
            for plane, inside in zip(slices, masks, strict=True)
        ]
        rows.append(np.mean(measured, axis=0))
    return np.stack(rows)


def measure(image: NDArray[np.float32], inside: Mask) -> Features:
    """What a slice's pixels say of their processing: spread, quantiles, energy by scale."""
    pixels = image[inside].astype(np.float64)
    if pixels.size == 0:
        pixels = np.zeros(1)
    blurred = [image, *(cv2.GaussianBlur(image, (0, 0), scale) for scale in ENERGY_SCALES_PX)]
    energies = [
        float(np.log(np.mean((finer - coarser)[inside] ** 2) + 1e-9)) if inside.any() else 0.0
        for finer, coarser in zip(blurred[:-1], blurred[1:], strict=True)
    ]
    contrasts = [first - second for first, second in zip(energies[:-1], energies[1:], strict=True)]
    quantiles = np.quantile(pixels, QUANTILES)
    return np.array([pixels.mean(), pixels.std(), *quantiles, *energies, *contrasts])


def _out_of_fold_auroc(features: Features, labels: NDArray[np.float64]) -> float:
    """AUROC of predictions for studies that the classifier has not seen, fold by fold ranked."""
    order = np.argsort(labels, kind="stable")
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    right, pairs = 0.0, 0
    for fold in range(FOLDS):
        held = folds == fold
        logits = _logistic(features[~held], labels[~held], features[held])
        positive, negative = logits[labels[held] == 1], logits[labels[held] == 0]
        # Within a fold: logits of different fits need not share a scale.
        difference = positive[:, None] - negative[None, :]
        right += float((difference > 0).sum() + 0.5 * (difference == 0).sum())
        pairs += difference.size
    return right / pairs if pairs else float("nan")


def _logistic(features: Features, labels: NDArray[np.float64], unseen: Features) -> Features:
    """Logits for ``unseen`` rows of a ridge logistic regression (Newton's method)."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread < 1e-12] = 1.0
    design = np.column_stack([np.ones(len(features)), (features - centre) / spread])
    penalty = np.full(design.shape[1], RIDGE)
    penalty[0] = 1e-6
    weights = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        share = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (share - labels) + penalty * weights
        curvature = (design * (share * (1 - share))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if float(np.abs(step).max()) < 1e-9:
            break
    logits: Features = (unseen - centre) / spread @ weights[1:] + weights[0]
    return logits
