"""Training ``segment`` on hippocampus for some minutes: Dice of every case, held out once.

    python benchmarks/segment_training.py [--hippocampus DIR] [--minutes 10] [--folds 5]

``--hippocampus`` is MSD's Task04 or a part of it; without it nothing can be measured (a quick run
then takes the data set of the demo). Every fold is a call of the product's own command; they are
joined afterwards. What chooses epochs and post-processing is never the fold that is scored.
bfloat16 where the processor has units for it. Takes an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import Row, begin, work_folder

LEAST_FOLDS = 0.87
FOLDS, MINUTES = 5, 10.0
QUICK_MINUTES, QUICK_CASES = 0.05, 10
# What makes a run small where it only has to run.
QUICK_WORDS = ("--preset", "demo", "--set", "train.examples_per_case=1")


def best_precision() -> str:
    """The arithmetic that ``medtool doctor`` lists as this processor's own."""
    import torch

    from medtool.nets.device import computes_slowly

    return "32" if computes_slowly(torch.bfloat16, torch.device("cpu")) else "bf16"


def train(data: Path, folder: Path, run: str, words: Sequence[str]) -> dict[str, Any]:
    """One command; gives what it prints as JSON, and its seconds."""
    medtool = Path(sys.executable).parent / "medtool"
    command = [str(medtool), "train", "segment", "--data", str(data)]
    command += ["--run", run, "--precision", best_precision(), "--workers", "1", "--json", *words]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"medtool train ended with {done.returncode}: {done.stderr[-2000:]}")
    return {**json.loads(done.stdout), "seconds": time.perf_counter() - began}


def generated(folder: Path) -> Path:
    """The data set of ``medtool demo segment``, a few cases of it."""
    from medtool_segment.demo import write_dataset

    write_dataset(folder, 0, QUICK_CASES)
    return folder


def of_folds(data: Path, folder: Path, folds: int, minutes: float, more: Sequence[str]) -> Row:
    """Every case once, answered by the model of the fold that left it out."""
    seconds = []
    for fold in range(folds):
        words = ["--folds", str(folds), "--fold", str(fold), "--minutes", str(minutes), *more]
        seconds.append(train(data, folder, "folds", words)["seconds"])
    text = (folder / "runs" / "segment" / "folds" / "scores.json").read_text(encoding="utf-8")
    dice = json.loads(text)["out-of-fold"]["metrics"]["dice"]
    return Row(
        f"{folds} folds of {minutes:g} minutes each: mean Dice of both labels, out of fold",
        dice["value"],
        "",
        least=LEAST_FOLDS,
        detail={"interval": [dice["low"], dice["high"]], "cases": dice["n"], "seconds": seconds},
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hippocampus", type=Path)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--folds", type=int, default=FOLDS)


def data_of(options: argparse.Namespace, folder: Path) -> Path:
    """The data set that was named, or for a quick run one that is made up."""
    if options.hippocampus is None and not options.quick:
        raise SystemExit("Without --hippocampus there is nothing to train on.")
    return Path(options.hippocampus or generated(folder / "data")).resolve()


def main() -> int:
    """Train every fold; print, keep."""
    run = begin("segment_training", __doc__, ("torch", "numpy"), add_options)
    options = run.options
    if options.quick:
        options.minutes, options.folds = QUICK_MINUTES, 2
    with work_folder() as folder:
        data = data_of(options, folder)
        more = QUICK_WORDS if options.quick else ()
        return run.finish([of_folds(data, folder, options.folds, options.minutes, more)])


if __name__ == "__main__":
    sys.exit(main())
