"""The loop: what it yields, what it learns, and that stopping anywhere changes nothing."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import TinyTask
from tiny_training import tiny_job, tiny_live, tiny_task

from medtool.config.sections import StageSection
from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import CheckpointError, UnknownNameError
from medtool.train.live import Live
from medtool.train.loop import (
    EpochDone,
    Finished,
    Job,
    StageBegan,
    StepDone,
    Stopped,
    training_loop,
)
from medtool.train.state import restore, training_document, training_tensors

STAGES = [
    StageSection(from_epoch=0, rates={"head": 1e-2}),
    StageSection(from_epoch=2, rates={"head": 1e-2, "trunk": 5e-3}),
]


def save(path: Path, live: Live) -> Path:
    write_checkpoint(path, training_document(live), training_tensors(live))
    return path


def weights(live: Live) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in live.answering_weights().items()}


def assert_same(first: Live, second: Live) -> None:
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def finish(job: Job, live: Live) -> Live:
    for _ in training_loop(job, live):
        pass
    return live


def test_it_yields_what_happened_in_order(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(stages=STAGES))
    facts = list(training_loop(job, tiny_live(job)))
    kinds = [type(fact).__name__ for fact in facts]
    epoch = ["StepDone"] * 4 + ["EpochDone"]
    assert kinds == ["StageBegan", *epoch * 2, "StageBegan", *epoch * 2, "Finished"]
    epochs = [fact for fact in facts if isinstance(fact, EpochDone)]
    assert [fact.epoch for fact in epochs] == [0, 1, 2, 3]
    assert [fact.stage for fact in epochs] == [0, 0, 1, 1]
    assert [fact.ends_stage for fact in epochs] == [False, True, False, True]
    assert epochs[0].rates == {"head": 1e-2}
    assert epochs[2].rates == {"head": 1e-2, "trunk": 5e-3}
    assert set(epochs[0].metrics) == {"auroc", "loss"}
    assert 0 <= epochs[0].data_wait_share <= 1
    assert epochs[0].is_best
    assert facts[-1] == Finished(4, early=False)


def test_it_learns(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(epochs=25))
    epochs = [fact for fact in training_loop(job, tiny_live(job)) if isinstance(fact, EpochDone)]
    assert epochs[-1].losses["loss"] < 0.5 * epochs[0].losses["loss"]


def test_a_frozen_group_keeps_its_bits_until_its_stage(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(stages=STAGES, weight_decay=0.1))
    live = tiny_live(job)
    before = weights(live)
    for fact in training_loop(job, live):
        if isinstance(fact, EpochDone):
            same = torch.equal(weights(live)["trunk.weight"], before["trunk.weight"])
            assert same == (fact.epoch < 2)
            assert not torch.equal(weights(live)["head.weight"], before["head.weight"])


def test_a_new_stage_keeps_the_momentum_of_the_old_groups(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(stages=STAGES))
    live = tiny_live(job)
    for fact in training_loop(job, live):
        if isinstance(fact, EpochDone) and fact.epoch == 1:
            moment = live.optimiser.state[live.network.head.weight]["exp_avg"].clone()
        if isinstance(fact, StageBegan) and fact.stage == 1:
            state = live.optimiser.state[live.network.head.weight]
            assert torch.equal(state["exp_avg"], moment)
            assert int(state["step"]) == 8
            assert live.network.trunk.weight not in live.optimiser.state
            return
    pytest.fail("no second stage")


VARIANTS = [
    {},
    {"stages": STAGES},
    {"average_decay": 0.9},
    {"optimiser": "sgd", "schedule": "cosine", "warmup_epochs": 1.5},
    {"schedule": "plateau", "plateau_patience": 1, "accumulate": 2},
    {"sampling": "balanced", "optimiser": "adam"},
]


@pytest.mark.parametrize("train", VARIANTS, ids=str)
def test_stopped_at_any_step_and_resumed_gives_the_same_bits(tmp_path: Path, train: dict) -> None:
    whole_job = tiny_job(tmp_path, tiny_task(**train))
    whole = finish(whole_job, tiny_live(whole_job))
    for stop_after in (1, 4, 6, 11, 15):
        steps = itertools.count()
        job = tiny_job(
            tmp_path, tiny_task(**train), should_stop=lambda s=steps, n=stop_after: next(s) >= n
        )
        live = tiny_live(job)
        facts = list(training_loop(job, live))
        if isinstance(facts[-1], Stopped):
            path = save(tmp_path / "stopped.safetensors", live)
            job = tiny_job(tmp_path, tiny_task(**train))
            live = tiny_live(job)
            torch.manual_seed(stop_after)
            restore(path, live)
            finish(job, live)
        assert_same(live, whole)
        for row, other in zip(live.history, whole.history, strict=True):
            for name in set(row) - {"seconds", "data_wait_share"}:
                assert row[name] == other[name], name


def test_resumed_from_the_end_of_any_epoch_gives_the_same_bits(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(stages=STAGES))
    whole = tiny_live(job)
    paths = []
    for fact in training_loop(job, whole):
        if isinstance(fact, EpochDone):
            paths.append(save(tmp_path / f"{fact.epoch}.safetensors", whole))
    for path in paths:
        live = tiny_live(job)
        restore(path, live)
        assert_same(finish(job, live), whole)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_change_nothing(tmp_path: Path, start_method: str) -> None:
    job = tiny_job(tmp_path, tiny_task(epochs=2))
    alone = finish(job, tiny_live(job))
    job = tiny_job(tmp_path, tiny_task(epochs=2), workers=2, start_method=start_method)
    assert_same(finish(job, tiny_live(job)), alone)


def test_accumulated_batches_give_the_step_of_a_large_one(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(batch_cases=4, epochs=2))
    large = finish(job, tiny_live(job))
    job = tiny_job(tmp_path, tiny_task(batch_cases=2, accumulate=2, epochs=2))
    small = finish(job, tiny_live(job))
    for name, tensor in weights(large).items():
        torch.testing.assert_close(weights(small)[name], tensor, rtol=0, atol=1e-5)


def test_early_stopping_ends_the_run(tmp_path: Path) -> None:
    # Rates of nearly 0: the first epoch stays the best.
    task = tiny_task(epochs=20, learning_rate=1e-30, early_stopping_epochs=3, optimiser="sgd")
    job = tiny_job(tmp_path, task)
    facts = list(training_loop(job, tiny_live(job)))
    assert facts[-1] == Finished(4, early=True)


def test_the_average_is_what_answers(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(average_decay=0.5, epochs=1, batch_cases=8))
    live = tiny_live(job)
    before = weights(live)["head.weight"]
    finish(job, live)
    after = live.network.state_dict()["head.weight"]
    # The first step moves it by 9 tenths: min(0.5, (1 + 0) / (10 + 0)) stays.
    torch.testing.assert_close(weights(live)["head.weight"], 0.1 * before + 0.9 * after)


def test_the_average_slows_down_to_its_own_decay(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(average_decay=0.15, epochs=1))
    live = tiny_live(job)
    expected = weights(live)["head.weight"].clone()
    with torch.no_grad():
        for step, decay in enumerate((1 / 10, 0.15, 0.15)):
            live.step = step
            live.network.get_parameter("head.weight").add_(1.0)
            live.update_average()
            now = live.network.state_dict()["head.weight"]
            expected = decay * expected + (1 - decay) * now
            torch.testing.assert_close(weights(live)["head.weight"], expected)


class Rising(TinyTask):
    """A second loss that grows with every epoch."""

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        self.asked = getattr(self, "asked", 0.0) + 1.0
        return {**super().summarise(facts), "class_loss": self.asked}


def test_of_every_loss_less_is_better(tmp_path: Path) -> None:
    """From a fault: the epoch with the highest class_loss was kept as the best."""
    settings = tiny_task(epochs=2).settings
    metrics = settings.metrics.model_copy(update={"primary": "class_loss"})
    job = tiny_job(tmp_path, Rising(settings.model_copy(update={"metrics": metrics})))
    epochs = [fact for fact in training_loop(job, tiny_live(job)) if isinstance(fact, EpochDone)]
    assert [epoch.is_best for epoch in epochs] == [True, False]


def test_an_unknown_primary_metric_is_refused_with_a_name(tmp_path: Path) -> None:
    task = tiny_task()
    metrics = task.settings.metrics.model_copy(update={"primary": "aurok"})
    task.settings = task.settings.model_copy(update={"metrics": metrics})
    job = tiny_job(tmp_path, task)
    with pytest.raises(UnknownNameError) as error:
        finish(job, tiny_live(job))
    assert error.value.nearest == "auroc"


def test_another_size_of_steps_cannot_resume(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(epochs=1))
    path = save(tmp_path / "c.safetensors", finish(job, tiny_live(job)))
    job = tiny_job(tmp_path, tiny_task(batch_cases=3))
    with pytest.raises(CheckpointError, match="another size"):
        restore(path, tiny_live(job))


def test_steps_are_counted(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(epochs=1, batch_cases=3))
    steps = [fact for fact in training_loop(job, tiny_live(job)) if isinstance(fact, StepDone)]
    assert [(fact.step, fact.steps) for fact in steps] == [(1, 3), (2, 3), (3, 3)]
