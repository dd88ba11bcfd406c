"""The task heart: its presets, and a demo that brightness alone cannot answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medtool_heart import Heart
from medtool_heart.demo import PATIENTS, SLICES, draw_slice

from medtool.config import presets_of, resolve
from medtool.score.overlap import overlap

# The demo's own shares: a quarter of the patients is held out.
TRAINING = range(PATIENTS * 3 // 4)
HELD_OUT = range(len(TRAINING), PATIENTS)


def scaled(patient: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A slice as the network sees it, and its mask."""
    image, mask, _ = draw_slice(0, patient, index)
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (high - low), 0, 1), mask > 0


def test_no_threshold_answers_the_demo() -> None:
    """The best one on training patients stays under 0.6 on the others."""
    cuts = np.linspace(0, 1, 101)

    def dices(patients: range) -> np.ndarray:
        slices = [scaled(p, index) for p in patients for index in range(SLICES)]
        rows = [[overlap(i > cut, m).metrics()["dice"] for cut in cuts] for i, m in slices]
        return np.array(rows).mean(axis=0)

    chosen = int(dices(TRAINING).argmax())
    assert 0.2 < dices(HELD_OUT)[chosen] < 0.6


def test_the_reference_has_31_million_parameters(tmp_path: Path) -> None:
    task = Heart(resolve(Heart, None, folder=tmp_path).settings).informed({})
    assert sum(p.numel() for p in task.network().parameters()) == 31_043_521


@pytest.mark.parametrize("name", ["attention", "ct", "default", "encoder", "fourfold"])
def test_presets_of_the_reference_keep_its_training(tmp_path: Path, name: str) -> None:
    settings = resolve(Heart, name, folder=tmp_path).settings
    train = settings.train
    assert (train.epochs, train.batch_cases, train.accumulate) == (40, 32, 4)
    assert (train.optimiser, train.learning_rate, train.schedule) == ("adam", 1e-4, "plateau")
    assert (train.plateau_factor, train.plateau_patience) == (0.1, 10)
    assert train.plateau_least_rate == 1e-7
    assert train.early_stopping_epochs == 10
    assert (train.split, train.selection_share) == ("two-part", 0.2)
    assert (train.loss, train.dice_smooth) == ("dice", 1e-15)
    assert settings.data.preparation.size_px == [256, 256]
    assert settings.augment.rotation_degrees == 45


def test_every_preset_is_listed(tmp_path: Path) -> None:
    found = {preset.name for preset in presets_of("heart", "medtool_heart.task", tmp_path)}
    wanted = {"attention", "ct", "default", "demo", "encoder", "fourfold", "small"}
    assert wanted <= found
