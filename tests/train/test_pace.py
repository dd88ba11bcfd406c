"""Hours before they are spent: sums by hand, fitting to minutes, and a measurement that leaves
no trace."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import tiny_job, tiny_live, tiny_task

from medtool.config.sections import StageSection
from medtool.train.pace import SHARE_FOR_TRAINING, Pace, fit_to_minutes, measure_pace
from medtool.train.plan import Plan, Stage

# Ten epochs of 20 steps: 4 epochs of a cheap stage, 6 of one that costs three times as much.
PLAN = Plan(
    epochs=10,
    steps_per_epoch=20,
    cases_per_step=4,
    stages=(Stage(0, {"head": 1.0}), Stage(4, {"head": 1.0, "trunk": 1.0})),
)
PACE = Pace(step_s=(1.0, 3.0), validate_case_s=0.5, selection_cases=8)


def test_seconds_of_a_run_by_hand() -> None:
    assert PACE.validation_s() == 4.0
    assert PACE.epoch_s(PLAN, 3) == 24.0
    assert PACE.epoch_s(PLAN, 4) == 64.0
    assert PACE.run_s(PLAN) == 4 * 24 + 6 * 64


def test_enough_time_leaves_the_plan_as_it_is() -> None:
    fitted = fit_to_minutes(PLAN, PACE, 10)
    assert (fitted.epochs, fitted.stages, fitted.steps_per_epoch) == (10, PLAN.stages, 20)
    assert fitted.minutes == 10


def test_half_the_time_takes_about_half_the_epochs() -> None:
    # 5 epochs: 2 x 24 + 3 x 64 = 240 s; 6 epochs: 2 x 24 + 4 x 64 = 304 s.
    minutes = 250 / 60 / SHARE_FOR_TRAINING
    fitted = fit_to_minutes(PLAN, PACE, minutes)
    assert (fitted.epochs, [stage.from_epoch for stage in fitted.stages]) == (5, [0, 2])


def test_too_little_for_an_epoch_of_each_stage_takes_fewer_steps() -> None:
    # Two epochs: 48 s left after 2 x 4 s of validation; a step of each stage costs 4 s: 12.
    fitted = fit_to_minutes(PLAN, PACE, 56 / 60 / SHARE_FOR_TRAINING)
    assert (fitted.epochs, fitted.steps_per_epoch) == (2, 12)
    assert fit_to_minutes(PLAN, PACE, 1e-9).steps_per_epoch == 1


@given(minutes=st.floats(1.0, 20.0))
def test_what_was_fitted_fits_and_one_epoch_more_would_not(minutes: float) -> None:
    budget_s = minutes * 60 * SHARE_FOR_TRAINING
    fitted = fit_to_minutes(PLAN, PACE, minutes)
    assert PACE.run_s(fitted) <= budget_s or fitted.steps_per_epoch == 1
    if fitted.steps_per_epoch == 20 and fitted.epochs < 10:
        assert PACE.run_s(PLAN.shortened(fitted.epochs + 1)) > budget_s


def test_measuring_changes_neither_weights_nor_optimiser(tmp_path: Path) -> None:
    stages = [
        StageSection(from_epoch=0, rates={"head": 1e-2}),
        StageSection(from_epoch=1, rates={"head": 1e-2, "trunk": 1e-2}),
    ]
    job = tiny_job(tmp_path, tiny_task(stages=stages, average_decay=0.9))
    live = tiny_live(job)
    before = {name: tensor.clone() for name, tensor in live.network.state_dict().items()}
    pace = measure_pace(job, live, selection_cases=100)
    assert len(pace.step_s) == 2
    assert min(pace.step_s) > 0 < pace.validate_case_s
    assert pace.selection_cases == 100
    assert all(torch.equal(before[n], t) for n, t in live.network.state_dict().items())
    assert all(torch.equal(before[n], t) for n, t in live.average.items())
    assert (live.optimiser, live.epoch, live.step) == (None, 0, 0)
    assert Pace(**pace.as_document()) == pace


def test_without_a_selection_part_validation_costs_nothing(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tiny_task(), selection=[])
    assert measure_pace(job, tiny_live(job), selection_cases=0).validation_s() == pytest.approx(0)
