"""The demo of petct: what its preset reaches on held-out patients whose true hazard is known.

    python benchmarks/petct_quality.py [--seeds 3] [--first-seed 1] [--no-baselines]

For each seed a synthetic cohort: as many patients to learn from as in the demo, 120 held out. What
counts is the mean over the seeds; each seed's values stand beside it. Seed 0 is not among them:
what a case's uncertainty means was chosen on its answers. The true hazard of the
patients, which nothing learns from, gives the best C that can be reached; the best threshold on
SUV, chosen on the patients that were learned from, gives the Dice without a network. The baselines
(the outlines alone, survival alone) learn with the same preset on the same parts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from medtool_petct.demo import CASES, write_cohort
from results import Row, begin, work_folder

from medtool.data.dataset_record import ImageReference
from medtool.data.run_folder import RunFolder
from medtool.data.volumes import read_mask, read_volume
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

TASK, PRESET = "petct", "demo"
HELD_OUT, DEMO_HELD_OUT = 120, 24
# Of each metric what its mean must reach, or must not pass.
TARGETS: Mapping[str, tuple[str, float | None, float | None]] = {
    "dice": ("Dice over cases with lesions", 0.75, None),
    "harrell_c": ("Harrell's C", 0.70, None),
    "sensitivity": ("sensitivity of voxels", 0.75, None),
    "specificity": ("specificity of voxels", 0.95, None),
    "voxel_ece": ("ECE of voxels within 5 mm of truth or answer", None, 0.10),
    "uncertainty_spearman": ("Spearman of a case's uncertainty and 1 - Dice", 0.70, None),
}
# Told without a target.
ALSO = {
    "reachable_c": "best C that can be reached",
    "volume_alone_c": "C of the predicted volume alone",
    "uno_c": "Uno's C",
    "integrated_brier": "integrated Brier score",
    "case_auroc": "AUROC of failed cases by uncertainty",
    "dice_pooled": "DSCagg",
    "false_positive_ml": "FPV (mL)",
    "false_negative_ml": "FNV (mL)",
}
MOST_SHORT_OF_REACHABLE = 0.08
MOST_BY_THRESHOLD = 0.6
THRESHOLDS_SUV = np.arange(1.0, 31.0, 0.5)
QUICK = (
    "data.preparation.size_px=[32, 32]",
    "model.first_features=4",
    "train.epochs=1",
    "train.examples_per_case=1",
    "infer.passes=2",
    "metrics.bootstrap_draws=100",
)

Metrics = Mapping[str, float]


def learned(work: Path, seed: int, *, quick: bool, baselines: bool) -> dict[str, Metrics]:
    """Metrics of the held-out part of one seed: of the whole model, and of each baseline."""
    folder = work / f"cohort-{seed}"
    held_out = 8 if quick else HELD_OUT
    cases = held_out + (16 if quick else CASES - DEMO_HELD_OUT)
    write_cohort(folder, seed, cases)
    assignments = [f"train.test_share={held_out / cases:.4f}"]
    assignments += [f"train.baselines={str(baselines).lower()}", *(QUICK if quick else ())]
    result = train(
        TrainOptions(
            task=TASK,
            preset=PRESET,
            data=folder,
            assignments=tuple(assignments),
            run=RunOptions(run="quality", seed=seed, workers=0, cache=folder / "cache"),
            folder=folder,
        )
    )
    run = RunFolder(result.run)
    found = {"whole": _metrics(result.scores["test"])}
    for own in sorted(run.baselines_folder.glob("*")):
        found[own.name] = _metrics(RunFolder(own).read_scores()["test"])
    found["threshold"] = {"dice": _by_threshold(folder, run)}
    return found


def _metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """Values by name; NaN where undefined."""
    values = {name: score["value"] for name, score in document["metrics"].items()}
    return {name: float("nan") if value is None else value for name, value in values.items()}


def _by_threshold(folder: Path, run: RunFolder) -> float:
    """Mean Dice of the held-out cases by the one SUV that is best for the others."""
    parts = {row["case"]: row["part"] for row in run.read_cases()}
    learned_from, held_out = (
        np.array([_dices(folder, case) for case, part in parts.items() if (part == "test") == held])
        for held in (False, True)
    )
    best = int(np.nanmean(learned_from, axis=0).argmax())
    return float(np.nanmean(held_out[:, best]))


def _dices(folder: Path, case: str) -> list[float]:
    """Dice of each threshold; NaN without a tumour."""
    suv = read_volume(ImageReference(folder / "pet" / f"{case}.nii.gz")).array
    tumour = read_mask(ImageReference(folder / "masks" / f"{case}.nii.gz")).array > 0
    if not tumour.any():
        return [float("nan")] * len(THRESHOLDS_SUV)
    hot = [suv >= threshold for threshold in THRESHOLDS_SUV]
    return [2.0 * (one & tumour).sum() / (one.sum() + tumour.sum()) for one in hot]


def rows_of(found: Sequence[Mapping[str, Metrics]]) -> list[Row]:
    """Means over the seeds, those with a target first."""
    whole = [one["whole"] for one in found]
    of = f"mean of {len(found)} seeds"
    rows = [
        _row(f"{what}, {of}", [one[name] for one in whole], least=least, most=most)
        for name, (what, least, most) in TARGETS.items()
    ]
    short = [one["reachable_c"] - one["harrell_c"] for one in whole]
    rows.append(_row(f"reachable C minus C, {of}", short, most=MOST_SHORT_OF_REACHABLE))
    by_threshold = [one["threshold"]["dice"] for one in found]
    what = f"Dice by the best threshold on SUV, {of}"
    rows.append(_row(what, by_threshold, most=MOST_BY_THRESHOLD))
    rows += [_row(f"{what}, {of}", [one[name] for one in whole]) for name, what in ALSO.items()]
    for name in ("segmentation", "survival"):
        metric = "dice" if name == "segmentation" else "harrell_c"
        values = [one[name][metric] for one in found if name in one]
        if values:
            rows.append(_row(f"{TARGETS[metric][0]} of {name} alone, {of}", values))
    return [row for row in rows if np.isfinite(row.value)]


def _row(
    what: str, values: Sequence[float], *, least: float | None = None, most: float | None = None
) -> Row:
    return Row(what, fmean(values), "", least=least, most=most, detail={"by_seed": list(values)})


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--no-baselines", action="store_true")


def main() -> int:
    """Measure, print, keep."""
    run = begin("petct_quality", __doc__, ("torch", "numpy"), add_options)
    options, quick = run.options, run.options.quick
    seeds = 1 if quick else options.seeds
    with work_folder() as work:
        found = [
            learned(work, seed, quick=quick, baselines=not (quick or options.no_baselines))
            for seed in range(options.first_seed, options.first_seed + seeds)
        ]
    notes = ["The baselines were not trained in this run."] if options.no_baselines else []
    return run.finish(rows_of(found), notes=notes)


if __name__ == "__main__":
    sys.exit(main())
