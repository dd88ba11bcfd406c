"""Reading 400 slices of 512 x 512 into HU, beside a plain pydicom loop and SimpleITK's reader.

    python benchmarks/read_series.py [--plugins DIR] [--seconds 45] [--only SYNTAX]

DIR is a folder with pydicom's decoder plugins (benchmarks/requirements-dicom.txt; benchmarks/
.venv-dicom is taken when it is there); without it pydicom cannot read some syntaxes, which is then
told. Ours is measured from the folder to HU: headers, geometry and pixels. In every round all
pixels must be the same bits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from results import Row, begin, work_folder

# Least ratios over (pydicom loop, SimpleITK).
TARGETS = {
    "uncompressed": (4.0, 7.0),
    "RLE": (1.4, 15.0),
    "JPEG-LS": (2.5, 2.5),
    "JPEG 2000": (1.5, 1.4),
    "JPEG lossless": (4.0, 4.0),
    "HTJ2K": (5.0, 5.0),
}
MOST_MEMORY = 1.3
SLICES, QUICK_SLICES = 400, 4
SIDE_PX, QUICK_SIDE_PX = 512, 64
LEAST_ROUNDS = 4
PLUGINS = Path(__file__).parent / ".venv-dicom"

Reader = Callable[[Path], NDArray[np.float32]]


def by_medtool(folder: Path) -> NDArray[np.float32]:
    """The public way: headers to a series, series to HU."""
    from medtool.dicom import read_array, scan

    (series,) = scan([folder]).series
    return read_array(series)[0]


def by_pydicom(folder: Path) -> NDArray[np.float32]:
    """What most scripts do; the file names happen to be in order here."""
    import pydicom

    planes = []
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        hu = data.pixel_array.astype(np.float32) * np.float32(data.RescaleSlope)
        planes.append(hu + np.float32(data.RescaleIntercept))
    return np.stack(planes)


def by_simpleitk(folder: Path) -> NDArray[np.float32]:
    """The series reader, told the files by GDCM."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return SimpleITK.GetArrayFromImage(reader.Execute())


READERS: dict[str, Reader] = {
    "medtool": by_medtool,
    "pydicom": by_pydicom,
    "SimpleITK": by_simpleitk,
}


def timed(folder: Path, least_s: float, rounds: int) -> tuple[dict[str, float], dict[str, str]]:
    """Least seconds of each reader, and why one could not read.

    They take turns for at least ``least_s`` seconds and some rounds, so that whatever else the
    machine does meets all of them. The round before warms the disk's cache. In every round all
    pixels must be the same bits.
    """
    seconds: dict[str, float] = {}
    why: dict[str, str] = {}
    reference = by_medtool(folder)
    turn, until = 0, time.perf_counter() + least_s
    while turn <= rounds or time.perf_counter() < until:
        for name, reader in READERS.items():
            if name in why:
                continue
            began = time.perf_counter()
            try:
                values = reader(folder)
            # Whatever a peer lacks, the others are still measured.
            except Exception as error:  # noqa: BLE001
                why[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            taken = time.perf_counter() - began
            if not np.array_equal(values, reference):
                raise SystemExit(f"{name} gives other pixels in {folder.name}")
            if turn:
                seconds[name] = min(taken, seconds.get(name, taken))
        turn += 1
    return seconds, why


def peak_over_volume(name: str, folder: Path, plugins: Path) -> float | None:
    """Peak memory of one reading in a fresh process, over the float32 volume."""
    command = [sys.executable, __file__, "--plugins", str(plugins), "--peak", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout)) if done.returncode == 0 else None


def measure_peak(name: str, folder: Path) -> float:
    """In this process: resident memory that reading adds at its height, over the volume."""
    # Imports and their caches are not reading.
    small = folder.parent / f"{folder.name}-small"
    READERS[name](small)
    before = _status_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew.
    volume = READERS[name](folder)
    return (_status_kb("VmHWM") - before) * 1024 / volume.nbytes


def _status_kb(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {key}")


def rows_of(kind: str, folder: Path, options: argparse.Namespace, notes: list[str]) -> list[Row]:
    """One syntax, measured and judged; what a peer cannot read goes to ``notes``."""
    quick = options.quick
    seconds, why = timed(folder, 0.0 if quick else options.seconds, 1 if quick else LEAST_ROUNDS)
    notes += [f"{kind}: {name} cannot read it ({text})." for name, text in why.items()]
    rows = [
        Row(
            f"{kind}: {name} over medtool",
            seconds[name] / seconds["medtool"],
            least=least,
            detail={"seconds": seconds},
        )
        for name, least in zip(("pydicom", "SimpleITK"), TARGETS[kind], strict=True)
        if name in seconds
    ]
    peaks = {name: peak_over_volume(name, folder, options.plugins) for name in seconds}
    if peaks["medtool"] is not None:
        detail = {"peers": {name: peak for name, peak in peaks.items() if name != "medtool"}}
        # A volume of a few slices is smaller than what any reading needs beside it.
        most = None if quick else MOST_MEMORY
        what = f"{kind}: peak memory over the float32 volume"
        rows.append(Row(what, peaks["medtool"], most=most, detail=detail))
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=45.0, help="for each syntax, at least")
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--plugins", type=Path, default=PLUGINS)
    parser.add_argument("--peak", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)


def main() -> int:
    """Measure every syntax, print, keep."""
    packages = ("pydicom", "imagecodecs", "SimpleITK", "numpy")
    run = begin("read_series", __doc__, packages, add_options)
    options = run.options
    # Before pydicom is imported: it looks for its plugins then.
    sys.path.insert(0, str(options.plugins))
    from cohort import SYNTAXES, write_series

    warnings.simplefilter("ignore")
    if options.peak:
        print(json.dumps(measure_peak(options.peak[0], Path(options.peak[1]))))
        return 0
    slices, side = (QUICK_SLICES, QUICK_SIDE_PX) if options.quick else (SLICES, SIDE_PX)
    rows: list[Row] = []
    notes: list[str] = []
    with work_folder() as work:
        for kind, syntax in SYNTAXES.items():
            if options.only not in (None, kind):
                continue
            folder = work / kind.replace(" ", "-")
            write_series(folder, syntax, slices=slices, rows=side, columns=side)
            small = folder.parent / f"{folder.name}-small"
            write_series(small, syntax, slices=4, rows=side, columns=side)
            rows += rows_of(kind, folder, options, notes)
            shutil.rmtree(folder)
    return run.finish(rows, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
