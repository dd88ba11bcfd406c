"""Peak memory of deciding the mask of a large volume, window by window and slab by slab.

    python benchmarks/mask_memory.py [--quick]

A volume of 512 x 512 x 600 voxels, prepared at two thirds of its size along each axis, is answered
by a tiny network with three classes, brought back to its size and decided. Measured in a process of
its own, with everything that it loads. Then the whole command ``medtool infer``, from the file of
such a volume to the file of its mask: all of its processes together, what they share counted once.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from nnunet_inference import Measured, ours, write_model
from results import Row, begin, work_folder

MOST_GB = 4.0
SIZE, QUICK_SIZE = (600, 512, 512), (60, 128, 128)
CLASSES = 3
WINDOW_VOX = (64, 128, 128)

MEASURED = """
import json, resource, sys, time
import numpy as np
import torch
from medtool.predict.decide import LabelRule, Placement, decide
from medtool.predict.sliding_window import Windows, sliding_window

size = tuple(json.loads(sys.argv[1]))
classes = int(sys.argv[2])
prepared = tuple(n * 2 // 3 for n in size)
torch.manual_seed(0)
network = torch.nn.Conv3d(1, classes, 1)
volume = np.random.default_rng(0).standard_normal((1, *prepared), dtype=np.float32)
crop = tuple(slice(0, n) for n in size)
placement = Placement(size, (0, 1, 2), crop, prepared[0])
started = time.perf_counter()
slabs = sliding_window(network, volume, Windows(tuple(json.loads(sys.argv[3]))))
mask = decide(slabs, placement, LabelRule(tuple(range(classes)))).mask
seconds = time.perf_counter() - started
assert mask.shape == size and mask.max() == classes - 1
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({"peak_gb": peak / 1e9, "seconds": seconds}))
"""


def whole_command(size: tuple[int, int, int]) -> Measured:
    """``medtool infer`` of a volume of this size (z, y, x), by a U-Net of two levels."""
    from medtool.core.geometry import Grid
    from medtool.data.nifti_writer import write_nifti

    z, y, x = (np.arange(length, dtype=np.int16) for length in size)
    values = (3 * z[:, None, None] + 5 * y[:, None] + 7 * x) % 400 - 100
    with work_folder() as folder:
        grid = Grid(size[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        write_nifti(folder / "in" / "case_0000.nii.gz", values, grid)
        checkpoint = write_model(folder, quick=True, patch_vox=WINDOW_VOX)
        return ours(checkpoint, folder / "in", folder / "out", "--step", "1")


def main() -> int:
    run = begin("mask_memory", __doc__, ("torch", "numpy"))
    size = QUICK_SIZE if run.options.quick else SIZE
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps(size), str(CLASSES), json.dumps(WINDOW_VOX)],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    z, y, x = size
    row = Row(
        f"deciding {x} x {y} x {z} voxels with {CLASSES} classes, peak memory",
        told["peak_gb"],
        "GB",
        most=MOST_GB,
        detail={"seconds": round(told["seconds"], 1)},
    )
    found = whole_command(size)
    command = Row(
        f"medtool infer, {x} x {y} x {z} voxels with {CLASSES} classes: peak memory",
        found.peak_mb / 1000,
        "GB",
        most=MOST_GB,
        detail={"seconds": round(found.seconds, 1)},
    )
    return run.finish([row, command])


if __name__ == "__main__":
    raise SystemExit(main())
