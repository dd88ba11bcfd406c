"""Which cases make up a step: every case once, classes alike, and shares of several devices."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.errors import UsageError
from medtool.core.records import ExampleKey
from medtool.train.sampler import epoch_keys, epoch_steps


def keys(count: int) -> list[ExampleKey]:
    return [ExampleKey(0, 0, index) for index in range(count)]


def test_naturally_every_case_comes_once_in_an_order_of_the_epoch() -> None:
    orders = [epoch_keys([0.0, 1.0] * 10, sampling="natural", seed=3, epoch=e) for e in range(3)]
    for epoch, order in enumerate(orders):
        assert sorted(key.index for key in order) == list(range(20))
        assert {(key.seed, key.epoch, key.copy) for key in order} == {(3, epoch, 0)}
    assert len({tuple(key.index for key in order) for order in orders}) == 3
    assert orders[0] == epoch_keys([0.0, 1.0] * 10, sampling="natural", seed=3, epoch=0)


def test_balanced_classes_come_equally_often() -> None:
    labels = [1.0, *[0.0] * 9]
    drawn = epoch_keys(labels, sampling="balanced", seed=0, epoch=0)
    assert len(drawn) == 10
    assert Counter(labels[key.index] for key in drawn) == {0.0: 5, 1.0: 5}
    # The one positive comes five times, each time as another copy; no negative comes twice.
    assert sorted(key.copy for key in drawn if key.index == 0) == [0, 1, 2, 3, 4]
    negatives = [key.index for key in drawn if key.index != 0]
    assert len(set(negatives)) == 5
    assert {key.copy for key in drawn if key.index != 0} == {0}


def test_of_an_odd_number_the_classes_take_turns_with_the_extra_one() -> None:
    labels = [0.0] * 5 + [1.0] * 2
    positives = [
        sum(labels[key.index] for key in epoch_keys(labels, sampling="balanced", seed=0, epoch=e))
        for e in range(4)
    ]
    assert sorted(positives) == [3, 3, 4, 4]
    assert positives[0] != positives[1]


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0, 1.0, None], []])
def test_balancing_needs_two_classes(labels: list[float | None]) -> None:
    with pytest.raises(UsageError, match="two classes") as error:
        epoch_keys(labels, sampling="balanced", seed=0, epoch=0)
    assert "natural" in error.value.how


def test_a_step_by_hand() -> None:
    # 10 cases, batches of 2, two batches a step: 4 + 4 + 2 cases; the last step has one batch.
    steps = epoch_steps(keys(10), batch_cases=2, accumulate=2)
    shares = [[[key.index for key in batch] for batch in step.batches] for step in steps]
    assert shares == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], []]]
    assert [step.cases for step in steps] == [4, 4, 2]


def test_the_shares_of_three_devices_by_hand() -> None:
    # 7 cases, batches of 1 on 3 devices, accumulated twice: 6 cases a step, the 7th for device 0.
    shares = [
        [
            [[key.index for key in batch] for batch in step.batches]
            for step in epoch_steps(keys(7), batch_cases=1, accumulate=2, device=d, devices=3)
        ]
        for d in range(3)
    ]
    assert shares == [
        [[[0], [3]], [[6], []]],
        [[[1], [4]], [[], []]],
        [[[2], [5]], [[], []]],
    ]


@given(
    cases=st.integers(0, 60),
    batch_cases=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    devices=st.integers(1, 5),
)
def test_devices_share_the_steps_of_one_without_overlap(
    cases: int, batch_cases: int, accumulate: int, devices: int
) -> None:
    alone = epoch_steps(keys(cases), batch_cases=batch_cases * devices, accumulate=accumulate)
    shares = [
        epoch_steps(
            keys(cases),
            batch_cases=batch_cases,
            accumulate=accumulate,
            device=device,
            devices=devices,
        )
        for device in range(devices)
    ]
    # All take the same number of steps, or some would wait for ever for the others' gradients.
    assert {len(share) for share in shares} == {len(alone)}
    for number, step in enumerate(alone):
        parts = [share[number] for share in shares]
        assert {part.cases for part in parts} == {step.cases}
        together = [key for part in parts for batch in part.batches for key in batch]
        assert Counter(together) == Counter(key for batch in step.batches for key in batch)
        assert max(len(batch) for part in parts for batch in part.batches) <= batch_cases


def test_a_shortened_epoch_has_fewer_steps() -> None:
    assert len(epoch_steps(keys(10), batch_cases=2, accumulate=1, steps=3)) == 3
