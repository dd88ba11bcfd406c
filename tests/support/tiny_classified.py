"""A tiny data set of masks and classes: an organ with a lesion that is as bright as its class says.

Volumes are so small that a run of two epochs, with its answers and scores, takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from two_levels import TWO_LEVELS

from medtool.core.geometry import Grid
from medtool.core.randomness import generator
from medtool.data.nifti_writer import write_nifti

SIZE_VOX = (12, 20, 20)
SPACING_MM = (2.0, 1.5, 1.5)
CLASSES = {"cystic": 20.0, "solid": 180.0}
# A preset of this network and training, as assignments.
SMALL = (
    "model.budget=cpu",
    *TWO_LEVELS,
    "model.patch_size_vox=[8, 16, 16]",
    "train.epochs=2",
    "train.batch_cases=2",
    "train.examples_per_case=1",
    "train.learning_rate=0.01",
    "metrics.bootstrap_draws=100",
    "infer.step=1.0",
)


def class_of(number: int) -> str:
    """Classes take turns."""
    return list(CLASSES)[number % len(CLASSES)]


def write_tiny_classified(
    folder: Path, cases: int = 12, *, named: bool = False, table: bool = True
) -> Path:
    """An nnU-Net data set in ``folder``; classes in ``labels.csv`` or, ``named``, in the names."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    rows = ["case,class"]
    for number in range(cases):
        kind = class_of(number)
        name = f"{kind}_{number:02d}" if named else f"case_{number:02d}"
        rows.append(f"{name},{kind}")
        image, mask, grid = draw_tiny(number)
        write_nifti(folder / "imagesTr" / f"{name}_0000.nii.gz", image, grid)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", mask, grid)
    document = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "synthetic": True,
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    if table:
        (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def draw_tiny(number: int) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Image in HU and mask (z, y, x): a block of organ, and in it a block of lesion."""
    rng = generator("tiny-classified", number)
    image = rng.normal(-80.0, 10.0, SIZE_VOX)
    mask = np.zeros(SIZE_VOX, dtype=np.uint8)
    z, y, x = (int(rng.integers(1, room)) for room in (3, 6, 6))
    mask[z : z + 8, y : y + 12, x : x + 12] = 1
    mask[z + 2 : z + 6, y + 3 : y + 9, x + 3 : x + 9] = 2
    image[mask == 1] = 100.0
    image[mask == 2] = CLASSES[class_of(number)]
    image += rng.normal(0.0, 5.0, SIZE_VOX)
    dz, dy, dx = SPACING_MM
    depth, height, width = SIZE_VOX
    grid = Grid((width, height, depth), (dx, dy, dz), (float(number), -20.0, 30.0))
    return image.astype(np.float32), mask, grid
