"""Tiny PET/CT studies as they lie in the cache, with tumours, outcomes and covariates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtool.core.checkpoint import CheckpointHeader
from medtool.core.geometry import Grid
from medtool.core.records import Case, Outcome, Prepared
from medtool.data.case_file import to_bytes
from medtool.predict.model import Model
from medtool.tasks.prognosis_network import build_prognosis_network
from medtool.tasks.prognosis_settings import PrognosisSettings

SIDE, SLICES = 32, 12
SPACING_MM = (4.0, 4.0, 5.0)
GRID = Grid((SIDE, SIDE, SLICES), SPACING_MM, (0.0, 0.0, 0.0))


def tiny_settings(**sections: dict[str, Any]) -> PrognosisSettings:
    """A small network on slices of 32 x 32; ``sections`` change single keys."""
    values: dict[str, dict[str, Any]] = {
        "data": {
            "label_ids": {"tumour": [1]},
            "regions_order": [1],
            "preparation": {"size_px": [SIDE, SIDE]},
        },
        "model": {"first_features": 4, "levels": 4, "head_features": [8]},
        "train": {"slices_per_case": 4, "batch_cases": 3, "learning_rate": 1e-2},
        "infer": {"passes": 4, "batch_slices": 5},
    }
    for name, changes in sections.items():
        values[name] = {**values.get(name, {}), **changes}
    return PrognosisSettings.model_validate(values)


@dataclass(frozen=True)
class TinyStudies:
    """Cases, their files in the cache, and what is in these files."""

    cases: tuple[Case, ...]
    paths: dict[str, Path]
    prepared: dict[str, Prepared]


def tiny_studies(folder: Path, count: int = 3, **without: Sequence[int]) -> TinyStudies:
    """Studies 0 to ``count`` - 1: the larger the number, the larger the tumour and the sooner the
    event. ``without`` names those without ``mask``, ``outcome`` or ``tumour``.
    """
    cases, paths, prepared = [], {}, {}
    for number in range(count):
        name = f"case{number}"
        no_tumour = number in without.get("tumour", ())
        has_mask = number not in without.get("mask", ())
        one = _prepared(name, 0 if no_tumour else 2 + number, number, has_mask=has_mask)
        path = folder / f"{name}.b2"
        path.write_bytes(b"".join(to_bytes(one)))
        outcome = Outcome(1000.0 - 100 * number, event=number % 2 == 0)
        cases.append(
            Case(
                name,
                f"patient{number}",
                f"1.2.{number}",
                {},
                outcome=None if number in without.get("outcome", ()) else outcome,
                references={"mask": "somewhere"} if has_mask else {},
                covariates={"age": str(50 + number), "sex": "fm"[number % 2]},
            )
        )
        paths[name], prepared[name] = path, one
    return TinyStudies(tuple(cases), paths, prepared)


def _prepared(name: str, radius: int, seed: int, *, has_mask: bool) -> Prepared:
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((SLICES, SIDE, SIDE))
    inside = (z - 5) ** 2 + (y - 14) ** 2 + (x - 18) ** 2 < radius**2
    suv = rng.random(inside.shape) + 8.0 * inside
    ct = rng.normal(0, 0.05, inside.shape)
    arrays: dict[str, Any] = {
        "image": np.stack([suv, ct]).astype(np.float16),
        "suv": suv.astype(np.float32),
    }
    if has_mask:
        arrays["label"] = inside.astype(np.uint8)
    facts = {
        "slices": SLICES,
        "prepared_size_vox": [SLICES, SIDE, SIDE],
        "labelled_slices": np.flatnonzero(inside.any(axis=(1, 2))).tolist() if has_mask else [],
    }
    return Prepared(name, arrays, {"image": GRID, "prepared": GRID}, facts=facts)


class _Asked:
    """What a model asks its task: the settings."""

    def __init__(self, settings: PrognosisSettings) -> None:
        self.settings = settings


def tiny_model(
    settings: PrognosisSettings, document: dict[str, Any] | None = None, *, seed: int = 0
) -> Model:
    """An untrained network, ready to answer, whose checkpoint says ``document``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_prognosis_network(settings).eval()
    header = CheckpointHeader(Path("none"), document or {}, {}, 0)
    task: Any = _Asked(settings)
    return Model(task, network, torch.device("cpu"), None, header, Path("none"), "")
