"""Losses of a segmentation: logits (n, outputs, ...) beside integer labels (n, ...).

Outputs either share each voxel (softmax: one output a label) or stand for themselves (sigmoid: one
output a region, that is a set of labels; a single foreground is one region). All is computed in
float32 at least. Overlap losses are 1 minus the index, so that no loss is ever negative: nnU-Net's
is the same less 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medtool.core.errors import UnknownNameError
from medtool.core.names import nearest_name
from medtool.nets.losses import focused

# nnU-Net's: a class that is nowhere counts as found when next to nothing is predicted.
DEFAULT_SMOOTH = 1e-5
# Abraham and Khan 2018: what their code raises 1 - TI to (their paper's gamma is 4/3).
DEFAULT_EXPONENT = 0.75
# A power below 1 has no finite slope at 0.
_LEAST_MISS = 1e-7


@dataclass(frozen=True)
class Meaning:
    """What the outputs of a network stand for.

    Without ``regions`` output k is label k, and a voxel has exactly one; with them output k is the
    union of the labels ``regions[k]``. Voxels of ``ignore_label`` count nowhere.
    """

    regions: tuple[tuple[int, ...], ...] | None = None
    ignore_label: int | None = None

    def known(self, labels: Tensor) -> Tensor | None:
        """Where the labels say something (n, 1, ...); None for everywhere."""
        return None if self.ignore_label is None else (labels != self.ignore_label)[:, None]

    def references(self, labels: Tensor, outputs: int) -> Tensor:
        """Whether a voxel belongs to an output: (n, outputs, ...)."""
        if self.regions is None:
            return torch.stack([labels == label for label in range(outputs)], dim=1)
        return torch.stack([_any_of(labels, region) for region in self.regions], dim=1)


def _any_of(labels: Tensor, region: tuple[int, ...]) -> Tensor:
    first, *others = region
    found = labels == first
    for label in others:
        found = found | (labels == label)
    return found


@dataclass(frozen=True)
class Comparison:
    """Logits beside their references, ready for any of the losses below.

    ``cross_entropy`` is that of each voxel, (n, 1, ...) for labels and (n, outputs, ...) for
    regions.
    """

    probabilities: Tensor
    references: Tensor
    known: Tensor | None
    cross_entropy: Tensor
    exclusive: bool

    def mean(self, values: Tensor) -> Tensor:
        """Mean of values (n, 1 or outputs, ...) where the reference is known; 0 if nowhere."""
        if self.known is None:
            return values.mean()
        count = self.known.sum() * values.shape[1]
        return torch.where(self.known, values, 0).sum() / count.clamp(min=1)


def compare(logits: Tensor, labels: Tensor, meaning: Meaning) -> Comparison:
    """Logits (n, outputs, ...) beside integer labels (n, ...)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    known = meaning.known(labels)
    references = meaning.references(labels, logits.shape[1])
    if meaning.regions is None:
        logs = F.log_softmax(logits, dim=1)
        # Unknown voxels get any label: their entropy counts nowhere.
        some = labels if known is None else torch.where(known[:, 0], labels, 0)
        entropy = -logs.gather(1, some.long()[:, None])
        return Comparison(logs.exp(), references, known, entropy, exclusive=True)
    entropy = F.binary_cross_entropy_with_logits(
        logits, references.to(logits.dtype), reduction="none"
    )
    return Comparison(torch.sigmoid(logits), references, known, entropy, exclusive=False)


@dataclass(frozen=True)
class Overlap:
    """Soft counts, each (n, outputs) or, summed over a batch, (outputs)."""

    true_positives: Tensor
    false_positives: Tensor
    false_negatives: Tensor


def overlap(met: Comparison, *, batch: bool, background: bool) -> Overlap:
    """The counts; without ``background`` the first of exclusive outputs is left out."""
    first = 1 if met.exclusive and not background else 0
    axes = [0] if batch else []
    axes += range(2, met.probabilities.ndim)
    found, wanted = met.probabilities[:, first:], met.references[:, first:]
    if met.known is not None:
        found, wanted = torch.where(met.known, found, 0), wanted & met.known
    both = (found * wanted).sum(dim=axes)
    return Overlap(both, found.sum(dim=axes) - both, wanted.sum(dim=axes, dtype=both.dtype) - both)


@dataclass(frozen=True)
class OverlapSettings:
    """How an overlap is counted: over the batch or by case, with the background or without."""

    batch: bool = False
    background: bool = False
    smooth: float = DEFAULT_SMOOTH


def dice_loss(met: Comparison, settings: OverlapSettings) -> Tensor:
    """1 - mean of (2 TP + s) / (2 TP + FP + FN + s) over outputs, and cases unless ``batch``."""
    counts = overlap(met, batch=settings.batch, background=settings.background)
    twice = 2 * counts.true_positives
    missed = counts.false_positives + counts.false_negatives
    return 1 - ((twice + settings.smooth) / (twice + missed + settings.smooth)).mean()


