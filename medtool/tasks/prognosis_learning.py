"""What a prognosis minimises: outlines and Cox's partial likelihood, and what is watched of both.

A patient is the mean of some slices or patches (``prognosis_examples``). Risk sets are those of the
step's patients: ``cached`` looks at one patient after the other, keeps a few numbers of each, and
looks again when the gradient comes (two-pass gradient caching, Gao 2021, here by recomputation),
so that the gradient is that of all patients at once while the maps of one alone are in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medtool.core.records import Batch
from medtool.nets.freezing import statistics_kept
from medtool.nets.patient_risks import join_outcomes
from medtool.nets.segmentation_losses import OverlapSettings, SegmentationLoss
from medtool.nets.survival_losses import Outcomes, cox_loss
from medtool.score.survival import survival_sample
from medtool.score.survival_ranking import harrell
from medtool.score.survival_regression import cox_log_likelihood
from medtool.tasks.segmentation_learning import (
    outcome_counts,
    preset_loss,
    summarise_facts,
    targets,
)

if TYPE_CHECKING:
    from medtool.tasks.prognosis_network import PrognosisNetwork
    from medtool.tasks.prognosis_settings import PrognosisSettings

# Numbers of the losses among their weights.
SEGMENTATION, SURVIVAL = 0, 1


class Seen(NamedTuple):
    """A patient after a look: mean rows (1, ...) for the head, and the loss of the outlines."""

    rows: Tensor
    outline_loss: Tensor


class Part(NamedTuple):
    """The images (n, ...) of one patient, their labels, shares and keys."""

    images: Tensor
    labels: Tensor
    shares: Tensor
    keys: Tensor


def study_losses(
    settings: PrognosisSettings, network: nn.Module, batch: Batch
) -> dict[str, Tensor]:
    """``loss``, and where they are learned ``loss_segmentation`` and ``loss_survival``.

    Patients without mask count in the second alone, those without outcome in the first; of a step
    without any event the second is 0.
    """
    learned: PrognosisNetwork = network  # type: ignore[assignment]
    seen = _looks(settings, learned, batch)
    losses: dict[int, Tensor] = {}
    if settings.train.objectives != "survival":
        losses[SEGMENTATION] = _mean_where(
            torch.stack([one.outline_loss for one in seen]), batch.tensors["masked"]
        )
    if settings.train.objectives != "segmentation":
        rows = torch.cat([one.rows for one in seen])
        losses[SURVIVAL] = _survival_loss(settings, learned, batch, rows)
    named = {"segmentation": SEGMENTATION, "survival": SURVIVAL}
    return {
        "loss": _weighed(settings, learned, batch, losses),
        **{
            f"loss_{name}": losses[number].detach()
            for name, number in named.items()
            if number in losses
        },
    }


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of what counts; 0 with its graph where nothing does."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def _weighed(
    settings: PrognosisSettings,
    network: PrognosisNetwork,
    batch: Batch,
    losses: Mapping[int, Tensor],
) -> Tensor:
    """The losses by their weights; one alone is taken as it is."""
    if len(losses) == 1:
        return next(iter(losses.values()))
    train = settings.train
    if network.weights is None:
        return (
            train.segmentation_weight * losses[SEGMENTATION]
            + train.survival_weight * losses[SURVIVAL]
        )
    # What no patient of the step knows must not move the weight of its loss.
    events = batch.tensors["events"][batch.tensors["known"]]
    there = {SEGMENTATION: bool(batch.tensors["masked"].any()), SURVIVAL: bool(events.any())}
    known = {number: loss for number, loss in losses.items() if there[number]}
    if not known:
        return torch.stack(list(losses.values())).sum()
    weighed: Tensor = network.weights(known)
    return weighed


def _survival_loss(
    settings: PrognosisSettings, network: PrognosisNetwork, batch: Batch, rows: Tensor
) -> Tensor:
    """Cox's loss of the patients of the step, with those remembered where there is a memory."""
    tensors, ties = batch.tensors, settings.train.ties
    outcomes = Outcomes(tensors["times"], tensors["events"], tensors["strata"], tensors["known"])
    embedded = network.embedding(rows, tensors["field_ml"], tensors["covariates"])
    keys = tensors["patient_keys"]
    memory = network.memory
    if memory is None:
        return cox_loss(network.head(embedded, keys), outcomes, ties=ties)
    before = memory.recall(tensors["patients"], batch.epoch)
    risks = network.head(
        torch.cat([embedded, before.embeddings.to(embedded.dtype)]),
        torch.cat([keys, before.keys ^ keys[:1]]),
    )
    loss = cox_loss(risks, join_outcomes(outcomes, before.outcomes), ties=ties)
    if network.training:
        memory.remember(tensors["patients"], embedded, outcomes, batch.epoch)
    return loss


def _looks(settings: PrognosisSettings, network: PrognosisNetwork, batch: Batch) -> list[Seen]:
    """Every patient of the batch, looked at one by one or all at once."""
    parts, loss = _parts(settings, batch), outline_loss(settings)
    if settings.train.risk_sets == "batch":
        return _all_at_once(network, parts, loss)
    # Without a gradient nothing needs to be looked at again.
    if settings.train.risk_sets == "memory" or not torch.is_grad_enabled():
        return [_looked(network, part, loss) for part in parts]

    def look(images: Tensor, labels: Tensor, shares: Tensor, keys: Tensor) -> Seen:
        return _looked(network, Part(images, labels, shares, keys), loss)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(network)

    # Dropout comes from keys: no stream of random numbers has to be set back.
    return [
        Seen(
            *checkpoint(
                look, *part, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
            )
        )
        for part in parts
    ]


