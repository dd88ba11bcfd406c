"""What a bag classification minimises, watches and is scored by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medtool.core.errors import LabelsError
from medtool.core.records import Batch, Prediction, Scores, Truth
from medtool.nets.losses import bce, focal
from medtool.score.classification import binary_scores
from medtool.score.ranking import auroc
from medtool.score.sample import binary_sample
from medtool.score.threshold import choose_threshold, with_margin
from medtool.train.document import score_quantiles

if TYPE_CHECKING:
    from medtool.config.sections import MetricsSection
    from medtool.tasks.bag_settings import BagSettings, BagTrainSection

# Where the selection part has one class only, no rule can choose.
NEUTRAL_THRESHOLD = 0.5


def run_network(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The network's answer for the bags of ``batch``."""
    tensors = batch.tensors
    found: dict[str, Tensor] = network(
        tensors["inputs"],
        tensors["sizes"],
        tensors["keys"],
        tensors["bag_keys"],
        first_step=int(tensors["first_step"]),
    )
    return found


def case_losses(train: BagTrainSection, logits: Tensor, batch: Batch) -> Tensor:
    """The weighted loss of each case (bags)."""
    labels = batch.tensors["labels"]
    if train.loss == "focal":
        values = focal(logits, labels, gamma=train.focal_gamma, alpha=train.focal_alpha)
    else:
        values = bce(logits, labels)
    weighted: Tensor = values * batch.tensors["weights"]
    return weighted


def bag_losses(settings: BagSettings, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """``loss``: the mean over the batch's cases of their weighted losses."""
    logits = run_network(network, batch)["logits"]
    return {"loss": case_losses(settings.train, logits, batch).mean()}


def bag_facts(settings: BagSettings, network: nn.Module, batch: Batch) -> dict[str, Any]:
    """Plain lists with one value a case, for ``summarise_facts``."""
    logits = run_network(network, batch)["logits"].float()
    return {
        "case": [case.case_id for case in batch.cases],
        "patient": [case.patient_id for case in batch.cases],
        "label": batch.tensors["labels"].tolist(),
        "logit": logits.tolist(),
        "loss": case_losses(settings.train, logits, batch).tolist(),
    }


def summarise_facts(
    metrics: MetricsSection, facts: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """An epoch's numbers from ``bag_facts`` of all its batches.

    Each case counts once, also where several processes were given it. ``threshold`` is chosen by
    the preset's rule on these very cases; f1, sensitivity and specificity are at it.
    """
    rows = {
        case: (label, logit, loss)
        for fact in facts
        for case, label, logit, loss in zip(
            fact["case"], fact["label"], fact["logit"], fact["loss"], strict=True
        )
        if not math.isnan(label)
    }
    # In the order of ids: sums do not depend on which process saw which case.
    ordered = [rows[case] for case in sorted(rows)]
    labels = [row[0] for row in ordered]
    probabilities = torch.sigmoid(torch.tensor([row[1] for row in ordered]).double()).tolist()
    threshold = _threshold(metrics, labels, probabilities)
    true = sum(p >= threshold and y > 0.5 for p, y in zip(probabilities, labels, strict=True))
    false = sum(p >= threshold and y < 0.5 for p, y in zip(probabilities, labels, strict=True))
    positives = sum(label > 0.5 for label in labels)
    negatives = len(labels) - positives
    both = positives > 0 and negatives > 0
    return {
        "loss": _share(sum(row[2] for row in ordered), len(ordered)),
        "auroc": auroc(binary_sample(labels, probabilities)) if both else math.nan,
        "f1": _share(2 * true, true + false + positives),
        "sensitivity": _share(true, positives),
        "specificity": _share(negatives - false, negatives),
        "threshold": threshold,
    }


def _share(above: float, below: float) -> float:
    return above / below if below else math.nan


def _threshold(
    metrics: MetricsSection, labels: Sequence[float], probabilities: Sequence[float]
) -> float:
    try:
        threshold = choose_threshold(
            labels,
            probabilities,
            metrics.threshold_rule,
            metrics.threshold_target,
            metrics.cost_false_positive,
            metrics.cost_false_negative,
        )
    except LabelsError:
        return NEUTRAL_THRESHOLD
    # A milestone answers with this threshold, and its arithmetic is that of other batches.
    fixed = metrics.threshold_rule == "fixed"
    return threshold if fixed else with_margin(threshold, probabilities)


def decide_threshold(
    metrics: MetricsSection, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> dict[str, Any]:
    """The decision threshold by the preset's rule, and how the probabilities are spread."""
    probabilities = [float(prediction.scalars["probability"]) for prediction in predictions]
    threshold = choose_threshold(
        [float(truth.label or 0) for truth in truths],
        probabilities,
        metrics.threshold_rule,
        metrics.threshold_target,
        metrics.cost_false_positive,
        metrics.cost_false_negative,
    )
    if metrics.threshold_rule != "fixed":
        threshold = with_margin(threshold, probabilities)
    return {
        "threshold": threshold,
        "threshold_rule": f"{metrics.threshold_rule} on the selection part",
        "training_range": {"score_quantiles": score_quantiles(probabilities)},
    }


def score_predictions(
    metrics: MetricsSection, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> Scores:
    """All metrics of the predictions that have a reference, each at its own threshold.

    Those of one model share one; each fold has its own.
    """
    labels = {truth.case_id: truth.label for truth in truths if truth.label is not None}
    known = [prediction for prediction in predictions if prediction.case_id in labels]
    thresholds = [float(prediction.scalars["threshold"]) for prediction in known]
    return binary_scores(
        [labels[prediction.case_id] for prediction in known],
        [float(prediction.scalars["probability"]) for prediction in known],
        [prediction.patient_id for prediction in known],
        threshold=thresholds if known else NEUTRAL_THRESHOLD,
        metrics=metrics,
        cases=[prediction.case_id for prediction in known],
    )
