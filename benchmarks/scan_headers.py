"""Scanning the headers of 5,000 files into series, beside a plain pydicom loop.

    python benchmarks/scan_headers.py [--files 5000] [--rounds 3]

The loop only reads the headers, up to the pixels; ours also groups, judges and describes the
series. Writes benchmarks/results/scan_headers.json and ends with 1 when the ratio is missed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cohort import write_series
from pydicom.uid import ExplicitVRLittleEndian
from results import write_results

LEAST_RATIO = 6.0
SLICES_PER_SERIES = 200


def by_medtool(folder: Path) -> int:
    """Number of planes in accepted series."""
    from medtool.dicom import scan

    intake = scan([folder])
    return sum(len(series.planes) for series in intake.series if series.verdict == "accepted")


def by_medtool_two(folder: Path) -> int:
    """The same with two processes."""
    from medtool.dicom import scan

    return sum(len(series.planes) for series in scan([folder], workers=2).series)


def by_pydicom(folder: Path) -> int:
    """What most scripts do."""
    import pydicom

    headers = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))
    ]
    return len({(str(h.SeriesInstanceUID), h.ImagePositionPatient[2]) for h in headers})


SCANS: dict[str, Callable[[Path], int]] = {
    "medtool": by_medtool,
    "medtool, 2 processes": by_medtool_two,
    "pydicom": by_pydicom,
}


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="medtool-bench-"))
    seconds: dict[str, float] = {}
    try:
        for number in range(arguments.files // SLICES_PER_SERIES):
            write_series(
                work / f"{number:03d}",
                ExplicitVRLittleEndian,
                slices=SLICES_PER_SERIES,
                rows=64,
                columns=64,
            )
        count = arguments.files // SLICES_PER_SERIES * SLICES_PER_SERIES
        for turn in range(arguments.rounds + 1):
            for name, reader in SCANS.items():
                began = time.perf_counter()
                found = reader(work)
                taken = time.perf_counter() - began
                if found != count:
                    raise SystemExit(f"{name} found {found} of {count} planes")
                if turn:
                    seconds[name] = min(taken, seconds.get(name, taken))
    finally:
        shutil.rmtree(work)
    ratio = seconds["pydicom"] / seconds["medtool"]
    kept = ratio >= LEAST_RATIO
    row = {
        "files": count,
        "seconds": seconds,
        "ratio": ratio,
        "least_ratio": LEAST_RATIO,
        "kept": kept,
    }
    print("| files | medtool, s | 2 processes, s | pydicom, s | ratio | at least | kept |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {count} | {seconds['medtool']:.2f} | {seconds['medtool, 2 processes']:.2f} "
        f"| {seconds['pydicom']:.2f} | {ratio:.1f} | {LEAST_RATIO:g} "
        f"| {'yes' if kept else '**no**'} |"
    )
    command = f"python benchmarks/scan_headers.py --files {count} --rounds {arguments.rounds}"
    write_results("scan_headers", command, [row], ("pydicom", "numpy"))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
