"""A whole-body PET/CT from its DICOM folder to SUV and HU on the network's grid.

    python benchmarks/whole_body_pet.py [--rounds 5]

A CT of 512 x 512 and a PET of 200 x 200 pixels, 300 slices each. Ours is measured from the folder:
headers, which PET belongs to which CT, SUV, geometry, and both brought to slices of 256 x 256.
Beside it stands what scripts do: a pydicom loop for each series, told which files they are, the
formula for SUV, and SimpleITK's resampling to the same grid. In every round the SUV must agree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from cohort import FIELD_MM, STEP_MM, SYNTAXES, write_series
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import PositronEmissionTomographyImageStorage
from results import Row, begin, work_folder

SLICES, QUICK_SLICES = 300, 4
CT_SIDE_PX, PET_SIDE_PX, QUICK_SIDE_PX = 512, 200, 32
PREPARED_PX, QUICK_PREPARED_PX = 256, 32
WEIGHT_KG, DOSE_BQ, HALF_LIFE_S, WAITED_S = 70.0, 370e6, 6586.2, 3600.0
# Stored values are kept in sixteen bits; slopes differ from slice to slice, as GE's do.
SLOPES = (4.0, 5.0, 6.5)
TOLERANCE_SUV = 1e-3


def write_study(folder: Path, slices: int, ct_px: int, pet_px: int) -> None:
    """A CT, and a PET of the same field of view; both of one examination."""
    syntax = SYNTAXES["uncompressed"]
    (ct, *_) = write_series(folder / "ct", syntax, slices=slices, rows=ct_px, columns=ct_px)
    study = pydicom.dcmread(ct, stop_before_pixels=True)
    for k, path in enumerate(
        write_series(folder / "pet", syntax, slices=slices, rows=pet_px, columns=pet_px)
    ):
        _into_pet(path, study, SLOPES[k % len(SLOPES)])


def _into_pet(path: Path, study: Dataset, slope: float) -> None:
    data = pydicom.dcmread(path)
    data.SOPClassUID = PositronEmissionTomographyImageStorage
    data.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    data.StudyInstanceUID, data.FrameOfReferenceUID = study.StudyInstanceUID, study.StudyInstanceUID
    data.Modality, data.Units, data.SeriesDescription = "PT", "BQML", "WB AC"
    data.SeriesType, data.DecayCorrection = ["STATIC", "IMAGE"], "START"
    data.CorrectedImage = ["NORM", "ATTN", "DECY"]
    data.SeriesDate = data.AcquisitionDate = "20200102"
    data.SeriesTime = data.AcquisitionTime = "100000"
    data.FrameReferenceTime, data.ActualFrameDuration = "59936.86", "120000"
    data.PatientWeight = f"{WEIGHT_KG:g}"
    data.RescaleSlope, data.RescaleIntercept = f"{slope:g}", "0"
    drug = Dataset()
    drug.RadiopharmaceuticalStartDateTime = "20200102090000"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = f"{DOSE_BQ:g}", f"{HALF_LIFE_S:g}"
    data.RadiopharmaceuticalInformationSequence = DicomSequence([drug])
    del data.KVP, data.ConvolutionKernel, data.RescaleType
    data.save_as(path, enforce_file_format=True)


def by_medtool(folder: Path, side_px: int) -> dict[str, Any]:
    """The public way: a folder to the case that a network sees."""
    from medtool.config import resolve
    from medtool.core.records import Source
    from medtool.core.registry import load_task

    task_type = load_task("petct")
    sizes = [f"data.preparation.size_px=[{side_px}, {side_px}]"]
    task = task_type(resolve(task_type, "default", assignments=sizes).settings)
    (case,) = task.find(Source((folder,))).cases
    prepared = task.prepare(case)
    return {"suv": prepared.arrays["suv"], "image": prepared.arrays["image"]}


def by_scripts(folder: Path, side_px: int) -> dict[str, Any]:
    """Two loops, a formula and a resampling filter, for files that are known to fit."""
    import SimpleITK as sitk

    dose_bq = DOSE_BQ * 2.0 ** (-WAITED_S / HALF_LIFE_S)
    suv, pet = _loop(folder / "pet", 1000.0 * WEIGHT_KG / dose_bq)
    _, ct = _loop(folder / "ct", 1.0)
    spacing = [FIELD_MM / side_px, FIELD_MM / side_px, STEP_MM]
    origin = [-FIELD_MM / 2 + step / 2 for step in spacing[:2]]
    origin = [value - pet.GetSpacing()[0] / 2 for value in origin] + [0.0]
    size = [side_px, side_px, pet.GetSize()[2]]
    image = np.empty((2, *size[::-1]), np.float16)
    for channel, (one, outside) in enumerate(((pet, 0.0), (ct, -1024.0))):
        moved = sitk.Resample(
            one, size, sitk.Transform(), sitk.sitkLinear, origin, spacing,
            one.GetDirection(), outside,
        )  # fmt: skip
        image[channel] = sitk.GetArrayViewFromImage(moved)
    return {"suv": suv, "image": image}


def _loop(folder: Path, factor: float) -> tuple[NDArray[np.float32], Any]:
    import SimpleITK as sitk

    planes = []
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        scaled = data.pixel_array.astype(np.float32) * np.float32(data.RescaleSlope)
        planes.append((scaled + np.float32(data.RescaleIntercept)) * np.float32(factor))
    values = np.stack(planes)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([FIELD_MM / values.shape[2], FIELD_MM / values.shape[1], STEP_MM])
    image.SetOrigin([-125.0, -125.0, 0.0])
    return values, image


WAYS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "medtool": by_medtool,
    "scripts": by_scripts,
}


def timed(folder: Path, side_px: int, rounds: int) -> dict[str, float]:
    """Least seconds of each way; they take turns, after a round that warms the disk's cache."""
    seconds: dict[str, float] = {}
    for turn in range(rounds + 1):
        found = {}
        for name, way in WAYS.items():
            began = time.perf_counter()
            found[name] = way(folder, side_px)["suv"]
            taken = time.perf_counter() - began
            if turn:
                seconds[name] = min(taken, seconds.get(name, taken))
        apart = float(np.abs(found["medtool"] - found["scripts"]).max())
        if not apart <= TOLERANCE_SUV:
            raise SystemExit(f"the SUV of both ways are {apart:.3g} apart")
    return seconds