def tversky_loss(
    met: Comparison,
    settings: OverlapSettings,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 1.0,
) -> Tensor:
    """Mean of (1 - TI) ** exponent, TI = (TP + s) / (TP + w_fp FP + w_fn FN + s).

    Salehi 2017 with its weights for recall as defaults; with an exponent the focal kind of Abraham
    and Khan 2018. Papers and packages name the weights alpha and beta in both orders.
    """
    counts = overlap(met, batch=settings.batch, background=settings.background)
    return tversky_of(
        counts,
        fp_weight=fp_weight,
        fn_weight=fn_weight,
        exponent=exponent,
        smooth=settings.smooth,
    ).mean()


def tversky_of(
    counts: Overlap, *, fp_weight: float, fn_weight: float, exponent: float, smooth: float
) -> Tensor:
    """The Tversky loss of counts, one value each."""
    hits = counts.true_positives + smooth
    missed = fp_weight * counts.false_positives + fn_weight * counts.false_negatives
    loss = missed / (hits + missed)
    return loss if exponent == 1 else loss.clamp(min=_LEAST_MISS) ** exponent


def cross_entropy_loss(met: Comparison) -> Tensor:
    """Mean over voxels: of the softmax for labels, of each sigmoid for regions."""
    return met.mean(met.cross_entropy)


def focal_loss(met: Comparison, *, gamma: float = 2.0) -> Tensor:
    """Mean of (1 - p_t) ** gamma times the cross-entropy (Lin 2017), without class weights."""
    return met.mean(focused(met.cross_entropy, gamma))


@dataclass(frozen=True)
class SegmentationLoss:
    """A sum of the losses above, ready to be called with logits and labels."""

    meaning: Meaning
    terms: tuple[Callable[[Comparison], Tensor], ...]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of logits (n, outputs, ...) for integer labels (n, ...)."""
        met = compare(logits, labels, self.meaning)
        return torch.stack([term(met) for term in self.terms]).sum()


def create_segmentation_loss(
    name: str,
    meaning: Meaning,
    *,
    counting: OverlapSettings,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = DEFAULT_EXPONENT,
    gamma: float = 2.0,
) -> SegmentationLoss:
    """The loss called ``name``; raises UnknownNameError.

    ``dice+cross-entropy`` is nnU-Net's; for regions cross-entropy is the binary one.
    """
    weights = {"fp_weight": fp_weight, "fn_weight": fn_weight}

    def dice(met: Comparison) -> Tensor:
        return dice_loss(met, counting)

    def focal_tversky(met: Comparison) -> Tensor:
        return tversky_loss(met, counting, exponent=exponent, **weights)

    known: Mapping[str, tuple[Callable[[Comparison], Tensor], ...]] = {
        "dice": (dice,),
        "dice+cross-entropy": (dice, cross_entropy_loss),
        "cross-entropy": (cross_entropy_loss,),
        "focal": (lambda met: focal_loss(met, gamma=gamma),),
        "tversky": (lambda met: tversky_loss(met, counting, **weights),),
        "focal-tversky": (focal_tversky,),
        "focal-tversky+cross-entropy": (focal_tversky, cross_entropy_loss),
    }
    if name not in known:
        raise UnknownNameError(
            f"There is no loss of segmentations named '{name}'.",
            met=name,
            wanted="one of: " + ", ".join(known),
            nearest=nearest_name(name, known, {"ce": "cross-entropy", "bce": "cross-entropy"}),
        )
    return SegmentationLoss(meaning, known[name])


def deep_supervision_weights(resolutions: int, *, last: float = 0.0) -> tuple[float, ...]:
    """Weights of the losses at falling resolution, of sum 1: each half of the one before.

    The last is left out (nnU-Net); ``last`` keeps a trace of it, which several processes need
    that wait for every parameter's gradient.
    """
    if resolutions == 1:
        return (1.0,)
    halves = [0.5**number for number in range(resolutions - 1)] + [last]
    return tuple(weight / sum(halves) for weight in halves)


def deep_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    logits: Sequence[Tensor],
    labels: Tensor,
    weights: Sequence[float],
) -> Tensor:
    """The weighted sum of ``loss`` over resolutions, full resolution first."""
    parts = [
        weight * loss(part, shrunk_labels(labels, part.shape[2:]))
        for weight, part in zip(weights, logits, strict=True)
        if weight
    ]
    return torch.stack(parts).sum()


def shrunk_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels (n, ...) on a coarser grid: of each new voxel the label at its centre."""
    for axis, (old, new) in enumerate(zip(labels.shape[1:], size, strict=True), 1):
        if old != new:
            # The centre of a new voxel in units of old ones; integers, so that none is rounded.
            centres = (2 * torch.arange(new, device=labels.device) + 1) * old // (2 * new)
            labels = labels.index_select(axis, centres)
    return labels
