"""The demo's model: what it reaches on held-out patients, and what must not be learned.

    python benchmarks/demo_quality.py [--seeds 5] [--only learned|nothing|alone]

- ``learned``: the demo's preset on the demo's cohort of each seed; AUROC of the test part.
- ``nothing``: small runs with shuffled labels, and with lesions left out but labels kept, and as a
  control the same small runs with lesions and their labels; means over the seeds. Half of the
  patients are held out, so that one mean has a deviation of about 0.05 where nothing is learned.
- ``alone``: scanner, slice count and mean HU by themselves as predictors of the label in the cohort
  of each seed, at their most flattering: scanners ranked by their own rate of positives, numbers in
  the better direction; the highest of all seeds counts.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from medtool_brainmet.demo import DemoOptions, DemoStudy, plan_cohort, write_cohort
from results import Row, begin, work_folder

from medtool.score.ranking import auroc
from medtool.score.sample import binary_sample
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

TASK, PRESET = "brainmet", "demo"
LEAST_AUROC = 0.9
NOTHING = (0.4, 0.6)
LEAST_CONTROL = 0.7
MOST_ALONE = 0.65
PARTS = ("learned", "nothing", "alone")
SMALL_PATIENTS, SMALL_SIDE_PX = 60, 64
SMALL = (
    "data.preparation.size_px=48",
    "augment.audit_shuffles=0",
    "train.epochs=12",
    "train.test_share=0.5",
    "model.hidden_features=16",
    "metrics.bootstrap_draws=100",
)


def held_out_auroc(folder: Path, seed: int, assignments: Sequence[str] = ()) -> float:
    """AUROC on the test part of a run on the cohort in ``folder``."""
    result = train(
        TrainOptions(
            task=TASK,
            preset=PRESET,
            data=folder,
            assignments=assignments,
            run=RunOptions(run="quality", seed=seed, workers=0, cache=folder / "cache"),
            folder=folder,
        )
    )
    return float(result.scores["test"]["metrics"]["auroc"]["value"])


def shuffle_labels(folder: Path, seed: int) -> None:
    """Deal the labels of the cohort anew."""
    path = folder / "labels1.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        head, *rows = csv.reader(stream)
    dealt = np.random.default_rng((seed, 5)).permutation([row[1] for row in rows])
    with path.open("w", newline="", encoding="utf-8") as stream:
        pairs = zip((row[0] for row in rows), dealt, strict=True)
        csv.writer(stream).writerows([head, *pairs])


def learned_rows(work: Path, seeds: Sequence[int]) -> list[Row]:
    """The demo's own preset and cohort, over seeds."""
    aurocs = []
    for seed in seeds:
        folder = work / f"learned-{seed}"
        write_cohort(folder, seed)
        aurocs.append(held_out_auroc(folder, seed))
    what = f"held-out AUROC of the demo, lowest of {len(aurocs)} seeds"
    detail = {"auroc_by_seed": aurocs, "mean": fmean(aurocs)}
    return [Row(what, min(aurocs), "", least=LEAST_AUROC, detail=detail)]


def nothing_rows(work: Path, seeds: Sequence[int], *, quick: bool) -> list[Row]:
    """Means of small runs where there is nothing to learn, and where there is."""
    low, high = NOTHING
    variants: dict[str, tuple[bool, bool, float, float | None]] = {
        "shuffled labels": (True, True, low, high),
        "lesions left out, labels kept": (False, False, low, high),
        "lesions and their labels (control)": (True, False, LEAST_CONTROL, None),
    }
    rows = []
    for number, (name, (lesions, shuffled, least, most)) in enumerate(variants.items()):
        aurocs = []
        for seed in seeds:
            folder = work / f"nothing-{number}-{seed}"
            options = DemoOptions(
                patients=16 if quick else SMALL_PATIENTS,
                size_px=SMALL_SIDE_PX,
                lesions=lesions,
                oddities=False,
                workers=1 if quick else None,
            )
            write_cohort(folder, seed, options)
            if shuffled:
                shuffle_labels(folder, seed)
            assignments = (*SMALL, "train.epochs=1") if quick else SMALL
            aurocs.append(held_out_auroc(folder, seed, assignments))
        what = f"AUROC of small runs, {name}: mean of {len(aurocs)} seeds"
        detail = {"auroc_by_seed": aurocs}
        rows.append(Row(what, fmean(aurocs), "", least=least, most=most, detail=detail))
    return rows


def alone_rows(seeds: Sequence[int]) -> list[Row]:
    """The strongest of each fact over the seeds."""
    facts: dict[str, Callable[[DemoStudy], object]] = {
        "scanner": lambda study: study.acquisition.model,
        "slice count": lambda study: study.acquisition.slices,
        "mean HU": lambda study: study.mean_hu,
    }
    found: dict[str, list[float]] = {name: [] for name in facts}
    for seed in seeds:
        studies, dealt = plan_cohort(seed, DemoOptions())
        labels = [float(dealt[study.header.patient_id]) for study in studies]
        for name, fact in facts.items():
            found[name].append(flattered_auroc([fact(study) for study in studies], labels))
    return [
        Row(
            f"AUROC of {name} alone, highest of {len(values)} seeds",
            max(values),
            "",
            most=MOST_ALONE,
            detail={"auroc_by_seed": values},
        )
        for name, values in found.items()
    ]


def flattered_auroc(values: Sequence[object], labels: Sequence[float]) -> float:
    """AUROC of a fact at its most flattering; never below 0.5."""
    if all(isinstance(value, int | float) for value in values):
        scores = [float(str(value)) for value in values]
    else:
        of_value: dict[object, list[float]] = {}
        for value, label in zip(values, labels, strict=True):
            of_value.setdefault(value, []).append(label)
        scores = [fmean(of_value[value]) for value in values]
    # AUROC does not ask for probabilities, but the product's does.
    spread = max(scores) - min(scores) or 1.0
    found = auroc(binary_sample(labels, [(s - min(scores)) / spread for s in scores]))
    return max(found, 1 - found)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)


def main() -> int:
    """Measure, print, keep."""
    run = begin("demo_quality", __doc__, ("torch", "numpy"), add_options)
    options, quick = run.options, run.options.quick
    seeds = range(1 if quick else options.seeds)
    parts = [options.only] if options.only else PARTS[1:] if quick else PARTS
    rows: list[Row] = []
    with work_folder() as work:
        if "learned" in parts:
            rows += learned_rows(work, seeds)
        if "nothing" in parts:
            rows += nothing_rows(work, seeds, quick=quick)
        if "alone" in parts:
            rows += alone_rows(seeds)
    left_out = [name for name in PARTS if name not in parts]
    notes = [f"Not measured in this run: {', '.join(left_out)}."] if left_out else []
    return run.finish(rows, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
