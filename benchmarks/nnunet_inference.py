"""How long nnU-Net and we take for the same answer, from file to file, and in how much memory.

    python benchmarks/nnunet_inference.py [--peers DIR] [--rounds N]

A plain U-Net from 32 features with random weights, which ``medtool export`` gives to nnU-Net, and
one CT, as many windows high and wide as nnU-Net plans for the pancreas (93 x 512 x 512 voxels in
windows of 40 x 224 x 224), of smaller windows: 64 for nnU-Net, which overlap by half. Both commands
answer with the same weights, in turns, each in a process of its own, on the CPU and without
mirroring; ours with the step of the preset ``default``, and with nnU-Net's. What the longer step
costs in Dice is measured with a network that has learned (nnunet_step.py): random weights answer at
the edges of windows by chance. Memory is that of all processes of a command together, what they
share counted once (PSS). ``--peers`` is a virtual environment with nnunetv2
(benchmarks/requirements.txt; benchmarks/.venv-peers is taken when it is there).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunet_peer import PEERS, peer_python
from results import Row, begin, work_folder

# 74 x 146 x 146 voxels once they are resampled.
SIZE_VOX, QUICK_SIZE_VOX = (93, 183, 183), (12, 24, 24)
SPACING_MM, PLANNED_MM = 1.0, 1.25
PATCH_VOX, QUICK_PATCH_VOX = (32, 64, 64), (16, 16, 16)
FEATURES, QUICK_FEATURES = (32, 64, 128, 256, 320), (4, 8)
DATASET = "Dataset001_Made"
SAMPLE_EVERY_S = 0.05
NNUNET_STEP = 0.5
LEAST_DICE = 0.995
LABELS = (1, 2)


@dataclass(frozen=True)
class Measured:
    """Seconds and peak memory of one command."""

    seconds: float
    peak_mb: float


def measured(words: Sequence[str], environment: Mapping[str, str]) -> Measured:
    """Run a command in a session of its own, and watch the memory of all its processes."""
    assignments = [f"{name}={value}" for name, value in environment.items()]
    began, peak_mb = time.perf_counter(), 0.0
    with subprocess.Popen(
        ["env", *assignments, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        while process.poll() is None:
            peak_mb = max(peak_mb, _session_mb(process.pid))
            time.sleep(SAMPLE_EVERY_S)
        seconds = time.perf_counter() - began
        if process.returncode:
            error = process.stderr.read().decode() if process.stderr else ""
            raise SystemExit(f"{words[0]} ended with {process.returncode}: {error[-2000:]}")
    return Measured(seconds, peak_mb)


def _session_mb(session: int) -> float:
    total_kb = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.getsid(int(folder.name)) != session:
                continue
            lines = (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            # It ended between two looks.
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1000


def write_model(folder: Path, *, quick: bool, patch_vox: Sequence[int] | None = None) -> Path:
    """A checkpoint with random weights, whose answers vary in space; ``quick`` is a tiny network,
    and ``patch_vox`` another size of its windows.
    """
    import torch

    from medtool.config import resolve
    from medtool.core.checkpoint import write_checkpoint
    from medtool.core.registry import load_task
    from medtool.nets.state import raw_tensor

    features = QUICK_FEATURES if quick else FEATURES
    stages = len(features)
    task_type = load_task("segment")
    settings = task_type.settings_type.model_validate(
        {
            "data": {
                "channels": ["CT"],
                "label_ids": {"background": [0], "a": [1], "b": [2]},
                "preparation": {
                    "configuration": "3d_fullres",
                    "axes_forward": [0, 1, 2],
                    "spacing_mm": [PLANNED_MM] * 3,
                    "normalisation": ["ct"],
                    "mask_for_normalisation": [False],
                    "intensities": [
                        {
                            **{"mean": 60.0, "median": 60.0, "std": 60.0, "low": -200.0},
                            **{"high": 400.0, "percentile_00_5": -90.0, "percentile_99_5": 210.0},
                        }
                    ],
                },
            },
            "model": {
                "kind": "plain",
                "features": features,
                "kernel_sizes": [[3] * 3] * stages,
                "strides": [[1] * 3, *[[2] * 3] * (stages - 1)],
                "encoder_blocks": [2] * stages,
                "decoder_convolutions": [2] * (stages - 1),
                "patch_size_vox": patch_vox or (QUICK_PATCH_VOX if quick else PATCH_VOX),
            },
            "train": {"batch_cases": 2, "batch_dice": False},
            "infer": {"step": resolve(task_type, "default").settings.infer.step},
        }
    )
    torch.manual_seed(0)
    network = task_type(settings).network()
    tensors = []
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            tensor.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3)
        tensors.append(raw_tensor(f"model.{name}", tensor))
    path = folder / "model.safetensors"
    document = {"task": task_type.name, "preset": settings.as_dict(), "epoch": 0}
    write_checkpoint(path, document, tensors)
    return path


def write_image(folder: Path, *, quick: bool) -> Path:
    """A smooth volume in HU, named as nnU-Net wants it."""
    from scipy import ndimage

    from medtool.core.geometry import Grid
    from medtool.data.nifti_writer import write_nifti

    size = QUICK_SIZE_VOX if quick else SIZE_VOX
    noise = np.random.default_rng(3).normal(size=size).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 3)
    values = 60 + 60 * smooth / smooth.std() + 10 * noise
    folder.mkdir()
    z, y, x = size
    grid = Grid((x, y, z), (SPACING_MM,) * 3, (0.0, 0.0, 0.0))
    write_nifti(folder / "case_0000.nii.gz", np.round(values).astype(np.float32), grid)
    return folder


def ours(checkpoint: Path, source: Path, output: Path, *more: str) -> Measured:
    """The command ``medtool infer``."""
    words = [sys.executable, "-m", "medtool.cli.app", "infer", str(source), "--checkpoint"]
    words += [str(checkpoint), "-o", str(output), "--device", "cpu", "--allow-demo", "--force"]
    return measured([*words, *more], {})


def theirs(python: Path, results: Path, source: Path, output: Path) -> Measured:
    """The command ``nnUNetv2_predict``, with as few processes as it has."""
    (model,) = (results / DATASET).iterdir()
    trainer, plans, configuration = model.name.split("__")
    words = [str(python.with_name("nnUNetv2_predict")), "-i", str(source), "-o", str(output)]
    words += ["-d", DATASET, "-tr", trainer, "-p", plans, "-c", configuration, "-f", "0"]
    words += ["--disable_tta", "-device", "cpu", "-npp", "1", "-nps", "1"]
    known = {name: str(results) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    return measured(words, {**known, "nnUNet_results": str(results)})


def dices(one: Path, other: Path) -> list[float]:
    """Dice of each label of two masks; a label that neither has is left out."""
    import SimpleITK as sitk

    first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (one, other))
    found = []
    for label in LABELS:
        a, b = first == label, second == label
        if a.any() or b.any():
            both = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
            found.append(2 * int(np.count_nonzero(a & b)) / both)
    return found


def rows_of(python: Path, folder: Path, rounds: int) -> list[Row]:
    """Both sides in turns; of each the best time and the lowest peak count."""
    from medtool.verbs.export_model import ExportOptions, export_model

    checkpoint, source = write_model(folder, quick=False), write_image(folder / "in", quick=False)
    results = folder / "results"
    export_model(ExportOptions("nnunet", checkpoint, results, dataset=DATASET))
    here, there = folder / "here", folder / "there"
    sides: dict[str, Callable[[], Measured]] = {
        "theirs": lambda: theirs(python, results, source, there),
        "equal": lambda: ours(checkpoint, source, here / "equal", "--step", str(NNUNET_STEP)),
        "default": lambda: ours(checkpoint, source, here / "default"),
    }
    best: dict[str, Measured] = {}
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            found = sides[name]()
            known = best.get(name, found)
            best[name] = Measured(
                min(known.seconds, found.seconds), min(known.peak_mb, found.peak_mb)
            )
    detail: dict[str, Any] = {name: vars(value) for name, value in best.items()}
    return [
        Row(
            "default settings: nnU-Net's time over ours",
            best["theirs"].seconds / best["default"].seconds,
            least=2,
            detail=detail,
        ),
        Row(
            "equal settings: nnU-Net's time over ours",
            best["theirs"].seconds / best["equal"].seconds,
            least=1.3,
        ),
        Row(
            "equal settings: lowest Dice of a label beside nnU-Net's mask",
            min(dices(there / "case.nii.gz", here / "equal" / "masks" / "case.nii.gz")),
            "",
            least=LEAST_DICE,
        ),
        Row(
            "default settings: peak memory over nnU-Net's",
            best["default"].peak_mb / best["theirs"].peak_mb,
            most=0.5,
        ),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--rounds", type=int, default=2)


def main() -> int:
    """Answer in turns, compare, print, keep."""
    run = begin("nnunet_inference", __doc__, ("medtool", "torch", "numpy"), add_options)
    python = None if run.options.quick else peer_python(run.options.peers)
    with work_folder() as folder:
        if python is not None:
            return run.finish(rows_of(python, folder, run.options.rounds))
        checkpoint, source = write_model(folder, quick=True), write_image(folder / "in", quick=True)
        found = ours(checkpoint, source, folder / "out")
    row = Row("seconds of medtool infer", found.seconds, "s", detail={"peak_mb": found.peak_mb})
    note = "nnU-Net was not asked: it is not installed, or the run is quick."
    return run.finish([row], notes=[note])


if __name__ == "__main__":
    sys.exit(main())
