"""Scanning the headers of 5,000 files into series, beside a plain pydicom loop.

    python benchmarks/scan_headers.py

The loop only reads the headers, up to the pixels; ours also groups, judges and describes the
series.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cohort import write_series
from pydicom.uid import ExplicitVRLittleEndian
from results import Row, begin, best_in_turn, work_folder

LEAST_RATIO = 6.0
SERIES, SLICES_PER_SERIES, SIDE_PX = 25, 200, 64
QUICK_SERIES, QUICK_SLICES = 2, 20
ROUNDS = 5


def by_medtool(folder: Path, workers: int) -> int:
    """Number of planes in accepted series."""
    from medtool.dicom import scan

    intake = scan([folder], workers=workers)
    return sum(len(series.planes) for series in intake.series if series.verdict == "accepted")


def by_pydicom(folder: Path) -> int:
    """What most scripts do."""
    import pydicom

    headers = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))
    ]
    return len({(str(h.SeriesInstanceUID), h.ImagePositionPatient[2]) for h in headers})


def counted(reader: Callable[[Path], int], folder: Path, count: int) -> None:
    """Read once; every file must have been seen."""
    found = reader(folder)
    if found != count:
        raise SystemExit(f"{found} of {count} planes were found")


def main() -> int:
    """Measure, print, keep."""
    run = begin("scan_headers", __doc__, ("pydicom", "numpy"))
    quick = run.options.quick
    series, slices = (QUICK_SERIES, QUICK_SLICES) if quick else (SERIES, SLICES_PER_SERIES)
    with work_folder() as folder:
        for number in range(series):
            target = folder / f"{number:03d}"
            write_series(
                target, ExplicitVRLittleEndian, slices=slices, rows=SIDE_PX, columns=SIDE_PX
            )
        count = series * slices
        readers: dict[str, Callable[[Path], int]] = {
            "medtool": partial(by_medtool, workers=1),
            "medtool, 2 processes": partial(by_medtool, workers=2),
            "pydicom": by_pydicom,
        }
        best = best_in_turn(
            {name: partial(counted, reader, folder, count) for name, reader in readers.items()},
            rounds=1 if quick else ROUNDS,
        )
    detail = {"files": count, "seconds": best}
    rows = [
        Row(
            f"pydicom loop over medtool, {count} files",
            best["pydicom"] / best["medtool"],
            least=LEAST_RATIO,
            detail=detail,
        ),
        Row("the same with 2 processes", best["pydicom"] / best["medtool, 2 processes"]),
    ]
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
