"""Training a bag classification end to end: from features computed once, and from scratch."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dicom_builder import build_series, ramp
from safetensors.torch import save_file
from tiny_bag import TINY_BACKBONE, TinyBag

from medtool.core.checkpoint import read_header
from medtool.core.records import Cohort, Source
from medtool.data.run_folder import RunFolder
from medtool.nets.backbones import create_backbone
from medtool.nets.state import read_tensors
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
