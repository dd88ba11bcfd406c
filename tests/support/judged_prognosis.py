"""Answers of a prognosis made by hand beside what is known, for scores and pages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tiny_prognosis import tiny_settings

from medtool.core.geometry import Grid
from medtool.core.records import Outcome, Prediction, Truth
from medtool.tasks.prognosis_answers import UNCERTAINTY
from medtool.tasks.prognosis_labels import TRUE_RISK
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.segmentation_predict import PROBABILITIES

GRID = Grid((16, 16, 16), (4.0, 4.0, 5.0), (0.0, 0.0, 0.0))
VOXEL_ML = 0.08
SETTINGS = tiny_settings(
    metrics={"bootstrap_draws": 200, "horizons_days": [100.0, 200.0]},
    infer={"conformal_risk": 0.2},
)
HORIZONS = ("survival_100", "survival_200")
HEALTHY = slice(0, 0)


def box(*parts: slice) -> np.ndarray:
    """A mask (16, 16, 16) with a box in it; an empty one of HEALTHY."""
    mask = np.zeros((16, 16, 16), dtype=np.uint8)
    mask[parts] = 1
    return mask


LESION = box(slice(4, 8), slice(4, 8), slice(4, 8))
NOTHING = box(HEALTHY)


def answer(name: str, mask: np.ndarray | None, **said: Any) -> Prediction:
    """An answer that is sure where it marks nothing, 0.9 sure where it marks tumour."""
    arrays: dict[str, Any] = {}
    if mask is not None:
        chance = np.where(mask > 0, 0.9, 0.05).astype(np.float32)
        arrays = {MASK: mask, PROBABILITIES: chance[None], UNCERTAINTY: chance * (1 - chance)}
        said.setdefault("volume_ml", float(mask.sum()) * VOXEL_ML)
    return Prediction(name, f"person {name}", said, arrays, dict.fromkeys(arrays, GRID))


def truth(
    name: str, mask: np.ndarray | None, days: float | None = None, risk: float | None = None
) -> Truth:
    """What is known of a case; every second one in the alphabet had the event."""
    arrays: dict[str, Any] = {} if mask is None else {MASK: mask}
    if risk is not None:
        arrays[TRUE_RISK] = np.asarray(risk)
    outcome = None if days is None else Outcome(days, event=ord(name[0]) % 2 == 1)
    grids = {} if mask is None else {MASK: GRID}
    return Truth(name, f"person {name}", outcome=outcome, arrays=arrays, grids=grids)


def cohort(count: int = 20) -> tuple[list[Prediction], list[Truth]]:
    """Patients whose risk orders them but for chance; case 3 has no mask, case 4 no outcome."""
    generator = np.random.default_rng(0)
    risks = generator.normal(size=count)
    days = generator.exponential(200 / np.exp(risks)) + 1
    predictions, truths = [], []
    for number, (risk, day) in enumerate(zip(risks, days, strict=True)):
        name = f"{chr(97 + number)}{number:02d}"
        mask = LESION if number != 3 else None
        said = risk + generator.normal(scale=0.3)
        at = np.exp(-np.array([100.0, 200.0]) / 200 * math.exp(risk))
        predictions.append(
            answer(
                name,
                LESION.copy(),
                risk=said,
                risk_low=said - 1,
                risk_high=said + 1,
                uncertainty=0.1 * number,
                **dict(zip(HORIZONS, at.tolist(), strict=True)),
            )
        )
        truths.append(truth(name, mask, None if number == 4 else day, risk))
    return predictions, truths