def peak_mb(name: str, folder: Path, side_px: int) -> float:
    """Memory of a fresh process at its height, all that it imports included."""
    words = [sys.executable, __file__, "--peak", name, str(folder), str(side_px)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure_peak(name: str, folder: Path, side_px: int) -> float:
    """Of this process, in MB."""
    WAYS[name](folder, side_px)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)


def main() -> int:
    """Write the study, read it both ways, print, keep."""
    packages = ("medtool", "pydicom", "SimpleITK", "numpy")
    run = begin("whole_body_pet", __doc__, packages, add_options)
    options = run.options
    if options.peak:
        name, folder, side = options.peak
        print(json.dumps(measure_peak(name, Path(folder), int(side))))
        return 0
    quick = options.quick
    side = QUICK_PREPARED_PX if quick else PREPARED_PX
    with work_folder() as work:
        sides = (QUICK_SIDE_PX, QUICK_SIDE_PX) if quick else (CT_SIDE_PX, PET_SIDE_PX)
        write_study(work / "study", QUICK_SLICES if quick else SLICES, *sides)
        seconds = timed(work / "study", side, 1 if quick else options.rounds)
        peaks = {name: peak_mb(name, work / "study", side) for name in WAYS}
    rows = [
        Row(
            "from the folder to the network's grid: scripts over medtool",
            seconds["scripts"] / seconds["medtool"],
            detail={"seconds": seconds},
        ),
        Row(
            "peak memory of the process over that of the scripts",
            peaks["medtool"] / peaks["scripts"],
            detail={"mb": peaks},
        ),
        Row("seconds of medtool", seconds["medtool"], "s"),
        Row("peak memory of medtool", peaks["medtool"], "MB"),
    ]
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
