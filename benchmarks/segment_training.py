"""Training ``segment`` on hippocampus for some minutes: Dice held out, and beside nnU-Net.

    python benchmarks/segment_training.py [--peers DIR] [--hippocampus DIR] [--minutes 10]
                                          [--long-minutes 40] [--folds 5]

``--hippocampus`` is MSD's Task04 or a part of it; without it nothing can be measured (a quick run
then takes the data set of the demo). Every run is
the product's own command. First each of the folds, a call of its own, joined afterwards; then fold
0 of nnU-Net's default split, for as many minutes and for ``--long-minutes``, and nnU-Net itself on
the same fold (``--peers``, a virtual environment with nnunetv2; benchmarks/.venv-peers is taken
when it is there): its own trainer, augmentation and plan, the schedule fitted to the same minutes
of training. What chooses epochs and post-processing is never the fold that is scored. bfloat16
where the processor has units for it. Takes two hours on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nnunet_peer import PEERS, PeerCase, PeerSet, ask, dataset_name, peer_python, write_sets
from results import Row, begin, work_folder

LEAST_FOLDS, LEAST_LONG = 0.87, 0.89
FOLDS, MINUTES, LONG_MINUTES = 5, 10.0, 40.0
QUICK_MINUTES, QUICK_CASES = 0.05, 10
NAME = "hippocampus"
# How nnU-Net's schedule is cut: its rate falls from epoch to epoch.
PEER_EPOCHS, PEER_TIMED_STEPS, PEER_CHECKS = 20, 3, 1


# --- ours ---------------------------------------------------------------------------------------
def best_precision() -> str:
    """The arithmetic that ``medtool doctor`` lists as this processor's own."""
    import torch

    from medtool.nets.device import computes_slowly

    return "32" if computes_slowly(torch.bfloat16, torch.device("cpu")) else "bf16"


def train(data: Path, folder: Path, run: str, words: list[str]) -> dict[str, Any]:
    """One command; gives what it prints as JSON, and its seconds."""
    medtool = Path(sys.executable).parent / "medtool"
    command = [str(medtool), "train", "segment", "--data", str(data)]
    command += ["--run", run, "--precision", best_precision(), "--workers", "1", "--json", *words]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"medtool train ended with {done.returncode}: {done.stderr[-2000:]}")
    return {**json.loads(done.stdout), "seconds": time.perf_counter() - began}


def generated(folder: Path) -> Path:
    """The data set of ``medtool demo segment``, a few cases of it."""
    from medtool_segment.demo import write_dataset

    write_dataset(folder, 0, QUICK_CASES)
    return folder


def of_folds(data: Path, folder: Path, folds: int, minutes: float, more: list[str]) -> Row:
    """Every case once, answered by the model of the fold that left it out."""
    seconds = []
    for fold in range(folds):
        words = ["--folds", str(folds), "--fold", str(fold), "--minutes", str(minutes), *more]
        seconds.append(train(data, folder, "folds", words)["seconds"])
    text = (folder / "runs" / "segment" / "folds" / "scores.json").read_text(encoding="utf-8")
    dice = json.loads(text)["out-of-fold"]["metrics"]["dice"]
    return Row(
        f"{folds} folds of {minutes:g} minutes each: mean Dice of both labels, out of fold",
        dice["value"],
        "",
        least=LEAST_FOLDS,
        detail={"interval": [dice["low"], dice["high"]], "cases": dice["n"], "seconds": seconds},
    )


def of_split(data: Path, folder: Path, minutes: float, more: list[str]) -> tuple[float, list[str]]:
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
def split_rows(data: Path, options: argparse.Namespace, folder: Path, more: list[str]) -> list[Row]:
    """Ours for both times; nnU-Net for the shorter, where it is there."""
    where = "fold 0 of nnU-Net's split"
    long, held_out = of_split(data, folder, options.long_minutes, more)
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
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)


def main() -> int:
    """Train every fold, then fold 0 beside nnU-Net; print, keep."""
    run = begin("segment_training", __doc__, ("torch", "numpy"), add_options)
    options = run.options
    if options.ask:
        answer(options.ask)
        return 0
    if options.hippocampus is None and not options.quick:
        raise SystemExit("Without --hippocampus there is nothing to train on.")
    more: list[str] = []
    if options.quick:
        options.minutes = options.long_minutes = QUICK_MINUTES
        options.folds = 2
        more = ["--preset", "demo", "--set", "train.examples_per_case=1"]
    with work_folder() as folder:
        data = (options.hippocampus or generated(folder / "data")).resolve()
        rows = [of_folds(data, folder, options.folds, options.minutes, more)]
        rows += split_rows(data, options, folder, more)
        return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
