"""Reading needs hardly more memory than the volume itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_builder as build
import numpy as np
import pytest

# What docs and benchmarks promise for series that need no resampling.
MOST_OVER_VOLUME = 1.3

MEASURE = """
import sys
from pathlib import Path
import medtool.dicom as dicom

def kilobytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))

read = getattr(dicom, sys.argv[1])
(small,), (series,) = (dicom.scan([Path(folder)]).series for folder in sys.argv[2:])
read(small, threads=2)
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
volume = read(series, threads=2)
print((kilobytes("VmHWM") - before) * 1024 / (len(series.planes) * 512 * 512 * 4))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("how", ["read_array", "read"])
def test_peak_memory_is_that_of_the_volume(tmp_path: Path, fresh_python: Any, how: str) -> None:
    plane = np.tile(np.array([0, 1064], dtype=np.int16), (512, 256))
    for name, slices in (("small", 4), ("large", 64)):
        build.build_series(tmp_path / name, np.broadcast_to(plane, (slices, 512, 512)))
    outcome = fresh_python("-c", MEASURE, how, tmp_path / "small", tmp_path / "large")
    assert outcome.status == 0, outcome.err
    assert 0.9 < float(outcome.out) < MOST_OVER_VOLUME
