"""What INT8 and fewer channels cost in accuracy: networks that have learned, judged held out.

    python benchmarks/optimised_accuracy.py [--hippocampus DIR] [--only TASK ...] [--work DIR]

- ``heart``: the whole U-Net of the default preset (31 million parameters, 256 x 256) on generated
  pictures;
- ``brainmet``: a ResNet-50 on generated head CT;
- ``segment``: the planned 3D network on real patients, MSD's Task04 or a part of it
  (``--hippocampus``; left out without it).

Each is trained for a short time, then ``optimize`` makes it INT8, and with 35 % of the channels
taken out in two rounds. What falls is the task's own metric on patients that neither training nor
any choice has seen; allowed are 0.005 for INT8 and 0.02 with pruning. Where ``optimize`` refuses a
model, it is made once more with no bound, to say by how much it fell. Each engine that is here
answers by itself; LiteRT is among them where benchmarks/.venv-litert has its converter
(benchmarks/requirements-litert.txt), for networks that see one image at a time.

Takes two hours on two cores. With ``--work`` what was trained stays in DIR, and the next time it is
taken from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import Row, begin, work_folder
from segment_training import best_precision

from medtool.config.optimize_section import Format
from medtool.core.errors import GateError
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

MOST_INT8, MOST_PRUNED = 0.005, 0.02
ANY_FALL = 0.99
# Files in eight bits, by what runs them.
EIGHT_BITS = {
    "model.int8.onnx": "ONNX Runtime",
    "model.int8.xml": "OpenVINO",
    "model.int8.tflite": "LiteRT",
}
LITERT = Path(__file__).parent / ".venv-litert" / "bin" / "python"
# How long files take is measured elsewhere.
UNTIMED = ("optimize.measure_runs=0",)
ROUNDS = (
    "optimize.prune.steps=2",
    "optimize.prune.epochs={first}",
    "optimize.prune.last_epochs={last}",
)
RUN_NAME = "a"
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
    formats: tuple[Format, ...] = ("int8", "openvino")


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
    formats=("int8", "openvino", "litert"),
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
    """The run of a network that has learned, now or earlier."""
    earlier = folder / "runs" / subject.task / RUN_NAME
    if (earlier / "scores.json").is_file():
        return earlier
    precision = (f"train.precision={best_precision()}",)
    minutes = MINUTES if subject.write is None else None
    result = train(
        TrainOptions(
            task=subject.task,
            preset=subject.preset,
            data=data,
            assignments=(*precision, *subject.settings, *(subject.quick_settings if quick else ())),
            folder=folder,
            run=RunOptions(
                run=RUN_NAME, seed=0, workers=1, cache=folder / "cache", minutes=minutes
            ),
        )
    )
    return result.run


def falls_of(
    subject: Subject, run: Path, output: Path, *, prune: bool, assignments: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By engine how the metric of its file in INT8 fell, and how alike its answers are."""
    formats = [one for one in subject.formats if one != "litert" or LITERT.exists()]

    def document(*more: str) -> Mapping[str, Any]:
        options = OptimizeOptions(
            run,
            output,
            force=True,
            formats=formats,
            assignments=(*UNTIMED, *assignments, *more),
            prune="pruned" if prune else None,
            litert_python=LITERT if "litert" in formats else None,
            run=RunOptions(workers=0, cache=run.parents[2] / "cache"),
        )
        return optimize(options).document

    refused = ""
    try:
        found = document()
    except GateError as error:
        refused = str(error)
        found = document(f"optimize.tolerance={ANY_FALL}")
    files = found["accuracy"]["files"]
    return {
        EIGHT_BITS[name]: {
            "metric": accuracy["metrics"][0],
            "agreement": accuracy["agreement"],
            "part": found["accuracy"]["part"],
            "megabytes": found["files"][name]["bytes"] / 1e6,
            "method": found["quantisation"]["method"],
            "layers_in_float": len(found["quantisation"]["layers_in_float"]),
            "refused": refused,
        }
        for name, accuracy in files.items()
        if name in EIGHT_BITS
    }


def rows_of(subject: Subject, data: Path, folder: Path, *, quick: bool) -> list[Row]:
    """Whole and pruned, both in INT8, by every engine."""
    run = trained(subject, data, folder, quick=quick)
    first, last = (1, 1) if quick else subject.epochs_again
    rounds = tuple(text.format(first=first, last=last) for text in ROUNDS)
    rows = []
    for name, prune, most in (("INT8", False, MOST_INT8), ("pruned, INT8", True, MOST_PRUNED)):
        bounds = (*rounds, f"optimize.tolerance={MOST_PRUNED}") if prune else ()
        output = folder / name.replace(", ", "-")
        every = falls_of(subject, run, output, prune=prune, assignments=bounds)
        for engine, found in every.items():
            metric = found["metric"]
            rows.append(
                Row(
                    f"{subject.title}, {name} by {engine}: fall of {metric['metric']}, held out",
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
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for what is trained")


def main() -> int:
    """Train and optimise each; print, keep."""
    run = begin(
        "optimised_accuracy",
        __doc__,
        ("torch", "onnxruntime", "openvino", "torch-pruning"),
        add_options,
    )
    options = run.options
    rows: list[Row] = []
    with nullcontext(options.work) if options.work else work_folder() as work:
        for name in options.only:
            subject, folder = SUBJECTS[name], work.resolve() / name
            folder.mkdir(parents=True, exist_ok=True)
            if subject.write is not None:
                data = folder / "data"
                if not data.exists():
                    subject.write(
                        data, subject.quick_patients if options.quick else subject.patients
                    )
            elif options.hippocampus is not None:
                data = options.hippocampus.resolve()
            else:
                continue
            rows += rows_of(subject, data, folder, quick=options.quick)
            run.keep(rows)
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
