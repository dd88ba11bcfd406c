"""The answer for one study: its row, and a row for each of its slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medtool.core.errors import CaseRefused
from medtool.core.records import Case, Prediction, Prepared
from medtool.nets.pooling import create_pooling
from medtool.tasks.bag_exported import AnsweredBag

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from medtool.tasks.bag import BagTask
    from medtool.tasks.bag_settings import BagModelSection

# log(P / (1 - P)) beyond this says nothing more: P is then within 1e-13 of 0 or 1.
LARGEST_LOGIT = 30.0


def predict_bag(task: BagTask, model: Any, prepared: Prepared, case: Case) -> Prediction:
    """The network's answer for ``prepared``, a chunk of slices at a time.

    ``model`` is a medtool.predict.model.Model. Raises CaseRefused where no slice is used.
    """
    images = prepared.arrays["slices"]
    if not len(images):
        raise CaseRefused("no-slices", "No slice of this study can be shown to the network.")
    masks = prepared.arrays.get("mask")
    with model.autocast():
        if isinstance(model.network, AnsweredBag):
            found = model.network.study(images, masks)
        else:
            found = _study(task, model, images, masks)
    values = {name: tensor.float().cpu().tolist() for name, tensor in found.items()}
    if not all(map(math.isfinite, [*values["logits"], *values["slice_logits"]])):
        # NaN is less than every threshold: it would read as "negative".
        raise CaseRefused(
            "undefined-answer",
            "The network gave no number for this study.",
            met=f"logit {values['logits'][0]}",
            how="medtool doctor --checkpoint C says whether the checkpoint works on this machine; "
            "--precision 32 has the largest range of numbers.",
        )
    logit = clipped(values["logits"][0])
    rows = slice_rows(prepared.elements, values)
    return Prediction(
        case_id=case.case_id,
        patient_id=case.patient_id,
        scalars=bag_scalars(logit, model.threshold, rows),
        elements=rows,
    )


def _study(
    task: BagTask, model: Any, images: NDArray[Any], masks: NDArray[np.bool_] | None
) -> dict[str, Tensor]:
    """What the network says of the slices of a study, which are one bag."""
    chunk, features = task.settings.model.chunk_slices, []
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        inputs = task.normalise(images[part], None if masks is None else masks[part])
        tensor = torch.from_numpy(np.ascontiguousarray(inputs)).to(model.device)
        features.append(model.network.features(tensor))
    found: dict[str, Tensor] = model.network.answer(
        torch.cat(features), torch.tensor([len(images)])
    )
    return found


def clipped(logit: float) -> float:
    """``logit`` within -30..30."""
    return min(max(float(logit), -LARGEST_LOGIT), LARGEST_LOGIT)


def slice_rows(
    elements: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[float]]
) -> tuple[dict[str, Any], ...]:
    """The rows of slices.csv: what was read, and what the network said where it saw a slice.

    Raises ValueError or IndexError where there are not as many answers as used slices.
    """
    rows = []
    seen = 0
    for element in elements:
        row: dict[str, Any] = {**element, "logit": None}
        if element["used"]:
            row["logit"] = values["slice_logits"][seen]
            if "attention" in values:
                row["attention"] = values["attention"][seen]
            seen += 1
        rows.append(row)
    if seen != len(values["slice_logits"]):
        raise ValueError(f"{seen} used slices, but {len(values['slice_logits'])} logits")
    return tuple(rows)


def bag_scalars(
    logit: float, threshold: float, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The family's columns of predictions.csv.

    The top slice is the one with the largest logit, with attention pooling that with the largest
    attention; the first of several equal ones.
    """
    used = [row for row in rows if row["used"]]
    by = "attention" if "attention" in used[0] else "logit"
    top = max(used, key=lambda row: row[by])
    probability = 1 / (1 + math.exp(-logit))
    return {
        "probability": probability,
        "decision": "positive" if probability >= threshold else "negative",
        "threshold": threshold,
        "logit": logit,
        "slices_read": len(rows),
        "slices_used": len(used),
        "top_slice_index": top["slice_index"],
        "top_slice_instance": top["instance_number"],
        "top_slice_position_mm": top["position_mm"],
        "top_slice_uid": top["sop_instance_uid"],
    }


def pool_studies(model: BagModelSection, predictions: Sequence[Prediction]) -> Prediction:
    """One answer for the studies of one patient, as if all their slices were one bag.

    Attention needs features that predictions do not hold: there the study that speaks most for
    positive answers for the patient. The top slice's columns are those of the study it is in.
    """
    best = max(predictions, key=lambda prediction: float(prediction.scalars["logit"]))
    if len(predictions) == 1:
        return best
    logit, top = float(best.scalars["logit"]), best
    if model.pooling != "attention":
        pool = create_pooling(
            model.pooling, top_share=model.top_share, lse_sharpness=model.lse_sharpness
        )
        slices = [
            float(row["logit"])
            for prediction in predictions
            for row in prediction.elements
            if row["used"]
        ]
        bag = torch.tensor([slices], dtype=torch.float64)
        logit = clipped(pool(bag, torch.ones_like(bag, dtype=torch.bool)).item())
        top = max(predictions, key=_top_logit)
    probability = 1 / (1 + math.exp(-logit))
    threshold = float(best.scalars["threshold"])
    scalars = {
        **top.scalars,
        "probability": probability,
        "decision": "positive" if probability >= threshold else "negative",
        "logit": logit,
        **{
            name: sum(int(prediction.scalars[name]) for prediction in predictions)
            for name in ("slices_read", "slices_used")
        },
    }
    return Prediction(
        case_id=best.case_id,
        patient_id=best.patient_id,
        scalars=scalars,
        elements=tuple(row for prediction in predictions for row in prediction.elements),
        findings=tuple(f for prediction in predictions for f in prediction.findings),
    )


def _top_logit(prediction: Prediction) -> float:
    return max(float(row["logit"]) for row in prediction.elements if row["used"])
