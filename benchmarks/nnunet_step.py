"""What the preset's step from window to window costs in Dice, beside nnU-Net with its own.

    python benchmarks/nnunet_step.py [--peers DIR] [--hippocampus DIR] [--minutes 10]

``medtool train segment`` learns fold 0 of nnU-Net's split with windows so small that every scan
takes dozens of them (four of 16 voxels along a side of 35): a real data set whose scans are much
larger than its windows. The held-out scans are then answered from file to file with the preset's
step, with nnU-Net's, and, after ``medtool export nnunet``, by nnUNetv2_predict without mirroring;
each answer is compared with the experts' masks. ``--hippocampus`` is MSD's Task04 or a part of it;
``--peers`` is a virtual environment with nnunetv2 (benchmarks/.venv-peers is taken when it is
there).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean

from nnunet_inference import DATASET, NNUNET_STEP, dices, ours, theirs
from nnunet_peer import PEERS, peer_python
from results import Row, begin, work_folder
from segment_beside_nnunet import of_split
from segment_training import MINUTES, QUICK_MINUTES, QUICK_WORDS, data_of

# What the faster default may cost: the target of the speed that it gives.
LEAST_DIFFERENCE = -0.005
# A third to a half of a scan each way, and as many voxels a step as one planned patch has.
PATCH_VOX, BATCH_CASES = (16, 24, 16), 12


def write_model(data: Path, folder: Path, minutes: float, words: list[str]) -> tuple[Path, Path]:
    """A trained checkpoint, and a folder with the held-out images as nnU-Net names them."""
    _, held_out = of_split(data, folder, minutes, words)
    (checkpoint,) = folder.glob("runs/segment/*/**/best.safetensors")
    source = folder / "in"
    source.mkdir()
    for case in held_out:
        # MSD's images bear the case's name alone.
        (image,) = (data / "imagesTr").glob(f"{case}*.nii.gz")
        (source / f"{case}_0000.nii.gz").symlink_to(image)
    return checkpoint, source


def mean_dice(masks: Path, data: Path, source: Path) -> float:
    """Over both labels and all held-out scans."""
    names = [f"{image.name.removesuffix('_0000.nii.gz')}.nii.gz" for image in source.iterdir()]
    return mean(value for name in names for value in dices(masks / name, data / "labelsTr" / name))


def rows_of(data: Path, folder: Path, minutes: float, words: list[str], peers: Path) -> list[Row]:
    """Dice of the preset's step less that of the finer one, and less nnU-Net's."""
    from medtool.verbs.export_model import ExportOptions, export_model

    checkpoint, source = write_model(data, folder, minutes, words)
    here = folder / "here"
    ours(checkpoint, source, here / "default")
    ours(checkpoint, source, here / "finer", "--step", str(NNUNET_STEP))
    found = {name: mean_dice(here / name / "masks", data, source) for name in ("default", "finer")}
    python = peer_python(peers)
    if python is not None:
        results, there = folder / "results", folder / "there"
        export_model(ExportOptions("nnunet", checkpoint, results, dataset=DATASET))
        theirs(python, results, source, there)
        found["nnU-Net"] = mean_dice(there, data, source)
    kinds = {"finer": f"of step {NNUNET_STEP:g}", "nnU-Net": "of nnUNetv2_predict"}
    return [
        Row(
            f"mean Dice of the preset's step less that {text}",
            found["default"] - found[name],
            "",
            least=LEAST_DIFFERENCE,
            detail={**found, "held_out": len(list(source.iterdir()))},
        )
        for name, text in kinds.items()
        if name in found
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--hippocampus", type=Path)
    parser.add_argument("--minutes", type=float, default=MINUTES)


def main() -> int:
    """Train once, answer three times, compare; print, keep."""
    run = begin("nnunet_step", __doc__, ("medtool", "torch", "numpy"), add_options)
    options = run.options
    words = ["--set", f"model.patch_size_vox={list(PATCH_VOX)}"]
    words += ["--set", f"train.batch_cases={BATCH_CASES}"]
    if options.quick:
        options.minutes, options.peers = QUICK_MINUTES, Path("none")
        words = list(QUICK_WORDS)
    with work_folder() as folder:
        data = data_of(options, folder)
        return run.finish(rows_of(data, folder, options.minutes, words, options.peers))


if __name__ == "__main__":
    sys.exit(main())
