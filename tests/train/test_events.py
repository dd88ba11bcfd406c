"""TensorBoard reads what history.csv says, also after a run that was resumed."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medtool.train.events import Events


def row(epoch: int, loss: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "stage": 0,
        "seconds": 1.5,
        "loss": loss,
        "selection_auroc": 0.75,
        "selection_f1": float("nan"),
        "rate_head": 0.001,
    }


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself finds: (step, value) of each tag."""
    reader = EventAccumulator(str(folder), purge_orphaned_data=True)
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_tensorboard_reads_the_numbers_of_each_epoch(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.write(row(0, 0.5))
    events.write(row(1, 0.25))
    events.close()
    found = scalars(tmp_path)
    # All of these are sums of powers of two: float32 holds them exactly.
    assert found["training/loss"] == [(0, 0.5), (1, 0.25)]
    assert found["selection/auroc"] == [(0, 0.75), (1, 0.75)]
    assert found["training/seconds"] == [(0, 1.5), (1, 1.5)]
    assert found["rate/head"] == [(0, pytest.approx(0.001)), (1, pytest.approx(0.001))]
    # What is no number is no point.
    assert "selection/f1" not in found


def test_a_resumed_run_hides_what_the_interrupted_one_wrote_beyond_it(tmp_path: Path) -> None:
    first = Events(tmp_path)
    for epoch in range(3):
        first.write(row(epoch, 1.0))
    first.close()
    second = Events(tmp_path, next_epoch=1)
    for epoch in (1, 2):
        second.write(row(epoch, 0.5))
    second.close()
    assert scalars(tmp_path)["training/loss"] == [(0, 1.0), (1, 0.5), (2, 0.5)]
