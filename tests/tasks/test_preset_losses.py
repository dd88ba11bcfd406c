"""Weights and powers of losses as presets give them, against sums on paper."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from medtool_heart import Heart
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from medtool_segment import Segment
from optimised import CLASSES_IN_VOLUMES

from medtool.config import resolve
from medtool.core.records import Batch
from medtool.core.task import Task
from medtool.tasks.prognosis_learning import outline_loss
from medtool.tasks.segmentation_learning import outcome_counts, targets

# Four voxels: how probable the structure is, and whether it is there.
CHANCES = (0.8, 0.4, 0.1, 0.6)
THERE = (1, 1, 0, 0)
# 0.8 + 0.4 found rightly, 0.1 + 0.6 too many, 0.2 + 0.6 missed.
RIGHT, FALSE, MISSED = 1.2, 0.7, 0.8
OWN = (
    "train.fp_weight=0.2",
    "train.fn_weight=0.9",
    "train.tversky_exponent=1.5",
    "train.focal_gamma=1",
)
# 0.2 * 0.7 + 0.9 * 0.8 = 0.86 is missing; without these keys 0.3 * 0.7 + 0.7 * 0.8 = 0.77.
TVERSKY, TVERSKY_BY_DEFAULT = 0.86 / (1.2 + 0.86), 0.77 / (1.2 + 0.77)
OF_THE_TRUTH = (0.8, 0.4, 0.9, 0.4)


def focal(gamma: float) -> float:
    return sum(-((1 - p) ** gamma) * math.log(p) for p in OF_THE_TRUTH) / 4


WANTED = {
    "tversky": (TVERSKY, TVERSKY_BY_DEFAULT),
    "focal-tversky": (TVERSKY**1.5, TVERSKY_BY_DEFAULT**0.75),
    "focal": (focal(1), focal(2)),
}


def settings(task: type[Task], folder: Path, *assignments: str) -> Any:
    return resolve(task, None, folder=folder, assignments=assignments).settings


def batch(labels: torch.Tensor) -> Batch:
    zeros = torch.zeros(1)
    tensors = {"image": zeros, "keys": zeros, "label": labels}
    classes = {"true_masks": torch.zeros(1, dtype=torch.bool), "class": torch.tensor([-1])}
    return Batch({**tensors, **classes}, (), 0, 0, training=True)


def of_segment(folder: Path, *given: str) -> float:
    data = ('data.channels=["MR"]', "data.label_ids={organ=[1]}")
    task = Segment(settings(Segment, folder, *data, *given))
    logit = torch.logit(torch.tensor(CHANCES)).view(1, 1, 1, 2, 2)
    logits = torch.cat([torch.zeros_like(logit), logit], dim=1)
    network: Any = lambda image, keys: logits  # noqa: E731
    found = task.losses(network, batch(torch.tensor(THERE).view(1, 1, 2, 2)))
    return float(found["loss"])


def of_heart(folder: Path, *given: str) -> float:
    data = ("data.label_ids={heart=[1]}", "data.regions_order=[1]")
    task = Heart(settings(Heart, folder, *data, *given))
    logits = torch.logit(torch.tensor(CHANCES)).view(1, 1, 2, 2)
    network: Any = lambda image, keys: logits  # noqa: E731
    return float(task.losses(network, batch(torch.tensor(THERE).view(1, 2, 2)))["loss"])


def of_pancreas(folder: Path, *given: str) -> float:
    """Two structures, of which each is nowhere the other: twice the same four voxels."""
    task = Pancreas(settings(Pancreas, folder, *CLASSES_IN_VOLUMES, *given))
    there = torch.tensor(THERE)
    labels = torch.cat([there * 1, there * 2]).view(1, 1, 2, 4)
    odds = torch.logit(torch.tensor(CHANCES))
    nothing = torch.full((4,), -60.0)
    logits = torch.stack(
        [torch.zeros(8), torch.cat([odds, nothing]), torch.cat([nothing, odds])]
    ).view(1, 3, 1, 2, 4)
    network: Any = SimpleNamespace(both=lambda *inputs: ([logits], torch.zeros(1, 2)))
    return float(task.losses(network, batch(labels))["segmentation"])


def of_petct(folder: Path, *given: str) -> float:
    data = ("data.label_ids={tumour=[1]}", "data.regions_order=[1]")
    loss = outline_loss(settings(Petct, folder, *data, *given))
    logits = torch.logit(torch.tensor(CHANCES)).view(1, 1, 2, 2)
    return float(loss(logits, torch.tensor(THERE).view(1, 2, 2)))


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("loss_of", [of_segment, of_heart, of_pancreas, of_petct])
def test_weights_and_powers_of_the_preset_reach_the_loss(
    tmp_path: Path, loss_of: Any, name: str
) -> None:
    own, by_default = WANTED[name]
    given = f'train.loss="{name}"'
    assert loss_of(tmp_path, given, *OWN) == pytest.approx(own, rel=1e-4)
    assert loss_of(tmp_path, given) == pytest.approx(by_default, rel=1e-4)


@pytest.mark.parametrize("ignored", [1, 2, 255])
def test_ids_with_a_gap_are_learned_whatever_the_ignored_id_is(
    tmp_path: Path, ignored: int
) -> None:
    """From a fault: an ignored id in the gap was the number of an output, which nobody learned."""
    organ, tumour = (3, 5) if ignored == 1 else (1, 3)
    data = (
        'data.channels=["MR"]',
        f"data.label_ids={{background=[0], organ=[{organ}], tumour=[{tumour}]}}",
        f"data.ignore_id={ignored}",
    )
    task = Segment(settings(Segment, tmp_path, *data))
    labels = torch.tensor([0, organ, tumour, ignored, -1]).view(1, 1, 1, 5)
    # Sure and right, but for the tumour; what nobody labelled is called a tumour.
    chosen = torch.tensor([0, 1, 0, 2, 0])
    logits = 20.0 * torch.nn.functional.one_hot(chosen, 3).T.float().view(1, 3, 1, 1, 5)
    counts = outcome_counts(task.settings.data, logits, targets(task.settings.data, labels))
    assert counts.right.tolist() == [[1, 0]]
    assert counts.false.tolist() == [[0, 0]]
    assert counts.missed.tolist() == [[0, 1]]
    assert counts.known.tolist() == [4]
    network: Any = lambda image, keys: logits  # noqa: E731
    loss = float(task.losses(network, batch(labels))["loss"])
    # Of four known voxels one has a cross-entropy of 20; of two labels one has a Dice of 0.
    assert loss == pytest.approx(20 / 4 + 1 / 2, rel=1e-3)
