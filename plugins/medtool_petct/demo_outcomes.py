"""What became of the people of the demo: their hazard, the event, the end of follow-up."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Logarithm of the hazard beside that of a patient with 15 mL of tumour at SUV 6.7 aged 62.
PER_LOG_VOLUME, VOLUME_ML = 1.5, 15.0
PER_LOG_UPTAKE, UPTAKE_SUV = 2.6, 6.7
PER_DECADE, AGE_YEARS, AGE_SPREAD_YEARS = 0.25, 62.0, 10.0
WITHOUT_TUMOUR = -2.5
# Times to the event are Weibull's: half of the patients above have it within two years.
SHAPE, MEDIAN_DAYS = 1.2, 730.0
# Follow-up ends at a day drawn for each patient.
FOLLOW_UP_DAYS = (200.0, 1700.0)
# How often a cell of the table is empty.
AGE_MISSING, STAGE_MISSING = 0.08, 0.12
STAGES = ("I", "II", "III", "IV")
STAGE_ML = (8.0, 20.0, 40.0)
STAGE_SPREAD = 0.5


@dataclass(frozen=True)
class DemoPatient:
    """A row of the table; ``age`` and ``stage`` are empty where nobody wrote them down.

    ``log_hazard`` is the truth that no table of the clinic has.
    """

    age: str
    sex: str
    stage: str
    time_days: int
    event: bool
    log_hazard: float


def draw_patient(
    rng: np.random.Generator, volume_ml: float, uptake_suv: float, tumours: int
) -> DemoPatient:
    """Someone with ``tumours`` of ``volume_ml`` together that take up ``uptake_suv``."""
    age = min(max(rng.normal(AGE_YEARS, AGE_SPREAD_YEARS), 30.0), 90.0)
    hazard = PER_DECADE * (age - AGE_YEARS) / 10.0 + WITHOUT_TUMOUR
    if tumours:
        hazard -= WITHOUT_TUMOUR
        hazard += PER_LOG_VOLUME * log(volume_ml / VOLUME_ML)
        hazard += PER_LOG_UPTAKE * log(uptake_suv / UPTAKE_SUV)
    scale_days = MEDIAN_DAYS / log(2.0) ** (1.0 / SHAPE)
    until_event = scale_days * (rng.exponential() / exp(hazard)) ** (1.0 / SHAPE)
    until_end = rng.uniform(*FOLLOW_UP_DAYS)
    # Stages are read off by people: by volume and number, and not always alike.
    seen_ml = volume_ml * exp(rng.normal(0.0, STAGE_SPREAD)) * (1.0 + tumours / 6)
    stage = STAGES[sum(seen_ml > limit for limit in STAGE_ML)]
    return DemoPatient(
        age="" if rng.random() < AGE_MISSING else f"{age:.0f}",
        sex="F" if rng.random() < 0.5 else "M",
        stage="" if rng.random() < STAGE_MISSING else stage,
        time_days=max(1, round(min(until_event, until_end))),
        event=bool(until_event <= until_end),
        log_hazard=float(hazard),
    )
