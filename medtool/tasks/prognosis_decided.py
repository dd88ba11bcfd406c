"""What a checkpoint of a prognosis has decided, and what answers make of it.

Made by ``prognosis_decide`` at the end of a training; of several models together the decisions are
joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.ensemble import MEMBERS
from medtool.score.conformal import PresenceSets, VolumeIntervals
from medtool.score.survival_regression import BaselineHazard

if TYPE_CHECKING:
    from medtool.core.records import Case

# Under these names the decisions stand in the checkpoint's document.
HAZARD, BASELINES = "baseline_hazard", "baselines"
TEMPERATURE, CONFORMAL, REVIEW = "temperature", "conformal", "review"
# What has a limit beyond which a case goes to review: name -> why, with what was met and the limit.
LIMITS: Mapping[str, str] = {
    "uncertainty": "unsure outline: {met:.2f} nats, over {limit:.2f}",
    "volume_spread": "unsure volume: the passes spread by {met:.0%}, over {limit:.0%}",
    "risk_width": "unsure risk: an interval {met:.2f} wide, over {limit:.2f}",
}
SET_NAMES: Mapping[tuple[bool, bool], str] = {
    (True, False): "absent",
    (False, True): "present",
    (True, True): "both",
    (False, False): "none",
}
SET_REVIEWED: Mapping[str, str] = {
    "both": "lesion or none: neither can be ruled out",
    "none": "lesion or none: unlike the patients of the calibration",
}


@dataclass(frozen=True)
class Decided:
    """The decisions of a checkpoint, or of several together; what was not decided is left out.

    ``centre`` is the mean risk of the training patients; ``hazards`` are of a patient of that
    risk. ``limits`` are those of ``LIMITS``; ``regressions`` those of the baselines.
    """

    centre: float = 0.0
    hazards: tuple[BaselineHazard, ...] = ()
    temperature: float = 1.0
    presence: PresenceSets | None = None
    volumes: VolumeIntervals | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    regressions: Mapping[str, Any] = field(default_factory=dict)

    def survival(self, risks: Sequence[float], days: float) -> list[float] | None:
        """Shares without event after ``days`` of patients with these risks, beside the mean's;
        None without a baseline hazard.
        """
        if not self.hazards:
            return None
        shares = [
            hazard.survival(np.asarray(risks) + hazard.centre, [days])[:, 0]
            for hazard in self.hazards
        ]
        return [float(share) for share in np.mean(shares, axis=0)]

    def of_volume(self, columns: Mapping[str, Any], most_ml: float = inf) -> dict[str, Any]:
        """The conformal set and interval for the columns of a case, whose image holds ``most_ml``:
        no tumour is larger.
        """
        found: dict[str, Any] = {}
        if self.presence is not None:
            absent, present = self.presence.sets([columns["lesion_probability"]])[0]
            found["lesion_set"] = SET_NAMES[bool(absent), bool(present)]
        if self.volumes is not None and isfinite(self.volumes.quantile):
            spread = spread_of(columns)
            low, high = self.volumes.interval_ml([columns["volume_ml"]], [spread])
            found["volume_low_ml"] = float(low[0])
            found["volume_high_ml"] = min(float(high[0]), most_ml)
        return found

    def review(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the case goes to review, and why; {} where nothing was decided."""
        if not self.limits and self.presence is None:
            return {}
        unclear = SET_REVIEWED.get(str(columns.get("lesion_set")))
        why = [] if unclear is None else [unclear]
        for name, text in LIMITS.items():
            met, limit = measured(name, columns), self.limits.get(name)
            if met is not None and limit is not None and met > limit:
                why.append(text.format(met=met, limit=limit))
        return {"review": "yes" if why else "no", "review_why": "; ".join(why) or None}


def measured(name: str, columns: Mapping[str, Any]) -> float | None:
    """The number of ``LIMITS`` that the columns of a case have; None where they have none."""
    if name == "risk_width":
        low, high = columns.get("risk_low"), columns.get("risk_high")
        return None if low is None or high is None else float(high) - float(low)
    value = columns.get(name)
    return None if value is None or not isfinite(value) else float(value)


def spread_of(columns: Mapping[str, Any]) -> float:
    """By what the interval of a volume is widened: the spread over passes, where there is one."""
    spread = measured("volume_spread", columns)
    return 1.0 if spread is None else spread


def decided_of(document: Mapping[str, Any]) -> Decided:
    """The decisions in a checkpoint's document; of several members in one, theirs together."""
    members = document.get(MEMBERS)
    if members:
        return decided_together([decided_of(member["document"]) for member in members])
    hazard, conformal = (document.get(name) or {} for name in (HAZARD, CONFORMAL))
    hazards: tuple[BaselineHazard, ...] = ()
    if hazard:
        times, cumulative = (np.asarray(hazard[name]) for name in ("times_days", "hazard"))
        hazards = (BaselineHazard(times, cumulative, float(hazard["mean_risk"])),)
    presence = volumes = None
    if "presence" in conformal:
        absent, present = (_number(value) for value in conformal["presence"])
        presence = PresenceSets((absent, present), float(conformal["risk"]))
    if "volume" in conformal:
        volumes = VolumeIntervals(_number(conformal["volume"]), float(conformal["risk"]))
    return Decided(
        centre=float(hazard.get("mean_risk", 0.0)),
        hazards=hazards,
        temperature=float((document.get(TEMPERATURE) or {}).get("value", 1.0)),
        presence=presence,
        volumes=volumes,
        limits=(document.get(REVIEW) or {}).get("limits", {}),
        regressions=document.get(BASELINES) or {},
    )


def _number(value: float | None) -> float:
    # JSON has no infinity.
    return inf if value is None else float(value)


def decided_together(several: Sequence[Decided]) -> Decided:
    """The decisions of an ensemble.

    Its quantiles are the widest of its members': no patient was left out by all of them, so that
    none could calibrate them together. Survival is the mean over members, each with its own
    hazard; of regressions those of the first stand.
    """
    names = set.intersection(*(set(one.limits) for one in several))
    presence = [one.presence for one in several if one.presence is not None]
    volumes = [one.volumes for one in several if one.volumes is not None]
    widest = joined = None
    if len(presence) == len(several):
        absent, present = (max(one.quantiles[side] for one in presence) for side in (0, 1))
        widest = PresenceSets((absent, present), presence[0].risk)
    if len(volumes) == len(several):
        joined = VolumeIntervals(max(one.quantile for one in volumes), volumes[0].risk)
    return Decided(
        hazards=tuple(hazard for one in several for hazard in one.hazards),
        temperature=float(np.exp(np.mean([np.log(one.temperature) for one in several]))),
        presence=widest,
        volumes=joined,
        limits={name: float(np.mean([one.limits[name] for one in several])) for name in names},
        regressions=several[0].regressions,
    )


def baseline_columns(decided: Decided, case: Case, columns: Mapping[str, Any]) -> dict[str, float]:
    """What Cox regressions on the volume alone and on the covariates alone say of a case."""
    from medtool.tasks.prognosis_baselines import regression_risk

    found = {
        f"risk_{name}": regression_risk(regression, case, columns)
        for name, regression in decided.regressions.items()
    }
    return {name: risk for name, risk in found.items() if risk is not None}
