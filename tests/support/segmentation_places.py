"""Folders in which the commands of the pages of segmentations run: a tiny data set, new scans."""

from __future__ import annotations

import shutil
from pathlib import Path

# Makes every training of these pages a matter of seconds; the values of presets stay below it.
TINY_VOLUMES = """\
[model]
budget = "cpu"
kind = "plain"
features = [4, 8]
kernel_sizes = [[3, 3, 3], [3, 3, 3]]
strides = [[1, 1, 1], [2, 2, 2]]
encoder_blocks = [1, 1]
decoder_convolutions = [1]
patch_size_vox = [16, 16, 16]

[train]
epochs = 2
batch_cases = 2
examples_per_case = 1

[infer]
step = 1.0

[report]
worst_cases = 2
"""
TINY_SLICES = """\
[data.preparation]
size_px = [32, 32]

[model]
first_features = 4
levels = 3

[train]
epochs = 2

[report]
worst_cases = 2
"""
TINY_STUDIES = """\
[data.preparation]
size_px = [32, 32]

[model]
first_features = 4
levels = 3
dropout_level = 1
head_features = [8]

[train]
epochs = 2
batch_cases = 4
slices_per_case = 4

[infer]
passes = 2

[report]
worst_cases = 2
"""
CASES = {"segment": 8, "pancreas": 12, "heart": 8, "petct": 14}
# Pages that speak of models of any task, and the one whose place they run in.
PLACES = {**{task: task for task in CASES}, "optimize": "heart", "optimisation": "heart"}
TINY = {"heart": TINY_SLICES, "petct": TINY_STUDIES}
PLACES |= {"bench": "heart", "pruning": "heart"}


def write_segmentation_place(task: str, folder: Path) -> None:
    """``dataset`` with masks, ``new-scans`` without, and settings that make training short."""
    if task == "petct":
        from medtool_petct.demo import write_cohort as write
    elif task == "heart":
        from medtool_heart.demo import write_cohort as write
    elif task == "pancreas":
        from medtool_pancreas.demo import write_dataset as write
    else:
        from medtool_segment.demo import write_dataset as write
    write(folder / "dataset", 0, CASES[task])
    (folder / "medtool.toml").write_text(TINY.get(task, TINY_VOLUMES), encoding="utf-8")
    if task == "petct":
        _write_pairs(folder)
        return
    images = folder / "dataset" / ("images" if task == "heart" else "imagesTr")
    for path in sorted(images.iterdir())[:2]:
        target = folder / "new-scans" / path.name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)


def _write_pairs(folder: Path) -> None:
    """Two studies as pairs that are told by their names."""
    target = folder / "new-scans"
    target.mkdir()
    for name in ("demo_000", "demo_001"):
        shutil.copy(folder / "dataset" / "pet" / f"{name}.nii.gz", target / f"{name}_suv.nii.gz")
        shutil.copy(folder / "dataset" / "ct" / f"{name}.nii.gz", target / f"{name}_ct.nii.gz")
