"""Factors on the rates, worked out by hand."""

import math

import pytest

from medtool.train.schedules import SCHEDULES, Plateau, warm_up


def test_the_names_are_those_that_a_preset_may_name() -> None:
    assert set(SCHEDULES) == {"constant", "cosine", "poly", "plateau"}


@pytest.mark.parametrize(
    ("name", "progress", "factor"),
    [
        ("constant", 0.0, 1.0),
        ("constant", 0.7, 1.0),
        ("plateau", 0.7, 1.0),
        ("cosine", 0.0, 1.0),
        # (1 + cos(60 degrees)) / 2 and (1 + cos(90 degrees)) / 2.
        ("cosine", 1 / 3, 0.75),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("poly", 0.0, 1.0),
        # 0.5 ** 0.9 = exp(-0.9 ln 2).
        ("poly", 0.5, math.exp(-0.9 * math.log(2))),
        ("poly", 1.0, 0.0),
    ],
)
def test_factors(name: str, progress: float, factor: float) -> None:
    assert SCHEDULES[name](progress) == pytest.approx(factor, abs=1e-12)


def test_warming_up_rises_in_equal_steps_and_never_begins_at_0() -> None:
    assert [warm_up(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0


def test_a_plateau_lowers_the_rates_after_its_patience_and_waits_anew() -> None:
    state, factors = Plateau(), []
    for better in (True, False, False, False, True, False, False):
        state = state.after_epoch(better=better, patience=2, lower_by=0.1)
        factors.append(state.factor)
    # Two epochs without a better one lower once; the next begins to wait again.
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])
