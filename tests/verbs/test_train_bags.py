"""Training a bag classification end to end: from features computed once, and from scratch."""

from __future__ import annotations

import csv
from dataclasses import replace
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from dicom_builder import build_series, ramp
from safetensors.torch import load_file, save_file
from tiny_bag import TINY_BACKBONE, TinyBag

from medtool.core.checkpoint import read_header
from medtool.core.records import Cohort, Source
from medtool.data.predictions import read_predictions
from medtool.data.run_folder import RunFolder, fold_folders
from medtool.nets.backbones import create_backbone
from medtool.nets.state import read_tensors
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

PATIENTS = 20


class OneLabel(TinyBag):
    """The label is in the name: prepared pictures can show what labels.csv says."""

    def find(self, source: Source) -> Cohort:
        """Studies of odd patients are positive."""
        found = super().find(source)
        cases = tuple(
            replace(case, label=float(int(case.patient_id[1:]) % 2)) for case in found.cases
        )
        return replace(found, cases=cases)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patient", "label"])
        for number in range(PATIENTS):
            table.writerow([f"P{number:02}", number % 2])
            build_series(
                tmp_path / "CTs" / f"P{number:02}",
                ramp((3, 8, 8)) + number,
                patient_id=f"P{number:02}",
            )
    torch.manual_seed(3)
    save_file(create_backbone(TINY_BACKBONE, channels=3).state_dict(), tmp_path / "w.safetensors")
    return tmp_path


def options(data: Path, *assignments: str, **more: Any) -> TrainOptions:
    small = (
        f"model.backbone={TINY_BACKBONE}",
        "model.hidden_features=8",
        "train.epochs=3",
        "train.learning_rate=0.01",
        "metrics.bootstrap_draws=100",
    )
    return TrainOptions(
        task=OneLabel,
        data=data,
        labels=data / "labels.csv",
        assignments=(*small, *assignments),
        run=RunOptions(run="r", workers=0, device="cpu"),
        folder=data,
        **more,
    )


FROZEN = "train.stages=[{from_epoch=0,rates={head=0.01}}]"


def backbone(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("backbone."): tensor
        for name, tensor in read_tensors(checkpoint, "model.")
        if name.startswith("backbone.")
    }


def test_a_frozen_trunk_trains_on_features_that_were_computed_once(data: Path) -> None:
    weights = f"model.weights.path={data / 'w.safetensors'}"
    result = train(options(data, FROZEN, weights, "train.feature_copies=2"))
    files = list((result.run / "features").rglob("*.features.npy"))
    parts = [row["part"] for row in RunFolder(result.run).read_cases()]
    assert len(files) == sum(part in ("train", "selection") for part in parts)
    given = create_backbone(TINY_BACKBONE, channels=3).state_dict()
    learned = backbone(result.checkpoint)
    assert set(learned) == set(given)
    said = read_header(result.checkpoint).document["weights"]
    assert (said["source"], said["loaded"]) == ("w.safetensors", said["total"])


def test_from_scratch_everything_learns_whatever_the_stages_say(data: Path) -> None:
    result = train(options(data, FROZEN, from_scratch=True))
    stages = read_header(result.checkpoint).document["stages"]
    assert len(stages) == 1
    assert {"stem", "layer1", "layer4", "head"} <= set(stages[0]["rates"])


def test_joined_folds_decide_each_case_at_its_own_folds_threshold(data: Path) -> None:
    run = RunOptions(run="cv", workers=0, device="cpu", folds=3)
    begun = options(data, "train.epochs=1", "train.learning_rate=0.1", from_scratch=True)
    train(replace(begun, run=run))
    joint = RunFolder(data / "runs" / "tiny-bag" / "cv")
    labels = {row["case"]: float(row["label"]) for row in joint.read_cases()}
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 0)
    thresholds = set()
    for fold in fold_folders(joint.path):
        best = read_header(fold.checkpoints_folder / "best.safetensors").document["threshold"]
        for row in read_predictions(fold.predictions_folder / "test"):
            thresholds.add(float(row["threshold"]))
            assert float(row["threshold"]) == best
            right = (float(row["probability"]) >= best) == (labels[row["case"]] > 0.5)
            positive = float(row["probability"]) >= best
            counts[("t" if right else "f") + ("p" if positive else "n")] += 1
    assert len(thresholds) > 1, "a test of nothing"
    stored = joint.read_scores()["out-of-fold"]
    assert stored["tables"]["confusion"] == counts
    assert stored["tables"]["decision"]["threshold"] is None
    # The same numbers as evaluate gives for the run, fixed specificities included.
    again = evaluate(EvaluateOptions(subjects=(joint.path,))).evaluated[0].scores
    for name, score in again.metrics.items():
        assert stored["metrics"][name]["value"] == (score.value if isfinite(score.value) else None)
    fixed = stored["tables"]["fixed_specificity"]
    assert {row["threshold_from"] for row in fixed} == {"each fold's selection part"}


def test_frozen_layers_keep_weights_and_statistics_over_a_whole_training(data: Path) -> None:
    # With batch norms that learn: only freezing keeps those of the frozen parts still.
    stages = "train.stages=[{from_epoch=0,rates={head=0.01}},{from_epoch=1,rates={layer4=0.01}}]"
    weights = f"model.weights.path={data / 'w.safetensors'}"
    result = train(options(data, stages, weights, "model.batch_norm=learned"))
    given = create_backbone(TINY_BACKBONE, channels=3).state_dict()
    given |= load_file(data / "w.safetensors")
    stem = next(name for name in given if given[name].ndim == 4)
    given[stem] = given[stem].sum(dim=1, keepdim=True)

    def digests(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
        return {n: sha256(t.numpy().tobytes()).hexdigest() for n, t in tensors.items()}

    before = digests(given)
    after = digests(backbone(result.run / "checkpoints" / "last.safetensors"))
    moved = {name for name in before if before[name] != after[name]}
    assert moved
    assert all(name.startswith("layer4.") for name in moved)
    assert any("running_mean" in name for name in moved)


def test_an_average_of_heads_on_features_goes_on_with_the_same_bits(data: Path) -> None:
    weights = f"model.weights.path={data / 'w.safetensors'}"
    more = ("train.feature_copies=2", "train.average_decay=0.5", "train.checkpoint_every_epochs=1")
    result = train(options(data, FROZEN, weights, *more))
    folder = RunFolder(result.run).checkpoints_folder
    whole = dict(read_tensors(folder / "last.safetensors", ""))
    (folder / "last.safetensors").unlink()
    first = dict(read_tensors(folder / "epoch_0000.safetensors", ""))
    # The network of a resume is loaded with the average; the weights that learn are others.
    learning = {
        n.removeprefix("optimizer.weights."): t for n, t in first.items() if "weights." in n
    }
    assert any(not torch.equal(first[f"model.{name}"], t) for name, t in learning.items())
    train(replace(options(data), assignments=(), resume=folder / "epoch_0000.safetensors"))
    again = dict(read_tensors(folder / "last.safetensors", ""))
    assert whole.keys() == again.keys()
    learned = [name for name in whole if name.startswith(("model.", "optimizer."))]
    assert [name for name in learned if not torch.equal(whole[name], again[name])] == []
