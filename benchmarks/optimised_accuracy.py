"""What INT8 and fewer channels cost in accuracy: networks that have learned, judged held out.

    python benchmarks/optimised_accuracy.py [--hippocampus DIR] [--only heart|brainmet|segment]

- ``heart``: the whole U-Net of the default preset (31 million parameters, 256 x 256) on generated
  pictures;
- ``brainmet``: a ResNet-50 on generated head CT;
- ``segment``: the planned 3D network on real patients, MSD's Task04 or a part of it
  (``--hippocampus``; left out without it).

Each is trained for a short time, then ``optimize`` makes it INT8, and with 35 % of the channels
taken out in two rounds. What falls is the task's own metric on patients that neither training nor
any choice has seen; allowed are 0.005 for INT8 and 0.02 with pruning. Where ``optimize`` refuses a
model, it is made once more with no bound, to say by how much it fell. Takes two hours on two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import Row, begin, work_folder
from segment_training import best_precision

from medtool.core.errors import GateError
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

MOST_INT8, MOST_PRUNED = 0.005, 0.02
ANY_FALL = 0.99
EIGHT_BITS = "model.int8.onnx"
# How long files take is measured elsewhere.
UNTIMED = ("optimize.measure_runs=0",)
ROUNDS = (
    "optimize.prune.steps=2",
    "optimize.prune.epochs={first}",
    "optimize.prune.last_epochs={last}",
)
# Of training on real volumes.
MINUTES = 10.0


@dataclass(frozen=True)
class Subject:
    """A network to train: its preset and what is changed of it, the epochs that it learns again for
    in the first and the last round of pruning, and what writes its data; None for data that are
    named.
    """

    task: str
    title: str
    preset: str
    settings: tuple[str, ...]
    epochs_again: tuple[int, int]
    write: Callable[[Path, int], None] | None = None
    patients: int = 0
    quick_patients: int = 0
    quick_settings: tuple[str, ...] = ()


def heart_data(folder: Path, patients: int) -> None:
    """Generated pictures, four a patient."""
    from medtool_heart.demo import write_cohort

    write_cohort(folder, 0, patients)


def head_data(folder: Path, patients: int) -> None:
    """Generated head CT without damaged studies."""
    from medtool_brainmet.demo import DemoOptions, write_cohort

    write_cohort(folder, 0, DemoOptions(patients=patients, oddities=False))


HEART = Subject(
    task="heart",
    title="U-Net of 31 million parameters, generated pictures",
    preset="default",
    write=heart_data,
    patients=32,
    quick_patients=8,
    settings=(
        "train.epochs=8",
        "train.batch_cases=4",
        "train.accumulate=1",
        "train.optimiser=adamw",
        "train.learning_rate=1e-3",
        "train.schedule=cosine",
        "train.split=three-part",
    ),
    quick_settings=(
        "data.preparation.size_px=[32,32]",
        "model.first_features=8",
        "model.levels=3",
        "train.epochs=2",
    ),
    epochs_again=(2, 6),
)
BRAINMET = Subject(
    task="brainmet",
    title="ResNet-50, generated head CT",
    preset="demo",
    write=head_data,
    patients=90,
    quick_patients=24,
    settings=("model.backbone=resnet50", "train.learning_rate=1e-3", "train.epochs=20"),
    quick_settings=(
        "model.backbone=test_resnet",
        "data.preparation.size_px=48",
        "train.epochs=1",
    ),
    epochs_again=(3, 8),
)
SEGMENT = Subject(
    task="segment",
    title="planned 3D U-Net, hippocampus of real patients",
    preset="default",
    settings=("train.split=three-part", "train.test_share=0.2"),
    epochs_again=(2, 6),
)
SUBJECTS = {one.task: one for one in (HEART, BRAINMET, SEGMENT)}


def trained(subject: Subject, data: Path, folder: Path, *, quick: bool) -> Path:
    """The run of a network that has learned."""
    precision = (f"train.precision={best_precision()}",)
    minutes = MINUTES if subject.write is None else None
    result = train(
        TrainOptions(
            task=subject.task,
            preset=subject.preset,
            data=data,
            assignments=(*precision, *subject.settings, *(subject.quick_settings if quick else ())),
            folder=folder,
            run=RunOptions(run="a", seed=0, workers=1, cache=folder / "cache", minutes=minutes),
        )
    )
    return result.run


def fall_of(run: Path, output: Path, *, prune: bool, assignments: Sequence[str]) -> dict[str, Any]:
    """How the metric of the file in INT8 fell, and how alike its answers are."""

    def document(*more: str) -> Mapping[str, Any]:
        options = OptimizeOptions(
            run,
            output,
            formats=("int8",),
            assignments=(*UNTIMED, *assignments, *more),
            prune="pruned" if prune else None,
            run=RunOptions(workers=0, cache=run.parents[2] / "cache"),
        )
        return optimize(options).document

    refused = ""
    try:
        found = document()
    except GateError as error:
        refused = str(error)
        found = document(f"optimize.tolerance={ANY_FALL}")
    accuracy = found["accuracy"]["files"][EIGHT_BITS]
    (metric, *_) = accuracy["metrics"]
    return {
        "metric": metric,
        "agreement": accuracy["agreement"],
        "part": found["accuracy"]["part"],
        "megabytes": found["files"][EIGHT_BITS]["bytes"] / 1e6,
        "method": found["quantisation"]["method"],
        "refused": refused,
    }


def rows_of(subject: Subject, data: Path, folder: Path, *, quick: bool) -> list[Row]:
    """Whole and pruned, both in INT8."""
    run = trained(subject, data, folder, quick=quick)
    first, last = (1, 1) if quick else subject.epochs_again
    rounds = tuple(text.format(first=first, last=last) for text in ROUNDS)
    rows = []
    for name, prune, most in (("INT8", False, MOST_INT8), ("pruned, INT8", True, MOST_PRUNED)):
        bounds = (*rounds, f"optimize.tolerance={MOST_PRUNED}") if prune else ()
        found = fall_of(run, folder / name.replace(", ", "-"), prune=prune, assignments=bounds)
        metric = found["metric"]
        rows.append(
            Row(
                f"{subject.title}, {name}: fall of {metric['metric']}, held out",
                metric["fall"],
                "",
                most=None if quick else most,
                detail=found,
            )
        )
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hippocampus", type=Path)
    parser.add_argument("--only", choices=list(SUBJECTS), nargs="+", default=list(SUBJECTS))


def main() -> int:
    """Train and optimise each; print, keep."""
    run = begin(
        "optimised_accuracy", __doc__, ("torch", "onnxruntime", "torch-pruning"), add_options
    )
    options = run.options
    rows: list[Row] = []
    with work_folder() as work:
        for name in options.only:
            subject, folder = SUBJECTS[name], work / name
            folder.mkdir()
            if subject.write is not None:
                data = folder / "data"
                subject.write(data, subject.quick_patients if options.quick else subject.patients)
            elif options.hippocampus is not None:
                data = options.hippocampus.resolve()
            else:
                continue
            rows += rows_of(subject, data, folder, quick=options.quick)
            run.keep(rows)
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
