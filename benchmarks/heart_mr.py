"""Cardiac MR, one patient left out at a time: ``medtool train heart`` on single slices.

    python benchmarks/heart_mr.py [--data ../shared/data/heart_mr]

The Sunnybrook frames with an expert's outline of the left ventricle (Radau 2009): four patients,
so that a fold learns from two, chooses its epoch by a third, and is scored on the fourth. A
manifest joins the DICOM frames with their masks; the preset is ``small``, as it is. Beside it
stands the best threshold on brightness, chosen on the patients that are not held out.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from medtool_heart.demo import write_cohort
from results import Row, begin, work_folder

from medtool.data.dataset_record import ImageReference
from medtool.data.images import read_picture, read_picture_mask
from medtool.score.overlap import overlap

DATA = Path(__file__).parents[2] / "shared" / "data" / "heart_mr"
INDEX, MANIFEST, STRUCTURE = "index.csv", "manifest.csv", "left_ventricle"
LEAST_DICE = 0.8
THRESHOLDS = np.linspace(0.02, 0.98, 49)
PERCENTILES = (0.5, 99.5)
QUICK_PATIENTS = 3
AT_ONCE = 2
QUICK = (
    "train.epochs=1",
    "data.preparation.size_px=[64, 64]",
    "model.first_features=4",
    "metrics.bootstrap_draws=100",
)


@dataclass(frozen=True)
class Frame:
    """One image with its mask, and whose it is."""

    case: str
    patient: str
    image: Path
    mask: Path


def frames_of(manifest: Path) -> list[Frame]:
    """The rows of a manifest."""
    with manifest.open(newline="", encoding="utf-8") as stream:
        return [
            Frame(
                row["case"],
                row["patient"],
                manifest.parent / row["image"],
                manifest.parent / row["mask"],
            )
            for row in csv.DictReader(stream)
        ]


def write_manifest(data: Path, folder: Path) -> None:
    """A manifest of the frames that the data set's own index lists."""
    with (data / INDEX).open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["case", "patient", "image", "mask"])
        for row in found:
            image, mask = (data / row[name] for name in ("dicom", "mask"))
            case = f"{row['patient']}_{image.stem}"
            table.writerow([case, row["patient"], image.absolute(), mask.absolute()])


def train(folder: Path, folds: int, assignments: Sequence[str]) -> Path:
    """The run's folder, of the commands as a user types them: a fold each, on a core each."""
    words = [str(Path(sys.executable).parent / "medtool"), "train", "heart"]
    words += ["--preset", "small", "--data", MANIFEST, "--run", "out", "--folds", str(folds)]
    named = (f"data.label_ids={{ {STRUCTURE} = [1] }}", *assignments)
    words += [word for assignment in named for word in ("--set", assignment)]

    def one(fold: int) -> None:
        asked = [*words, "--fold", str(fold), "--workers", "0"]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"fold {fold} ends with {done.returncode}: {done.stderr[-1000:]}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(folds)))
    return folder / "runs" / "heart" / "out"


def dices_by_patient(run: Path) -> dict[str, list[float]]:
    """Dice of each frame, from the model that never saw its patient."""
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {}
    for row in scores["out-of-fold"]["tables"]["structures_by_case"]:
        found.setdefault(str(row["patient"]), []).append(float(row["dice"]))
    return dict(sorted(found.items()))


def threshold_dices(frames: Sequence[Frame]) -> list[float]:
    """Dice of each frame by the best threshold on the scaled brightness of the other patients."""
    table = []
    for frame in frames:
        image = read_picture(ImageReference(frame.image)).array.astype(np.float64)
        mask = read_picture_mask(ImageReference(frame.mask), image.shape, binary=True).array > 0
        low, high = np.percentile(image, PERCENTILES)
        scaled = (image - low) / (high - low)
        table.append([overlap(scaled > cut, mask).metrics()["dice"] for cut in THRESHOLDS])
    dices, patients = np.array(table), np.array([frame.patient for frame in frames])
    best = {name: dices[patients != name].mean(axis=0).argmax() for name in set(patients)}
    return [float(row[best[name]]) for row, name in zip(dices, patients, strict=True)]


def rows_of(
    dices: Mapping[str, Sequence[float]], baseline: Sequence[float], minutes: float
) -> list[Row]:
    """What was measured: over all frames, for each patient, and the threshold beside it."""
    every = [value for own in dices.values() for value in own]
    detail = {"frames": len(every), "lowest": min(every), "minutes_a_fold": minutes / len(dices)}
    rows = [
        Row("heart_mr: mean Dice of frames, each patient left out once", fmean(every), "",
            least=LEAST_DICE, detail=detail)
    ]  # fmt: skip
    rows += [
        Row(f"heart_mr: mean Dice of patient {number} ({len(own)} frames)", fmean(own), "",
            detail={"patient": name, "by_frame": list(own)})
        for number, (name, own) in enumerate(dices.items(), start=1)
    ]  # fmt: skip
    what = "heart_mr: mean Dice of the best threshold on brightness"
    return [*rows, Row(what, fmean(baseline), "")]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=DATA)


def main() -> int:
    """Measure, print, keep; a quick run takes a small synthetic cohort."""
    run = begin("heart_mr", __doc__, ("torch", "numpy"), add_options)
    quick = run.options.quick
    with work_folder() as work:
        if quick:
            write_cohort(work, 0, patients=QUICK_PATIENTS)
        else:
            write_manifest(run.options.data, work)
        frames = frames_of(work / MANIFEST)
        patients = {frame.patient for frame in frames}
        began = time.perf_counter()
        trained = train(work, len(patients), QUICK if quick else ())
        minutes = (time.perf_counter() - began) / 60
        rows = rows_of(dices_by_patient(trained), threshold_dices(frames), minutes)
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
