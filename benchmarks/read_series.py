"""Reading 400 slices of 512 x 512 into HU, beside a plain pydicom loop and SimpleITK's reader.

    [PYTHONPATH=DIR] python benchmarks/read_series.py [--slices 400] [--seconds 30]

DIR is a folder with pydicom's decoder plugins (benchmarks/requirements-dicom.txt); without it
pydicom cannot read some syntaxes, which is then shown. Ours is measured from the folder
to HU: headers, geometry and pixels. Writes benchmarks/results/read_series.json and ends with 1
when a ratio is missed, pixels differ, or memory is over 1.3 times the volume.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cohort import SYNTAXES, write_series
from numpy.typing import NDArray
from results import write_results

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
LEAST_ROUNDS = 3

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


def timed(folder: Path, least_s: float) -> tuple[dict[str, float], dict[str, str]]:
    """Least seconds of each reader, and why one could not read.

    They take turns for at least ``least_s`` seconds and three rounds, so that whatever else the
    machine does meets all of them. The round before warms the disk's cache. In every round all
    pixels must be the same bits.
    """
    seconds: dict[str, float] = {}
    why: dict[str, str] = {}
    reference = by_medtool(folder)
    turn, until = 0, time.perf_counter() + least_s
    while turn <= LEAST_ROUNDS or time.perf_counter() < until:
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


def peak_over_volume(name: str, folder: Path) -> float | None:
    """Peak memory of one reading in a fresh process, over the float32 volume."""
    command = [sys.executable, __file__, "--peak", name, str(folder)]
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


def row_of(kind: str, folder: Path, least_s: float) -> dict[str, Any]:
    """One syntax, measured and judged."""
    seconds, why = timed(folder, least_s)
    ours = seconds["medtool"]
    ratios = {name: seconds[name] / ours for name in ("pydicom", "SimpleITK") if name in seconds}
    peaks = {name: peak_over_volume(name, folder) for name in READERS if name not in why}
    least = dict(zip(("pydicom", "SimpleITK"), TARGETS[kind], strict=True))
    peak = peaks["medtool"]
    kept = all(ratios[name] >= least[name] for name in ratios)
    return {
        "syntax": kind,
        "seconds": seconds,
        "ratios": ratios,
        "least_ratios": least,
        "peak_over_volume": peaks,
        "most_peak": MOST_MEMORY,
        "could_not_read": why,
        "bit_equal": True,
        "kept": kept and peak is not None and peak <= MOST_MEMORY,
    }


def as_line(row: Mapping[str, Any]) -> str:
    """One row of a Markdown table."""
    cells = [f"{row['seconds']['medtool']:.3f}"]
    for name in ("pydicom", "SimpleITK"):
        ratio = row["ratios"].get(name)
        shown = f"{ratio:.1f}" if ratio is not None else "cannot"
        cells.append(f"{shown} (at least {row['least_ratios'][name]:g})")
    for name in READERS:
        peak = row["peak_over_volume"].get(name)
        cells.append(f"{peak:.2f}" if peak is not None else "-")
    kept = "yes" if row["kept"] else "**no**"
    return f"| {row['syntax']} | {' | '.join(cells)} | {kept} |"


def main() -> int:
    """Measure every syntax, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", choices=list(SYNTAXES))
    parser.add_argument("--peak", nargs=2, metavar=("READER", "FOLDER"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.peak:
        print(json.dumps(measure_peak(arguments.peak[0], Path(arguments.peak[1]))))
        return 0
    print("| syntax | s | over pydicom | over SimpleITK | peak | pydicom | SimpleITK | kept |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    work = Path(tempfile.mkdtemp(prefix="medtool-bench-"))
    try:
        for kind, syntax in SYNTAXES.items():
            if arguments.only not in (None, kind):
                continue
            folder = work / kind.replace(" ", "-")
            write_series(folder, syntax, slices=arguments.slices)
            write_series(folder.parent / f"{folder.name}-small", syntax, slices=4)
            rows.append(row_of(kind, folder, arguments.seconds))
            print(as_line(rows[-1]), flush=True)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(work)
    command = (
        f"PYTHONPATH=DIR python benchmarks/read_series.py --slices {arguments.slices} "
        f"--seconds {arguments.seconds:g}"
    )
    if arguments.only is None:
        packages = ("pydicom", "imagecodecs", "SimpleITK", "numpy")
        write_results("read_series", command, rows, packages)
    return 0 if all(row["kept"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
