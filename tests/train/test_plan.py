"""The plan of a run, worked out by hand: steps, stages, rates, and fewer epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.config.sections import StageSection, TrainSection
from medtool.core.errors import UsageError
from medtool.train.plan import Plan, Stage, make_plan, plan_from_document

GROUPS = ("stem", "layer4", "head")
CURRICULUM = [
    StageSection(from_epoch=0, rates={"head": 1.0}),
    StageSection(from_epoch=4, rates={"head": 1.0, "layer4": 0.5}),
    StageSection(from_epoch=6, rates={"layer4": 0.5, "stem": 0.25}),
]


def section(**changes: object) -> TrainSection:
    return TrainSection(epochs=10, stages=CURRICULUM).model_copy(update=changes)


def test_steps_count_devices_and_accumulated_batches() -> None:
    train = section(batch_cases=3, accumulate=2)
    plan = make_plan(train, GROUPS, cases=25, devices=2)
    # 3 x 2 x 2 = 12 cases a step: two whole steps and one of a single case.
    assert (plan.cases_per_step, plan.steps_per_epoch, plan.steps) == (12, 3, 30)


def test_without_stages_every_group_learns_alike() -> None:
    plan = make_plan(section(stages=[], learning_rate=0.125), GROUPS, cases=4)
    assert plan.stages == (Stage(0, {"stem": 0.125, "layer4": 0.125, "head": 0.125}),)


def test_an_epoch_belongs_to_the_stage_that_began_last() -> None:
    plan = make_plan(section(), GROUPS, cases=4)
    assert [plan.stage_index(epoch) for epoch in range(10)] == [0] * 4 + [1] * 2 + [2] * 4
    assert [epoch for epoch in range(10) if plan.ends_stage(epoch)] == [3, 5, 9]
    assert plan.rates(5, 0) == {"head": 1.0, "layer4": 0.5}
    assert plan.rates(9, 0) == {"layer4": 0.5, "stem": 0.25}


def test_the_schedule_runs_over_the_whole_run() -> None:
    train = section(schedule="cosine", stages=[], learning_rate=8.0, batch_cases=1)
    plan = make_plan(train, ["head"], cases=6)
    # 60 steps: a third of the way is step 20 = epoch 3, step 2, where the factor is 0.75.
    assert plan.rates(0, 0) == {"head": 8.0}
    assert plan.rates(3, 2)["head"] == pytest.approx(6.0)
    assert plan.rates(5, 0)["head"] == pytest.approx(4.0)
    assert plan.rates(5, 0, plateau_factor=0.5)["head"] == pytest.approx(2.0)


def test_each_group_warms_up_from_the_epoch_in_which_it_joins() -> None:
    plan = make_plan(section(warmup_epochs=2, batch_cases=1), GROUPS, cases=2)
    # Two steps an epoch: four steps of warming up, a quarter of the rate more with each.
    assert [plan.rates(epoch, step)["head"] for epoch in (0, 1) for step in (0, 1)] == [
        0.25,
        0.5,
        0.75,
        1.0,
    ]
    # The head learnt before stage 2: it is warm; layer4 begins there with 1/4 of 0.5.
    assert plan.rates(4, 0) == {"head": 1.0, "layer4": 0.125}
    assert plan.rates(6, 1) == {"layer4": 0.5, "stem": 0.125}


def test_a_shorter_plan_keeps_its_stages_in_proportion() -> None:
    plan = make_plan(section(), GROUPS, cases=4)
    assert [stage.from_epoch for stage in plan.shortened(5).stages] == [0, 2, 3]
    assert [stage.from_epoch for stage in plan.shortened(3).stages] == [0, 1, 2]
    assert plan.shortened(5, 7).steps == 35


@given(epochs=st.integers(3, 10))
def test_a_shorter_plan_leaves_every_stage_an_epoch(epochs: int) -> None:
    plan = make_plan(section(), GROUPS, cases=4).shortened(epochs)
    begins = [stage.from_epoch for stage in plan.stages]
    assert begins[0] == 0
    assert begins == sorted(set(begins))
    assert begins[-1] < plan.epochs == epochs


def test_a_plan_written_and_read_is_the_same() -> None:
    plan = make_plan(section(schedule="poly", warmup_epochs=1.5), GROUPS, cases=9)
    assert plan_from_document(plan.as_document()) == plan
    assert isinstance(plan, Plan)


@pytest.mark.parametrize("begins", [(1,), (0, 3, 3), (0, 5, 2), (0, 10)])
def test_stages_out_of_order_are_refused(begins: tuple[int, ...]) -> None:
    stages = [StageSection(from_epoch=begin, rates={"head": 1.0}) for begin in begins]
    with pytest.raises(UsageError, match="do not follow each other"):
        make_plan(section(stages=stages), GROUPS, cases=4)


def test_a_group_that_is_not_there_is_refused_with_the_nearest() -> None:
    stages = [StageSection(from_epoch=0, rates={"layer5": 1.0})]
    with pytest.raises(UsageError) as error:
        make_plan(section(stages=stages), GROUPS, cases=4)
    assert error.value.nearest == "layer4"
