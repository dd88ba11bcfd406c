"""Training ``segment`` beside nnU-Net: the same fold, the same minutes, the same cores.

    python benchmarks/segment_beside_nnunet.py [--peers DIR] [--hippocampus DIR] [--minutes 10]
                                               [--long-minutes 40]

Fold 0 of nnU-Net's default split, for ``--long-minutes`` and for ``--minutes``, each by the
product's own command; the longer one also learns from scans mirrored left for right, as the two
hippocampi are, and answers both ways: without, it learns the few scans by heart after a dozen
epochs. Then nnU-Net itself (``--peers``, a virtual environment with nnunetv2;
benchmarks/.venv-peers is taken when it is there): its own trainer, augmentation and plan, the
schedule fitted to the same minutes of training. ``--hippocampus`` is MSD's Task04 or a part of it
(a quick run takes the data set of the demo). Takes an hour on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_peer import PEERS, PeerCase, PeerSet, ask, dataset_name, peer_python, write_sets
from results import Row, begin, work_folder
from segment_training import MINUTES, QUICK_MINUTES, QUICK_WORDS, data_of, train

LEAST_LONG = 0.89
LONG_MINUTES = 40.0
LONG_WORDS = ("--set", "augment.mirror=left-right", "--set", "infer.mirror=true")
NAME = "hippocampus"
# How nnU-Net's schedule is cut: its rate falls from epoch to epoch.
PEER_EPOCHS, PEER_TIMED_STEPS, PEER_CHECKS = 20, 3, 1


def of_split(
    data: Path, folder: Path, minutes: float, more: Sequence[str]
) -> tuple[float, list[str]]:
    """Fold 0 of nnU-Net's split: mean Dice of its held-out cases, and who they are."""
    run = f"split-{minutes:g}"
    words = ["--set", "train.split=nnunet", "--fold", "0", "--minutes", str(minutes), *more]
    scores = train(data, folder, run, words)["scores"]["test"]
    (table,) = folder.glob(f"runs/segment/{run}/**/cases.csv")
    with table.open(encoding="utf-8", newline="") as file:
        held_out = [row["case"] for row in csv.DictReader(file) if row["part"] == "test"]
    return float(scores["dice"]["value"]), sorted(held_out)


# --- nnU-Net's ----------------------------------------------------------------------------------
def peer_set(data: Path) -> PeerSet:
    """The labelled cases, as nnU-Net wants to hear of them."""
    labels = sorted((data / "labelsTr").glob("[!.]*.nii.gz"))
    cases = {
        label.name.removesuffix(".nii.gz"): PeerCase((data / "imagesTr" / label.name,), label)
        for label in labels
    }
    return PeerSet(NAME, ("MRI",), 3, len(cases), cases)


def train_peer(name: str, minutes: float) -> dict[str, Any]:
    """nnU-Net's own trainer on fold 0, with as many steps as fit into the minutes."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
    from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

    number = convert_dataset_name_to_id(name)
    extract_fingerprint_dataset(number, num_processes=2)
    plan_experiment_dataset(number)
    preprocess_dataset(number, configurations=("3d_fullres",), num_processes=[2])
    folder = Path(str(nnUNet_preprocessed)) / name
    step_s = _peer_step_s(_trainer(folder))
    steps = max(PEER_EPOCHS, int(minutes * 60 / step_s))
    trainer = _trainer(folder)
    trainer.num_epochs = PEER_EPOCHS
    trainer.num_iterations_per_epoch = steps // PEER_EPOCHS
    trainer.num_val_iterations_per_epoch = PEER_CHECKS
    began = time.perf_counter()
    trainer.run_training()
    seconds = time.perf_counter() - began
    trainer.perform_actual_validation(False)
    (summary,) = Path(str(nnUNet_results)).rglob("validation/summary.json")
    cases = json.loads(summary.read_text(encoding="utf-8"))["metric_per_case"]
    dices = [case["metrics"][label]["Dice"] for case in cases for label in ("1", "2")]
    names = [Path(case["prediction_file"]).name.removesuffix(".nii.gz") for case in cases]
    return {
        "dice": sum(dices) / len(dices),
        "steps": trainer.num_iterations_per_epoch * PEER_EPOCHS,
        "seconds": seconds,
        "held_out": sorted(names),
    }


def _trainer(folder: Path) -> Any:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, dataset = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("nnUNetPlans.json", "dataset.json")
    )
    # Its own start puts this word among the plans.
    plans["continue_training"] = False
    return nnUNetTrainer(plans, "3d_fullres", 0, dataset, torch.device("cpu"))


def _peer_step_s(trainer: Any) -> float:
    """Seconds of a step, on a trainer that is thrown away."""
    trainer.on_train_start()
    trainer.network.train()
    taken = []
    for _ in range(PEER_TIMED_STEPS):
        batch = next(trainer.dataloader_train)
        began = time.perf_counter()
        trainer.train_step(batch)
        taken.append(time.perf_counter() - began)
    trainer.on_train_end()
    return min(taken)


def answer(words: list[str]) -> None:
    """The question to nnU-Net, answered as a line of JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        found = train_peer(words[0], float(words[1]))
    print(json.dumps(found))


# --- both ---------------------------------------------------------------------------------------
def split_rows(
    data: Path, options: argparse.Namespace, folder: Path, more: Sequence[str]
) -> list[Row]:
    """Ours for both times; nnU-Net for the shorter, where it is there."""
    where = "fold 0 of nnU-Net's split"
    long, held_out = of_split(data, folder, options.long_minutes, (*more, *LONG_WORDS))
    rows = [
        Row(
            f"{where}, {options.long_minutes:g} minutes: mean Dice",
            long,
            "",
            least=LEAST_LONG,
            detail={"held_out": len(held_out)},
        )
    ]
    python = peer_python(options.peers)
    if python is None:
        return rows
    short, _ = of_split(data, folder, options.minutes, more)
    write_sets(folder, [peer_set(data)])
    words = [dataset_name(1, NAME), str(options.minutes)]
    theirs = ask(python, __file__, words, folder)
    if theirs.pop("held_out") != held_out:
        raise SystemExit("the two sides hold out different cases")
    rows.append(
        Row(
            f"{where}, {options.minutes:g} minutes: mean Dice of medtool less that of nnU-Net",
            short - theirs["dice"],
            "",
            least=0.0,
            detail={"medtool": short, "nnU-Net": theirs},
        )
    )
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--hippocampus", type=Path)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--long-minutes", type=float, default=LONG_MINUTES)
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)


def main() -> int:
    """Train fold 0, then nnU-Net on it; print, keep."""
    run = begin("segment_beside_nnunet", __doc__, ("torch", "numpy"), add_options)
    options = run.options
    if options.ask:
        answer(options.ask)
        return 0
    if options.quick:
        options.minutes = options.long_minutes = QUICK_MINUTES
    with work_folder() as folder:
        more = QUICK_WORDS if options.quick else ()
        return run.finish(split_rows(data_of(options, folder), options, folder, more))


if __name__ == "__main__":
    sys.exit(main())