def _parts(settings: PrognosisSettings, batch: Batch) -> list[Part]:
    sizes = batch.tensors["sizes"].tolist()
    labels = targets(settings.data, batch.tensors["label"])
    tensors = (batch.tensors["image"], labels, batch.tensors["shares"], batch.tensors["keys"])
    split = (torch.split(tensor, sizes) for tensor in tensors)
    return [Part(*own) for own in zip(*split, strict=True)]


def _looked(network: PrognosisNetwork, part: Part, loss: SegmentationLoss) -> Seen:
    logits, rows = network.look(part.images, part.keys)
    return _seen(logits, rows, part, loss)


def _seen(logits: Tensor, rows: Tensor, part: Part, loss: SegmentationLoss) -> Seen:
    mean = (rows * part.shares[:, None]).sum(0, keepdim=True)
    return Seen(mean, loss(logits, part.labels))


def _all_at_once(
    network: PrognosisNetwork, parts: Sequence[Part], loss: SegmentationLoss
) -> list[Seen]:
    sizes = [len(part.images) for part in parts]
    logits, rows = network.look(
        torch.cat([part.images for part in parts]), torch.cat([part.keys for part in parts])
    )
    own_logits, own_rows = torch.split(logits, sizes), torch.split(rows, sizes)
    return [
        _seen(one, own, part, loss)
        for one, own, part in zip(own_logits, own_rows, parts, strict=True)
    ]


def outline_loss(settings: PrognosisSettings) -> SegmentationLoss:
    """The preset's loss of outlines, of the images of one patient."""
    train = settings.train
    counting = OverlapSettings(batch=bool(train.batch_dice), smooth=train.overlap_smooth)
    return preset_loss(settings, counting)


def study_facts(settings: PrognosisSettings, network: nn.Module, batch: Batch) -> dict[str, Any]:
    """Of each case its voxels found rightly, too many and missed by label, its loss of outlines,
    its risk and its outcome; NaN where something is not known.
    """
    learned: PrognosisNetwork = network  # type: ignore[assignment]
    tensors, loss = batch.tensors, outline_loss(settings)
    names = ("case", "patient", "loss", "right", "false", "missed", "risk", "time_days", "event")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    for number, (case, part) in enumerate(zip(batch.cases, _parts(settings, batch), strict=True)):
        logits, looked = learned.look(part.images)
        seen = _seen(logits, looked, part, loss)
        own = slice(number, number + 1)
        embedded = learned.embedding(
            seen.rows, tensors["field_ml"][own], tensors["covariates"][own]
        )
        counts = outcome_counts(settings.data, logits, part.labels)
        masked = bool(tensors["masked"][number])
        rows["case"].append(case.case_id)
        rows["patient"].append(case.patient_id)
        rows["loss"].append(float(seen.outline_loss) if masked else math.nan)
        for name, values in zip(("right", "false", "missed"), counts[:3], strict=True):
            rows[name].append((values.sum(0) * masked).tolist())
        rows["risk"].append(float(learned.head(embedded)))
        known = case.outcome is not None
        rows["time_days"].append(float(tensors["times"][number]) if known else math.nan)
        rows["event"].append(float(tensors["events"][number]) if known else math.nan)
    return rows


def summarise_studies(
    settings: PrognosisSettings, facts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """loss, dice (mean over labels of all looked-at slices together), dice_<label>, harrell_c,
    dice_and_c_index (their mean; where one is not defined or not learned, the other).

    Cases with a mask count for the first, patients with an outcome, by their first case, for the
    second.
    """
    objectives, train = settings.train.objectives, settings.train
    found = {} if objectives == "survival" else _outlines(settings, facts)
    survival = {} if objectives == "segmentation" else _survival(facts, ties=train.ties)
    parts = [
        (train.segmentation_weight, found.get("loss", math.nan)),
        (train.survival_weight, survival.get("loss_survival", math.nan)),
    ]
    if objectives != "both":
        parts = [(1.0, value) for _, value in parts]
    losses = [weight * value for weight, value in parts if math.isfinite(value)]
    both = [
        value
        for value in (found.get("dice", math.nan), survival.get("harrell_c", math.nan))
        if math.isfinite(value)
    ]
    return {
        **found,
        **survival,
        "loss": sum(losses) if losses else math.nan,
        "dice_and_c_index": sum(both) / len(both) if both else math.nan,
    }


def _outlines(settings: PrognosisSettings, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("case", "loss", "right", "false", "missed")
    known = [
        {name: [fact[name][place]] for name in names}
        for fact in facts
        for place, loss in enumerate(fact["loss"])
        if math.isfinite(loss)
    ]
    summary = summarise_facts(settings.data, known)
    return summary if known else {**summary, "loss": math.nan}


def _survival(facts: Sequence[Mapping[str, Any]], *, ties: Any) -> dict[str, float]:
    names = ("case", "patient", "risk", "time_days", "event")
    rows = sorted(
        row
        for fact in facts
        for row in zip(*(fact[name] for name in names), strict=True)
        if math.isfinite(row[-1])
    )
    first = {row[1]: row for row in reversed(rows)}
    if not first:
        return {"harrell_c": math.nan, "loss_survival": math.nan}
    risks, times, events = np.asarray([row[2:] for row in first.values()]).T
    sample = survival_sample(times, events, list(first))
    likelihood = cox_log_likelihood(sample, risks, ties=ties) if events.any() else math.nan
    return {
        "harrell_c": harrell(sample, risks).c_index(),
        "loss_survival": -likelihood / max(1.0, float(events.sum())),
    }
