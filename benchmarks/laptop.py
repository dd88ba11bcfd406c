"""The preset ``laptop``: hours for 400 studies on this machine, from 40 that are really trained on.

    python benchmarks/laptop.py [--studies 40] [--slices 40]

The whole command ``medtool train brainmet --preset laptop`` runs: estimating, preparing, features,
all epochs, scoring, report. What grows with the studies is all counted, and what does not (imports,
intervals, figures) is counted ten times, so that 400 studies take less. The backbone has random
weights, from a file as fetched weights would be: time does not depend on their values.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from cohort import SYNTAXES, write_series
from results import Row, begin, work_folder
from safetensors.torch import save_file

from medtool.nets.timm_models import timm

TASK, PRESET = "brainmet", "laptop"
FULL_STUDIES = 400
MOST_HOURS = 12.0
QUICK = ("train.epochs=1", "data.preparation.size_px=48", "train.feature_copies=1")


def write_cohort(folder: Path, count: int, slices: int, side_px: int) -> None:
    """``CTs/<patient>`` and labels1.csv; the images say nothing of the labels."""
    with (folder / "labels1.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "label"])
        for number in range(count):
            patient = f"P{number:04d}"
            writer.writerow([patient, number % 2])
            write_series(
                folder / "CTs" / patient,
                SYNTAXES["uncompressed"],
                slices=slices,
                rows=side_px,
                columns=side_px,
                patient=patient,
                seed=number,
            )


def write_weights(path: Path) -> None:
    """A file with random weights of the backbone, in the layout of those the preset names."""
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), path)


def main() -> int:
    """Measure, print, keep."""
    run = begin("laptop", __doc__, ("torch", "timm", "numpy"), add_options)
    options, quick = run.options, run.options.quick
    count, slices, side_px = (12, 10, 96) if quick else (options.studies, options.slices, 512)
    words = [item for pair in QUICK for item in ("--set", pair)] if quick else []
    if quick:
        words += ["--workers", "0"]
    with work_folder() as folder:
        write_cohort(folder, count, slices, side_px)
        write_weights(folder / "weights.safetensors")
        medtool = Path(sys.executable).parent / "medtool"
        command = [medtool, "train", TASK, "--preset", PRESET, "--run", "laptop", *words]
        command += ["--set", f"model.weights.path={folder / 'weights.safetensors'}"]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        taken_s = time.perf_counter() - began
        if done.returncode != 0:
            raise SystemExit(f"train ends with {done.returncode}: {done.stderr[-800:]}")
        record = json.loads(
            (folder / "runs" / TASK / "laptop" / "run.json").read_text(encoding="utf-8")
        )
    hours = taken_s / 3600 * FULL_STUDIES / count
    estimated_s = record["estimate"]["preparing_s"] + record["estimate"]["training_s"]
    rows = [
        Row(
            f"hours for {FULL_STUDIES} studies of {slices} slices, from {count}",
            hours,
            "h",
            most=MOST_HOURS,
            detail={"seconds": taken_s, "studies": count, "by_step": record["seconds"]},
        ),
        Row("the estimate that train printed, over the time it took", estimated_s / taken_s),
    ]
    return run.finish(rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--slices", type=int, default=40)


if __name__ == "__main__":
    sys.exit(main())
