"""What a checkpoint says about its model, beside the tensors: layers, groups, stages, data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from medtool.core.records import Case
from medtool.nets.freezing import parameter_count
from medtool.train.plan import Plan
from medtool.train.stages import Groups

RANGE_QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0)
# Facts of cases that say what a model has seen; the most frequent values are kept.
RANGE_FACTS = ("manufacturer", "model", "kernel", "thickness_mm", "kvp")
MOST_VALUES = 50


def layers(network: nn.Module, groups: Groups) -> list[dict[str, Any]]:
    """Every module that holds tensors of its own: name, type, group, shapes, parameters."""
    owner = {
        id(part): name
        for name, modules in groups.items()
        for module in modules
        for part in module.modules()
    }
    rows = []
    for name, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        kept = dict(module.named_buffers(recurse=False))
        if own or kept:
            rows.append(
                {
                    "name": name,
                    "type": type(module).__name__,
                    "group": owner.get(id(module), ""),
                    "shapes": {key: list(t.shape) for key, t in (own | kept).items()},
                    "parameters": sum(p.numel() for p in own.values()),
                }
            )
    return rows


def group_table(groups: Groups) -> dict[str, dict[str, int]]:
    """Parameters of each group."""
    return {name: {"parameters": parameter_count(modules)} for name, modules in groups.items()}


def stage_table(plan: Plan, groups: Groups) -> list[dict[str, Any]]:
    """What each stage trains: groups, rates, number of parameters."""
    return [
        {
            "from_epoch": stage.from_epoch,
            "rates": dict(stage.rates),
            "parameters": sum(parameter_count(groups[name]) for name in stage.rates),
        }
        for stage in plan.stages
    ]


def fingerprint(
    cases: Sequence[Case],
    parts: Mapping[str, str],
    slice_hashes: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What the data were: counts by part, and one hash over ids, labels, parts and pixels.

    Equal data give the same hash in any order; no id can be read out of it.
    """
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda c: c.case_id):
        pixels = ",".join((slice_hashes or {}).get(case.case_id, ()))
        line = [case.case_id, case.patient_id, case.label, parts.get(case.case_id, ""), pixels]
        digest.update((repr(line) + "\n").encode())
    counts: dict[str, dict[str, Any]] = {}
    for part in sorted(set(parts.values())):
        own = [case for case in cases if parts.get(case.case_id) == part]
        counts[part] = {
            "cases": len(own),
            "patients": len({case.patient_id for case in own}),
            "labels": dict(Counter(str(case.label) for case in own)),
        }
    return {"sha256": digest.hexdigest(), "parts": counts}


def training_range(
    cases: Sequence[Case], prepared_facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the training cases were like: scanners, kernels, thickness, spacing, HU.

    Numbers are quantiles over cases (``quantiles`` names them); words are counted. HU quantiles
    are the median over cases of each quantile that the preparation measured.
    """
    table: dict[str, Any] = {"cases": len(cases), "quantiles": list(RANGE_QUANTILES)}
    for name in RANGE_FACTS:
        values = [case.facts[name] for case in cases if case.facts.get(name) not in (None, "")]
        if values and all(isinstance(value, int | float) for value in values):
            table[name] = _quantiles(values)
        elif values:
            counts = Counter(str(value) for value in values)
            table[name] = dict(counts.most_common(MOST_VALUES))
    spacing = [f["spacing_mm"] for f in prepared_facts.values() if f.get("spacing_mm")]
    if spacing:
        axes = np.asarray(spacing, dtype=np.float64)
        table["spacing_mm"] = [_quantiles(axes[:, axis]) for axis in range(axes.shape[1])]
    measured = [
        _numbers(f["hu_quantiles"]) for f in prepared_facts.values() if f.get("hu_quantiles")
    ]
    if measured and len({len(row) for row in measured}) == 1:
        table["hu_quantiles"] = [float(q) for q in np.median(measured, axis=0)]
    return table


def score_quantiles(probabilities: Sequence[float]) -> list[float]:
    """Quantiles of the model's own answers on the selection part."""
    return _quantiles(probabilities)


def _quantiles(values: Any) -> list[float]:
    numbers = np.asarray(values, dtype=np.float64)
    return [float(q) for q in np.quantile(numbers, RANGE_QUANTILES)]


def _numbers(value: Any) -> list[float]:
    return [float(v) for v in (value.values() if isinstance(value, Mapping) else value)]
