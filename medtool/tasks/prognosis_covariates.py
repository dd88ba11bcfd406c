"""Covariates of patients, such as age and stage, as numbers that a network takes.

Numbers are standardised by the training cases; words have an input for each that occurs there.
A value that is missing, or was never seen, counts as the mean, and a further input says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import UsageError
from medtool.core.records import Case, Finding
from medtool.data.foreign_table import NO_VALUE
from medtool.tasks.segmentation_planning import update

if TYPE_CHECKING:
    from medtool.tasks.prognosis_settings import CovariateSection, PrognosisSettings

MISSING = "covariate-missing"


def covariate_inputs(known: Sequence[CovariateSection]) -> int:
    """How many inputs these covariates have: their numbers or words, and one each for missing."""
    return sum(max(1, len(one.levels)) + 1 for one in known)


def covariate_names(known: Sequence[CovariateSection]) -> list[str]:
    """What the inputs are called, in order."""
    names = []
    for one in known:
        names += [f"{one.name} {level}" for level in one.levels] or [one.name]
        names.append(f"{one.name} missing")
    return names


def covariate_values(known: Sequence[CovariateSection], values: Mapping[str, str]) -> list[float]:
    """The inputs for one case with the covariates ``values``."""
    inputs: list[float] = []
    for one in known:
        value = _value(one, values)
        if one.levels:
            inputs += [float(value == level) for level in one.levels]
        else:
            inputs.append(0.0 if value is None else (float(value) - one.mean) / one.spread)
        inputs.append(float(value is None))
    return inputs


def missing_covariates(
    known: Sequence[CovariateSection], values: Mapping[str, str]
) -> tuple[Finding, ...]:
    """What the network had to do without, as a finding."""
    missing = [one.name for one in known if _value(one, values) is None]
    if not missing:
        return ()
    text = f"No usable value of {', '.join(missing)}: the risk takes the mean of the training cases"
    return (Finding(MISSING, text, "warning"),)


def _value(known: CovariateSection, values: Mapping[str, str]) -> str | None:
    """The text of a usable value; None where there is none, or one that training never saw."""
    text = _text(known.name, values)
    if known.levels:
        return text if text in known.levels else None
    return text if _number(text) is not None else None


def _text(name: str, values: Mapping[str, str]) -> str:
    """What a case has in a column, whose name may be written large or small."""
    return values.get(name, values.get(name.casefold(), "")).strip()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def with_known_covariates(settings: PrognosisSettings, cases: Sequence[Case]) -> PrognosisSettings:
    """The settings with the covariates of the preset as these cases have them.

    Raises UsageError where a column is in no case.
    """
    model = settings.model
    if not model.covariates or model.known_covariates:
        return settings
    known = known_covariates(model.covariates, cases)
    return update(settings, model=update(model, known_covariates=known))


def known_covariates(names: Sequence[str], cases: Sequence[Case]) -> list[CovariateSection]:
    """What these columns are like in these cases. Raises UsageError where one is in no case."""
    return [_known(name, cases) for name in names]


def _known(name: str, cases: Sequence[Case]) -> CovariateSection:
    from medtool.tasks.prognosis_settings import CovariateSection

    words = [_text(name, case.covariates) for case in cases]
    words = [word for word in words if word.lower() not in NO_VALUE]
    if not words:
        raise UsageError(
            "A covariate has no value in any case.",
            where="model.covariates",
            met=name,
            wanted="a column of the table of patients: "
            + ", ".join(sorted({key for case in cases for key in case.covariates})),
        )
    numbers = [_number(word) for word in words]
    if None in numbers:
        return CovariateSection(name=name, levels=sorted(set(words)))
    values = np.asarray(numbers, dtype=np.float64)
    return CovariateSection(name=name, mean=float(values.mean()), spread=float(values.std()) or 1.0)
