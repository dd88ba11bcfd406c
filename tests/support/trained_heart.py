"""A small model of the task heart that has learned something, in seconds."""

from __future__ import annotations

from pathlib import Path

from medtool_heart import Heart
from medtool_heart.demo import write_cohort

from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

PATIENTS = 12
SETTINGS = (
    "data.preparation.size_px=[32, 32]",
    "model.first_features=8",
    "model.levels=3",
    # Until it has learned: eight bits of a network that is only beginning fall by more than is
    # allowed on some processors. In the arithmetic that all of them have.
    "train.epochs=36",
    "train.precision=32",
    "train.batch_cases=4",
    "train.learning_rate=0.01",
    "train.split=three-part",
    "metrics.bootstrap_draws=100",
)


def train_heart(folder: Path, *assignments: str) -> Path:
    """A cohort in ``folder / "data"`` and a run on it; gives the run's folder."""
    write_cohort(folder / "data", 0, PATIENTS)
    result = train(
        TrainOptions(
            task=Heart,
            data=folder / "data",
            assignments=(*SETTINGS, *assignments),
            folder=folder,
            run=RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
        )
    )
    return result.run
